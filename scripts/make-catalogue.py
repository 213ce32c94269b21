#!/usr/bin/env python3
"""Makes the version catalogue (config/versions) from tables of facts about Kubernetes' versions.

usage: scripts/make-catalogue.py DIRECTORY

DIRECTORY holds api-removals.csv, metric-continuity.csv, metric-inventory.csv, feature-gates.csv and
component-flags.csv. What people write by hand (restart-causes.tsv, behaviour-changes.tsv) is left alone. Every table
has a head line and one row a line, its fields apart by tabs.
"""

import csv
import re
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "config" / "versions"


def rows(source, name):
    with open(Path(source) / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(name, head, lines):
    lines = sorted(set(tuple(" ".join(str(field).split()) for field in line) for line in lines))
    text = "\t".join(head) + "\n" + "".join("\t".join(line) + "\n" for line in lines)
    (OUT / name).write_text(text, encoding="utf-8")
    print(f"{name}: {len(lines)} rows")


def versions(text):
    return re.findall(r"\b\d+\.\d+(?:\.\d+)?\b", text or "")


def minor(text):
    found = versions(text)
    return ".".join(found[0].split(".")[:2]) if found else ""


def newer(version, than):
    key = lambda text: [int(part) for part in text.split(".")]
    return bool(version) and bool(than) and key(version) > key(than)


def snake(name):
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def label_renames(row):
    """old=new pairs, from the words of the row and from the two lists of labels."""
    pairs = {}
    for old, new in re.findall(r"(\w+) ?-> ?(\w+)", re.sub(r"[us]?s ?-> ?s|summary->\w+|histogram->\w+", "", row["transform"])):
        if "label" in row["transform"] and not re.search(rf"{re.escape(old)} ?-> ?{re.escape(new)},\w", row["transform"]):
            pairs[old] = new
    old_labels = [label for label in row["old_labels"].split(";") if label]
    new_labels = [label for label in row["new_labels"].split(";") if label]
    if all(re.fullmatch(r"\w+", label) for label in old_labels + new_labels):
        for label in old_labels:
            for candidate in (snake(label), {"pod_name": "pod", "container_name": "container"}.get(label)):
                if candidate and candidate != label and label not in new_labels and candidate in new_labels:
                    pairs.setdefault(label, candidate)
    return ",".join(f"{old}={new}" for old, new in sorted(pairs.items()) if old not in ("counter", "gauge", "Gauge"))


def kind_of(row):
    text = row["transform"].lower()
    if not row["new_metric"] or text.startswith("removed") or text == "removed, no replacement":
        return "removed"
    if "buckets changed" in text and row["old_metric"] == row["new_metric"]:
        return "buckets"
    if row["old_metric"] == row["new_metric"]:
        return "labels" if "label" in text else "same"
    if any(word in text for word in ("no direct compare", "not unit compatible", "not the same quantity", "approximate", "semantic", "timing-ratio", "gauge -> counter", "counter -> histogram", "with status label", "scrape", "use _count", "counter -> gauge")):
        return "approximate"
    if "summary->histogram" in text or "summary -> histogram" in text:
        return "summary-to-histogram"
    if "merge" in text:
        return "merge"
    return "rename"


def factor_of(row):
    text = row["transform"]
    if "1e6" in text or "x1e-6" in text:
        return "1e-6"
    if "value/1000" in text:
        return "1e-3"
    return "1"


def gone_in(row):
    """The first version without the old metric: hidden comes before removed."""
    key = lambda text: [int(part) for part in text.split(".")]
    found = versions(row["removed_in"])[:1] + re.findall(r"hidden (?:from )?(\d+\.\d+)", row["notes"])
    return minor(min(found, key=key)) if found else ""


# What the tables do not have: metrics whose names are made at run time.
EXTRA = [
    ("kubernetes", "*_rate_limiter_use", "", "removed", "1", "", "1.26", "",
     "it had measured nothing for years (kubernetes/kubernetes#113054)"),
]


def continuity(source):
    lines = list(EXTRA)
    for row in rows(source, "metric-continuity.csv"):
        # A family of metrics that share a prefix.
        for column in ("old_metric", "new_metric"):
            row[column] = row[column].replace("_* (all)", "_*")
        kind = kind_of(row)
        if kind == "same" or not re.fullmatch(r"[a-zA-Z_:][\w:]*\*?", row["old_metric"]):
            continue
        new = row["new_metric"] if re.fullmatch(r"[a-zA-Z_:][\w:]*\*?", row["new_metric"]) else ""
        component = "kubernetes" if row["component"].startswith("all (") else row["component"].split(" ")[0]
        lines.append((
            component, row["old_metric"], new, kind if new or kind == "removed" else "approximate", factor_of(row),
            label_renames(row), gone_in(row), minor(row["new_present"]), row["notes"][:160],
        ))
    write("metric-continuity.tsv", ("component", "old", "new", "kind", "factor", "labels", "gone_in", "new_since", "note"), lines)


# Of etcd, which has versions of its own: those that signals name, which all of its 3.x have.
ETCD_METRICS = """
    etcd_disk_backend_commit_duration_seconds etcd_disk_wal_fsync_duration_seconds
    etcd_network_peer_round_trip_time_seconds etcd_network_peer_sent_failures_total etcd_server_has_leader
    etcd_server_is_leader etcd_server_leader_changes_seen_total etcd_server_proposals_failed_total
    etcd_server_proposals_pending etcd_server_quota_backend_bytes etcd_server_slow_apply_total etcd_server_version
""".split()


def metrics(source):
    """Metrics that some version does not expose by default any more: what is not here is there to stay."""
    lines = []
    for row in rows(source, "metric-inventory.csv"):
        gone = row["hidden_by_default_in"] or row["removed_from_source_in"]
        lines.append((row["component"], row["metric"], minor(row["first_seen"]), minor(gone)))
    known = {(component, metric) for component, metric, *_ in lines}
    lines += [("etcd", name, "1.10", "") for name in ETCD_METRICS if ("etcd", name) not in known]
    write("metrics.tsv", ("component", "metric", "since", "gone_in"), lines)


def apis(source):
    write("api-removals.tsv", ("group_version", "kind", "deprecated_in", "removed_in", "replacement"), [
        (row["group_version"], row["kind"], minor(row["deprecated"]), minor(row["removed_in"]), row["replacement"])
        for row in rows(source, "api-removals.csv") if minor(row["removed_in"])
    ])


def gates(source):
    write("feature-gates.tsv", ("gate", "on_since", "removed_in"), [
        (row["gate"], minor(row["first_default_true"]), minor(row["removed_in"]))
        for row in rows(source, "feature-gates.csv") if row["removed_in"] or row["first_default_true"]
    ])


# Rows of the extraction that are known to be wrong: the code moved, the flag stayed.
FALSE_FLAGS = re.compile(r"oidc-|authorization-|show-hidden-metrics-for-version")


# Where the code kept a name that the binary no longer took: removed from the command line by Kubernetes' release notes of 1.24.
GONE_EARLIER = {
    (component, flag): "1.24"
    for component in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    for flag in ("address", "insecure-bind-address", "insecure-port", "port")
} | {
    ("kubelet", flag): "1.24"
    for flag in ("network-plugin", "network-plugin-mtu", "cni-bin-dir", "cni-cache-dir", "cni-conf-dir",
                 "docker-endpoint", "image-pull-progress-deadline", "experimental-dockershim-root-directory")
}

# klog's own, which all components took until 1.26 (KEP-2845) and no component's source names.
KLOG_FLAGS = {
    "add-dir-header": "1.16", "alsologtostderr": "1.10", "log-backtrace-at": "1.10", "log-dir": "1.10",
    "log-file": "1.14", "log-file-max-size": "1.14", "logtostderr": "1.10", "one-output": "1.20",
    "skip-headers": "1.14", "skip-log-headers": "1.14", "stderrthreshold": "1.10",
}


def flags(source):
    column = "removed_in(first version where not seen)"
    found = {
        (row["component"], row["flag"]): (minor(row["first_seen"]), minor(row[column]))
        for row in rows(source, "component-flags.csv")
        if minor(row[column]) and not FALSE_FLAGS.match(row["flag"])
        and not (row["component"] == "kube-proxy" and not newer(minor(row[column]), "1.31"))
    }
    for key, removed in GONE_EARLIER.items():
        if key in found:
            found[key] = (found[key][0], removed)
    for component in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"):
        for flag, since in KLOG_FLAGS.items():
            found.setdefault((component, flag), (since, "1.26"))
    write("component-flags.tsv", ("component", "flag", "since", "removed_in"), [
        (*key, *versions) for key, versions in sorted(found.items())
    ])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    OUT.mkdir(parents=True, exist_ok=True)
    for make in (continuity, metrics, apis, gates, flags):
        make(sys.argv[1])


main()
