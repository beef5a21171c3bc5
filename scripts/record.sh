#!/usr/bin/env bash
# Records two simulated hours of every loop: runs the demo, changes a setting and tries a flow out while it runs, and
# writes what was decided with what it takes to decide it again. Usage: scripts/record.sh FILE
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
file=${1:?the file to write, such as tests/recordings/demo.jsonl.gz}
trunkline=${TRUNKLINE:-target/debug/trunkline}
seconds=${SECONDS_TO_RECORD:-100}

said=$(mktemp)
trap 'rm -f "$said"; [[ -z ${demo:-} ]] || kill "$demo" 2>/dev/null || true' EXIT
"$trunkline" demo --speed 72 --seed 1 --for "$((seconds + 60))s" >"$said" &
demo=$!

# What the demo says of itself, once it does.
told() { sed -n "$1" "$said" | head -n 1; }
until [[ -n $(told 's/^Platform //p') ]]; do
    kill -0 "$demo"
    sleep 0.2
done
console=$(told 's#^Console *\(http://[^/]*\)/.*#\1#p')
platform=$(told 's#^Platform *\(http://[^ ]*\)/simulator/campaigns.*#\1#p')
TRUNKLINE_POSTGRES__URL=$(told "s/^SQL *psql '\([^']*\)'.*/\1/p")
export TRUNKLINE_POSTGRES__URL

send() { curl -fsS -X "$1" -H 'content-type: application/json' -d "$3" "$console/v1/$2" >/dev/null; }
mapfile -t flows < <(curl -fsS "$platform/simulator/flows" | grep -oE '"id": *"[0-9a-f-]{36}"' | cut -d'"' -f4)
rules=''
for flow in "${flows[@]:0:2}"; do
    rules+="${rules:+,}{\"id\":\"$flow\",\"destination\":{\"type\":\"FLOW\",\"id\":\"$flow\"},\"weight\":50}"
done
send PUT routes/dispatcher "{\"id\":\"dispatcher\",\"name\":\"Dispatcher\",\"rules\":[$rules]}"
send POST routes/dispatcher/publish '{}'
"$trunkline" canary start "${flows[1]}" --candidate "${flows[0]}" --route dispatcher --hold 3m >&2

sleep $((seconds / 2))
"$trunkline" settings set dial '{"goal": 0.015, "shadowPolicy": "proportional"}' >&2
sleep $((seconds - seconds / 2))
"$trunkline" replay record --from "$((seconds + 60))s" --output "$file"
kill -INT "$demo"
wait "$demo" || true
demo=''
