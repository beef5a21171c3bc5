#!/usr/bin/env bash
# Records two simulated hours of every loop: runs the demo, which tries two flows out, changes a setting while it runs,
# and writes what was decided with what it takes to decide it again. Usage: scripts/record.sh FILE
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
file=${1:?the file to write, such as tests/recordings/demo.jsonl.gz}
trunkline=${TRUNKLINE:-target/debug/trunkline}
# Two hours are 100 s; the loops need some of the time until they have begun.
seconds=${SECONDS_TO_RECORD:-110}

said=$(mktemp)
trap 'rm -f "$said"; [[ -z ${demo:-} ]] || kill "$demo" 2>/dev/null || true' EXIT
"$trunkline" demo --speed 72 --seed 1 --for "$((seconds + 60))s" >"$said" &
demo=$!

# Where its database is, once it says so.
until url=$(sed -n "s/^SQL *psql '\([^']*\)'.*/\1/p" "$said" | head -n 1) && [[ -n $url ]]; do
    kill -0 "$demo"
    sleep 0.2
done
export TRUNKLINE_POSTGRES__URL=$url

sleep $((seconds / 2))
"$trunkline" settings set dial '{"goal": 0.015, "shadowPolicy": "proportional"}' >&2
sleep $((seconds - seconds / 2))
"$trunkline" replay record --from "$((seconds + 60))s" --output "$file"
kill -INT "$demo"
wait "$demo" || true
demo=''
