#!/usr/bin/env bash
# Runs the fuzz targets, each for some seconds, from seeds that are cut from the repository's own data.
# usage: scripts/fuzz.sh SECONDS [TARGET…]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(FuzzExposition FuzzBlock FuzzPromQL FuzzConfig FuzzLogLine FuzzEngine)
export UPGRADE_WATCH_FUZZ=1 SWIFT_BACKTRACE=enable=no
for target in "${targets[@]}"; do
    swift build -c release --scratch-path .build-fuzz --sanitize=fuzzer --product "$target"
    corpus=".build-fuzz/corpus/$target"
    mkdir -p "$corpus"
    case $target in
    FuzzExposition) printf 'a{b="c",d="\\"e"} 1.5e3 1000\n# TYPE a counter\nx +Inf\n# EOF\n' >"$corpus/seed" ;;
    FuzzPromQL) printf 'sum by (x) (rate(a[5m] offset 1m)) / on (x) group_left a @ end() > bool 0.5 or absent(b)' >"$corpus/seed" ;;
    FuzzConfig) cp alerts/*.yaml config/signals.yaml config/log-rules.yaml Benchmarks/SoakBench/nuisance-*.yaml "$corpus/" ;;
    FuzzLogLine)
        printf 'E1123 16:17:57.864976    1488 controller.go:256] "msg" key="value"' >"$corpus/klog"
        printf '{"t":1,"watch":{"type":"ADDED","object":{"metadata":{"name":"a"},"status":{"containerStatuses":[]}}}}' >"$corpus/pod"
        ;;
    esac
    timeout -k 10 $((seconds + 60)) ".build-fuzz/release/$target" -max_total_time="$seconds" -timeout=10 -max_len=4096 \
        -artifact_prefix=".build-fuzz/$target-" -print_final_stats=1 "$corpus" 2>&1 | tail -n 12
done
