#!/usr/bin/env bash
# Reads schemas/asyncapi.json and schemas/openapi.json with official parsers. The parsers come from npm, in the versions of
# scripts/documents/package-lock.json, and are kept in .local; nothing of them runs at installation.
#   scripts/check-documents.sh [FOLDER]      FOLDER: schemas
set -euo pipefail

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-$root/schemas}
sources=$root/scripts/documents
place=$root/.local/documents

command -v npm >/dev/null || {
    echo "check-documents: npm not found; run: $root/scripts/setup.sh documents" >&2
    exit 1
}
mkdir -p "$place"
exec 9>"$place/.lock"
flock 9
# A folder that was filled halfway has no copy of the lock file yet.
if ! cmp -s "$sources/package-lock.json" "$place/installed"; then
    rm -f "$place/installed"
    cp "$sources/package.json" "$sources/package-lock.json" "$place/"
    npm ci --prefix "$place" --ignore-scripts --no-audit --no-fund --loglevel=error >&2 ||
        { echo "check-documents: npm could not fetch the parsers (its messages are above); check the network" >&2 && exit 1; }
    cp "$sources/package-lock.json" "$place/installed"
fi
cp "$sources/check.mjs" "$place/check.mjs"
node "$place/check.mjs" "$folder"
