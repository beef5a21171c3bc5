#!/usr/bin/env bash
# Audits dependencies: unused ones, and by deny.toml licences, bans, sources and known vulnerabilities. Installs cargo-machete and
# cargo-deny into .local where the machine has none; the first time that compiles for some minutes.
set -euo pipefail

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# Prints where the tool is; installs this version of it where there is none.
tool() {
    local name=$1 version=$2 place=$root/.local/$1-$2
    command -v "$name" && return
    if [[ ! -x $place/bin/$name ]]; then
        echo "check-dependencies: installing $name $version; this compiles for some minutes, once" >&2
        cargo install --locked --quiet --root "$place" --version "$version" "$name" >&2 || {
            echo "check-dependencies: $name could not be installed (its messages are above); check the network, or run:" >&2
            echo "  cargo install --locked $name" >&2
            exit 1
        }
    fi
    echo "$place/bin/$name"
}

machete=$(tool cargo-machete 0.9.2)
deny=$(tool cargo-deny 0.20.2)

"$machete" --skip-target-dir || {
    echo "check-dependencies: remove what is not used from Cargo.toml" >&2
    exit 1
}
"$deny" --locked check licenses bans sources
# The database of vulnerabilities lies on another host than the packages: a machine that cannot reach it checks all the rest.
if "$deny" --locked fetch db; then
    "$deny" --locked check --disable-fetch advisories
else
    echo "check-dependencies: NOT CHECKED for known vulnerabilities: the advisory database cannot be fetched (reason above)." >&2
    echo "check-dependencies: licences, bans and sources are as deny.toml says." >&2
fi
