#!/usr/bin/env bash
# Takes the pictures of the console in docs/pictures from a demo, with Chromium, and makes them small with pngquant.
#   scripts/pictures.sh [SECONDS]     how long the demo runs before they are taken; 100 without
set -euo pipefail
cd "$(dirname "$0")/.."

wait=${1:-100}
program=${TRUNKLINE_PROGRAM:-target/debug/trunkline}
command -v pngquant >/dev/null || { echo "pictures: pngquant not found; run: apt-get install pngquant" >&2; exit 1; }
scripts/setup.sh all chromium
scripts/kafka-jars.sh
[[ -n ${TRUNKLINE_PROGRAM:-} ]] || cargo build --locked
cargo test --locked --no-run --test console

log=$(mktemp)
"$program" demo --speed 10 --listen 127.0.0.1:0 >"$log" 2>&1 &
demo=$!
trap 'kill -INT "$demo" 2>/dev/null; wait "$demo" 2>/dev/null || true; rm -f "$log"' EXIT
address=
for _ in $(seq 120); do
    address=$(sed -n 's/^Console *\(http:[^ ]*\).*/\1/p' "$log")
    [[ -z $address ]] || break
    kill -0 "$demo" 2>/dev/null || { cat "$log" >&2; exit 1; }
    sleep 1
done
[[ -n $address ]] || { echo "pictures: the demo has not told its address" >&2; exit 1; }
sleep "$wait"
mkdir -p docs/pictures
TRUNKLINE_PICTURES_OF=${address%/} TRUNKLINE_PICTURES_IN=$PWD/docs/pictures \
    cargo test --locked --test console -- --ignored browser::pictures
pngquant --force --skip-if-larger --ext .png 64 docs/pictures/*.png || (($? == 98))
