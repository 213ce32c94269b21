#!/usr/bin/env bash
# Replays the recorded upgrade of a real cluster, prints the webhooks that it sets off, and shows the report.
# usage: scripts/demo.sh FOLDER-WITH-THE-PROGRAMS [OUTPUT-FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
out=${2:-demo-out}
rm -rf "$out"
mkdir -p "$out"

"$bin/webhook-printer" --port 0 --address-file "$out/receiver" &
receiver=$!
trap 'kill "$receiver" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
    [ -s "$out/receiver" ] && break
    sleep 0.1
done

# The paths in the configuration are relative to it.
config=demo/.upgrade-watch.demo.yaml
sed "s|RECEIVER|$(cat "$out/receiver")|" demo/upgrade-watch.yaml >"$config"
trap 'kill "$receiver" 2>/dev/null || true; rm -f "$config"' EXIT

echo "Replaying demo/recording: a cluster of three nodes, upgraded in place from Kubernetes 1.25 to 1.33."
"$bin/upgrade-watch" replay demo/recording --config "$config" --store "$out/store"

echo
code=0
"$bin/upgrade-watch" report --store "$out/store" || code=$?
"$bin/upgrade-watch" report --store "$out/store" --format html --output "$out/report.html" || true
"$bin/upgrade-watch" report --store "$out/store" --format json --output "$out/report.json" || true
echo
echo "The report exits with $code; here that is the right answer: 1 is FAIL."
echo "HTML: $out/report.html   JSON: $out/report.json   store: $out/store"
[ "$code" -eq 1 ]
