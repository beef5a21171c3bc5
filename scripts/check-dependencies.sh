#!/usr/bin/env bash
# Audits dependencies by deny.toml: licences, bans, sources, and known vulnerabilities. Installs cargo-deny into .local where the
# machine has none; the first time that compiles for some minutes.
set -euo pipefail

version=0.20.2
root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

deny=$(command -v cargo-deny || true)
if [[ -z $deny ]]; then
    place=$root/.local/cargo-deny-$version
    deny=$place/bin/cargo-deny
    if [[ ! -x $deny ]]; then
        echo "check-dependencies: installing cargo-deny $version; this compiles for some minutes, once" >&2
        cargo install --locked --quiet --root "$place" --version "$version" cargo-deny || {
            echo "check-dependencies: cargo-deny could not be installed (its messages are above); check the network, or run:" >&2
            echo "  cargo install --locked cargo-deny" >&2
            exit 1
        }
    fi
fi

"$deny" --locked check licenses bans sources
# The database of vulnerabilities lies on another host than the packages: a machine that cannot reach it checks all the rest.
if "$deny" --locked fetch db; then
    "$deny" --locked check --disable-fetch advisories
else
    echo "check-dependencies: NOT CHECKED for known vulnerabilities: the advisory database cannot be fetched (reason above)." >&2
    echo "check-dependencies: licences, bans and sources are as deny.toml says." >&2
fi
