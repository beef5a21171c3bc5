#!/usr/bin/env bash
# Checks what a Debian machine (12, 13) needs for trunkline and installs what is missing.
#   scripts/setup.sh [build] [services] [all] [documents] [chromium] [promtool] [victoria-metrics]     without words: all, that is build and services
set -euo pipefail

rust_minor=94 # of Rust 1.x: rust-version in Cargo.toml

say() { printf '%s\n' "$*" >&2; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# rustup puts its programs there and often only a new login shell knows it; an older cargo may lie in /usr/bin.
PATH=${HOME:-/root}/.cargo/bin:$PATH:/usr/sbin:/sbin

packages=()  # Debian packages to install
reasons=()   # what each is missed for
need() { # PACKAGE WHAT
    packages+=("$1")
    reasons+=("$2")
}

check_build() {
    if ! has gcc || ! has g++ || ! has make || [[ ! -e /usr/include/stdio.h ]]; then
        need build-essential "a C and C++ compiler, make and the C headers (librdkafka is compiled)"
    fi
    has pkg-config || need pkg-config "pkg-config"
    [[ -e /usr/include/openssl/ssl.h ]] || need libssl-dev "OpenSSL's headers (TLS to Kafka)"
    [[ -e /usr/include/zlib.h ]] || need zlib1g-dev "zlib's headers"
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || need ca-certificates "certificates for downloads"
}

check_services() {
    java_is_enough || need default-jre-headless "Java 17 or later (Kafka runs on it)"
    has mvn || need maven "Maven (fetches Kafka)"
    { has setpriv && has flock; } || need util-linux "setpriv and flock (start and stop of the services)"
    postgres_is_there || need postgresql "PostgreSQL 15 or later, the server"
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || need ca-certificates "certificates for downloads"
}

check_documents() {
    has node || need nodejs "Node.js (runs the official parsers of AsyncAPI and OpenAPI)"
    has npm || need npm "npm (fetches them)"
}

check_chromium() {
    { [[ -n ${TRUNKLINE_TEST_CHROMIUM:-} ]] || has chromium || has chromium-browser || has google-chrome; } ||
        need chromium "Chromium (the console is looked at in a real browser)"
    has fc-match && [[ -n $(fc-list 2>/dev/null) ]] || need fonts-dejavu-core "a font for it"
}

check_promtool() {
    has promtool || need prometheus "promtool (reads alerting rules and metrics as Prometheus does)"
}

check_victoria_metrics() {
    has victoria-metrics || need victoria-metrics "VictoriaMetrics (receives line protocol in a test)"
}

java_is_enough() {
    local version release
    has java || return 1
    # Debian's Java says its version in a file; asking the program costs 0.1 s.
    release=$(readlink -f "$(command -v java)")
    release=${release%/bin/java}/release
    if [[ -r $release ]]; then
        version=$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$release")
    else
        version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
    fi
    ((${version:-0} >= 17))
}

postgres_is_there() {
    local candidate version
    for candidate in "$(command -v postgres || true)" /usr/lib/postgresql/*/bin/postgres; do
        [[ -x $candidate && -x ${candidate%/*}/initdb ]] || continue
        version=$("$candidate" --version 2>/dev/null) || continue
        version=${version##*) } version=${version%%[!0-9]*}
        ((${version:-0} < 15)) || return 0
    done
    return 1
}

# ---- Debian packages -------------------------------------------------------------------------------------------

as_root=()
can_be_root() { ((EUID == 0)) || { has sudo && sudo -n true 2>/dev/null; }; }

choose_root() {
    ((EUID != 0)) || return 0
    if can_be_root; then
        as_root=(sudo -n)
        return 0
    fi
    explain_missing
    fail "cannot install as this user; run: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${packages[*]}"
}

explain_missing() {
    local i
    for i in "${!packages[@]}"; do say "setup: missing: ${reasons[$i]} — Debian package ${packages[$i]}"; done
}

# Waits for another installation to end.
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" </dev/null >&2; }

updated=
update_once() {
    [[ -z $updated ]] || return 0
    choose_root
    updated=yes
    apt update || fail "apt-get update failed (its messages are above); check the network and /etc/apt/sources.list"
}

is_offered() { [[ -n $(apt-cache show "$1" 2>/dev/null) ]]; }

quiet_files=()
# Installing a server starts it, on its default port, and PostgreSQL's package makes a cluster of its own. Neither is
# wanted here: the services are private ones.
keep_servers_quiet() {
    local file
    file=/usr/sbin/policy-rc.d
    if [[ ! -e $file ]]; then
        quiet_files+=("$file")
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$file" >/dev/null
        "${as_root[@]}" chmod 755 "$file"
    fi
    file=/etc/postgresql-common/createcluster.d/00-trunkline-setup.conf
    if [[ ! -e /usr/bin/pg_createcluster ]]; then
        quiet_files+=("$file")
        "${as_root[@]}" mkdir -p "${file%/*}"
        echo 'create_main_cluster = false' | "${as_root[@]}" tee "$file" >/dev/null
    fi
}
end_quiet() { ((${#quiet_files[@]} == 0)) || "${as_root[@]}" rm -f "${quiet_files[@]}"; }

install_missing() {
    ((${#packages[@]})) || return 0
    has apt-get || { explain_missing && fail "this is no Debian; install the above with this system's own means"; }
    choose_root
    explain_missing
    update_once
    trap end_quiet EXIT
    keep_servers_quiet
    apt install -y --no-install-recommends "${packages[@]}" ||
        fail "apt-get could not install ${packages[*]} (its messages are above)"
    end_quiet
    quiet_files=()
    # Nor after the next boot. A machine without systemd has no such service.
    local server
    for server in victoria-metrics prometheus; do
        if [[ " ${packages[*]} " == *" $server "* ]] && has systemctl; then
            "${as_root[@]}" systemctl disable --quiet "$server.service" >&2 || true
        fi
    done
    packages=() reasons=()
}

# ---- Rust ------------------------------------------------------------------------------------------------------

rust_is_enough() {
    local version minor
    version=$(cargo --version 2>/dev/null) || return 1
    version=${version#cargo } minor=${version#*.}
    [[ ${version%%.*} -gt 1 ]] || ((${minor%%.*} >= rust_minor))
}

rustup_needed=
# Before anything is installed: where Rust cannot be had, the user should not wait to be told.
check_rust() {
    rust_is_enough && return 0
    rustup_needed=yes
    has rustup && return 0
    if has apt-get; then
        if ! is_offered rustup && can_be_root; then update_once; fi
        if is_offered rustup; then
            need rustup "Rust 1.$rust_minor or later (found: $(cargo --version 2>/dev/null || echo none))"
            return 0
        fi
    fi
    fail "Rust 1.$rust_minor or later is needed (found: $(cargo --version 2>/dev/null || echo none)) and this distribution has none; run:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c rustfmt -c clippy
then start again"
}

install_rust() {
    [[ -n $rustup_needed ]] || return 0
    say "setup: installing Rust with rustup"
    rustup toolchain install stable --profile minimal --component rustfmt --component clippy </dev/null >&2 ||
        fail "rustup could not install Rust (its messages are above)"
    rust_is_enough || rustup default stable >&2 || true
    hash -r
    rust_is_enough || fail "cargo is still $(cargo --version 2>/dev/null || echo missing) after rustup installed a newer one;
  an older cargo or a rustup override comes first, see: type -a cargo; rustup show"
}

# ----------------------------------------------------------------------------------------------------------------

(($#)) || set -- all
for word in "$@"; do
    case $word in
        all) check_rust && check_build && check_services ;;
        build) check_rust && check_build ;;
        services) check_services ;;
        documents) check_documents ;;
        chromium) check_chromium ;;
        promtool) check_promtool ;;
        victoria-metrics)
            check_victoria_metrics
            # Not every release of Debian has it; the test that uses it says so and is skipped.
            if [[ " ${packages[*]} " == *" victoria-metrics "* ]] && has apt-get; then
                if ! is_offered victoria-metrics && can_be_root; then update_once; fi
                if ! is_offered victoria-metrics; then
                    unset 'packages[-1]' 'reasons[-1]'
                    say "setup: this Debian has no package victoria-metrics; the tests that need it are skipped"
                fi
            fi
            ;;
        *) say "Usage: scripts/setup.sh [build] [services] [all] [documents] [chromium] [promtool] [victoria-metrics]" && exit 2 ;;
    esac
done
install_missing
install_rust
