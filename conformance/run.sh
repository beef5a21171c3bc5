#!/usr/bin/env bash
# Lets Genesys Cloud's official SDKs make every call against the simulated platform, and holds the requests that
# trunkline's own client makes to the SDKs' models. `conformance/run.sh REQUESTS` takes the log of those requests.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
requests=$1
trunkline=${CARGO_TARGET_DIR:-target}/debug/trunkline
place=.local/conformance
python=$place/python/bin/python

log=$(mktemp)
"$trunkline" simulate --dialect platform --listen 127.0.0.1:0 --requests-per-window 100000 --speed 20 >"$log" &
simulator=$!
trap 'kill "$simulator" 2>/dev/null; wait "$simulator" 2>/dev/null || true; rm -f "$log"' EXIT
until url=$(sed -n 's/^genesys.base_url = //p' "$log") && [[ -n $url ]]; do
    kill -0 "$simulator" 2>/dev/null || { echo "conformance: the simulator has ended" >&2; exit 1; }
    sleep 0.1
done

"$python" conformance/sdk.py "$url"
NODE_PATH=$place/javascript/node_modules node conformance/sdk.js "$url"
"$python" conformance/requests.py "$requests" "$url"
