#!/usr/bin/env bash
# Makes browsable documentation of every module under .build-docs.
set -euo pipefail
cd "$(dirname "$0")/.."
graphs=.build-docs/graphs
rm -rf "$graphs"
mkdir -p "$graphs"
swift build --scratch-path .build-docs/build -Xswiftc -emit-symbol-graph -Xswiftc -emit-symbol-graph-dir \
    -Xswiftc "$graphs" -Xswiftc -symbol-graph-minimum-access-level -Xswiftc package
for module in Series Statistics Exposition Fetch StrictYAML PromQL Storage Scrape LogWatch Cluster Alerting Recording \
    Comparison Report WebAPI UpgradeWatch; do
    mkdir -p "$graphs/$module"
    mv "$graphs/$module".symbols.json "$graphs/$module"@*.symbols.json "$graphs/$module/" 2>/dev/null || true
    docc convert --fallback-display-name "$module" --fallback-bundle-identifier "upgrade-watch.$module" \
        --additional-symbol-graph-dir "$graphs/$module" --output-dir ".build-docs/$module.doccarchive"
done
echo "documentation: .build-docs/*.doccarchive"
