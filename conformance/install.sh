#!/usr/bin/env bash
# Installs Genesys Cloud's official SDKs into .local/conformance, unless they are there at the pinned versions.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")"
place=../.local/conformance
mkdir -p "$place"

fail() {
    echo "conformance: $1" >&2
    echo "conformance: the command was: $2" >&2
    exit 1
}

need() {
    command -v "$1" >/dev/null || fail "$1 is missing" "apt-get install -y $2"
}

need python3 python3-venv
need node nodejs
need npm npm

if ! cmp -s requirements.txt "$place/python.installed"; then
    rm -rf "$place/python"
    python3 -m venv "$place/python" || fail "no Python environment can be made" "python3 -m venv .local/conformance/python"
    "$place/python/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt ||
        fail "the Python SDK cannot be installed" ".local/conformance/python/bin/pip install -r conformance/requirements.txt"
    cp requirements.txt "$place/python.installed"
fi

if ! cmp -s package-lock.json "$place/javascript.installed"; then
    rm -rf "$place/javascript"
    mkdir "$place/javascript"
    cp package.json package-lock.json "$place/javascript/"
    npm ci --prefix "$place/javascript" --no-audit --no-fund --silent ||
        fail "the JavaScript SDK cannot be installed" "npm ci --prefix .local/conformance/javascript (with conformance/package*.json in it)"
    cp package-lock.json "$place/javascript.installed"
fi
