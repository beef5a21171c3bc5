#!/usr/bin/env bash
# Reads what is deployed with: docker-compose.yml and deploy/kubernetes by their published schemas, which come from npm in the versions of
# scripts/deploy/package-lock.json and are kept in .local (nothing of them runs at installation); the unit with systemd's own reader.
set -euo pipefail
root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
place=$root/.local/deploy

command -v npm >/dev/null || {
    echo "check-deploy: npm not found; run: $root/scripts/setup.sh documents" >&2
    exit 1
}
mkdir -p "$place"
exec 9>"$place/.lock"
flock 9
# A folder that was filled halfway has no copy of the lock file yet.
if ! cmp -s scripts/deploy/package-lock.json "$place/installed"; then
    rm -f "$place/installed"
    cp scripts/deploy/package.json scripts/deploy/package-lock.json "$place/"
    npm ci --prefix "$place" --ignore-scripts --no-audit --no-fund --loglevel=error >&2 ||
        { echo "check-deploy: npm could not fetch the schemas (its messages are above); check the network" >&2 && exit 1; }
    cp scripts/deploy/package-lock.json "$place/installed"
fi
cp scripts/deploy/check.mjs "$place/check.mjs"
node "$place/check.mjs" docker-compose.yml deploy/kubernetes/*.yaml

# The program is not installed here, and its credential is not there: something else stands in its place.
if command -v systemd-analyze >/dev/null; then
    unit=$place/trunkline.service
    sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' deploy/systemd/trunkline.service >"$unit"
    said=$(systemd-analyze verify --man=no "$unit" 2>&1) || { echo "check-deploy: deploy/systemd/trunkline.service: $said" >&2 && exit 1; }
    # A key that it does not know is a warning to systemd.
    [[ -z $said ]] || { echo "check-deploy: deploy/systemd/trunkline.service: $said" >&2 && exit 1; }
else
    echo "check-deploy: NOT CHECKED: deploy/systemd/trunkline.service, there is no systemd-analyze" >&2
fi
