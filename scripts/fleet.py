#!/usr/bin/env python3
"""Scrape a large fleet over TLS on loopback, and say what it takes.

usage: fleet.py BINARY [--targets 10000] [--interval 30] [--minutes 10] [--keep 150] [--gzip]

nginx (Debian's nginx-light) serves the recorded kubelets' expositions over TLS to those who show a client's
certificate; each target is an address of 127.0.0.0/8 of its own, so that each has a connection of its own. Every
interval the bodies move one recorded step. BINARY is started as `BINARY run --config FILE`, reads about --keep series
of each target (metric_relabel_configs), and is stopped with SIGTERM.

Printed are processor time and peak memory of BINARY and of nginx, scrapes that failed, and how far the distances of
successive scrapes of a target are from the interval, at most. Everything is on loopback, and ends by itself.
"""
import argparse, json, os, re, signal, socket, subprocess, sys, tempfile, time, urllib.parse, urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
JOBS = ["kubelet-1", "kubelet-2", "kubelet-3"]

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

def bodies(job, most=20):
    file = f"{ROOT}/demo/recording/metrics/{job}.prom.zst"
    data = subprocess.run(["zstd", "-dcq", "--long=27", file], stdout=subprocess.PIPE, check=True).stdout
    found, at = [], 0
    while at < len(data) and len(found) < most:
        end = data.index(b"\n", at)
        _, _, _, status, size = data[at:end].split()
        if status == b"200":
            found.append(data[end + 1:end + 1 + int(size)])
        at = end + 1 + int(size)
    return found

def keep_list(body, most):
    """Names of metrics with at most so many series in all, whole ones, large and small mixed; and how many series."""
    count = {}
    for line in body.decode().splitlines():
        if line and line[0] != "#":
            name = re.split(r"[{ ]", line, maxsplit=1)[0]
            count[name] = count.get(name, 0) + 1
    names, total = [], 0
    for name in sorted(count, key=lambda n: (-count[n] % 37, n)):
        if total + count[name] <= most:
            names.append(name)
            total += count[name]
    return names, total

def certificates(work):
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=work, check=True, stderr=subprocess.DEVNULL)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
    for name in ["server", "client"]:
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        with open(f"{work}/{name}.ext", "w") as f:
            f.write("subjectAltName=DNS:kubelet\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.crt")

def process(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    with open(f"/proc/{pid}/status") as f:
        peak = next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), peak / 1024

def worker(master):
    out = subprocess.run(["pgrep", "-P", str(master)], stdout=subprocess.PIPE, text=True).stdout.split()
    return int(out[0])

def query(web, expression):
    url = f"http://127.0.0.1:{web}/api/v1/query?query={urllib.parse.quote(expression)}"
    with urllib.request.urlopen(url, timeout=120) as answer:
        return json.load(answer)["data"]["result"]

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--targets", type=int, default=10000)
    parser.add_argument("--interval", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--keep", type=int, default=150)
    parser.add_argument("--gzip", action="store_true")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        run(a, work)

def run(a, work):
    certificates(work)
    recorded = {job: bodies(job) for job in JOBS}
    steps = min(len(b) for b in recorded.values())
    for step in range(steps):
        os.makedirs(f"{work}/steps/{step}")
        for job in JOBS:
            with open(f"{work}/steps/{step}/{job}", "wb") as f:
                f.write(recorded[job][step])
            if a.gzip:
                subprocess.run(["gzip", "-k", f"{work}/steps/{step}/{job}"], check=True)
    os.symlink(f"{work}/steps/0", f"{work}/now")
    names, kept = keep_list(recorded[JOBS[0]][0], a.keep)
    port, web = free_port(), free_port()
    # With less than a sixteenth free nginx closes those that wait, and every scrape would shake hands again.
    connections = a.targets * 9 // 8 + 100
    with open(f"{work}/nginx.conf", "w") as f:
        f.write(f"""
daemon off; worker_processes 1; worker_rlimit_nofile {connections + 100}; pid {work}/nginx.pid; error_log {work}/nginx.log warn;
events {{ worker_connections {connections}; }}
http {{
  access_log off; default_type "text/plain; version=0.0.4"; sendfile on; tcp_nodelay on;
  keepalive_timeout 600; keepalive_requests 1000000; gzip_static {"on" if a.gzip else "off"};
  client_body_temp_path {work}; proxy_temp_path {work}; fastcgi_temp_path {work}; uwsgi_temp_path {work}; scgi_temp_path {work};
  server {{
    listen {port} ssl backlog=16384;
    ssl_certificate {work}/server.crt; ssl_certificate_key {work}/server.key;
    ssl_client_certificate {work}/ca.crt; ssl_verify_client on;
    root {work}/now;
  }}
}}
""")
    with open(f"{work}/targets.json", "w") as f:
        json.dump([{"targets": [f"127.{1 + i // 62500}.{1 + i // 250 % 250}.{1 + i % 250}:{port}"],
                    "labels": {"__metrics_path__": "/" + JOBS[i % len(JOBS)], "node": f"node-{i}"}}
                   for i in range(a.targets)], f)
    with open(f"{work}/config.yaml", "w") as f:
        f.write(f"""
cluster: fleet
storage: {{path: {work}/data}}
web: {{listen: '127.0.0.1:{web}'}}
scrape_configs:
- job_name: kubelet
  scheme: https
  scrape_interval: {a.interval}s
  scrape_timeout: {min(10, a.interval)}s
  enable_compression: {"true" if a.gzip else "false"}
  tls_config: {{ca_file: {work}/ca.crt, cert_file: {work}/client.crt, key_file: {work}/client.key, server_name: kubelet}}
  file_sd_configs: [{{files: [{work}/targets.json]}}]
  metric_relabel_configs: [{{source_labels: [__name__], action: keep, regex: '{"|".join(names)}'}}]
""")
    # The limit of connections is that of the shell that starts this: Go and upgrade-watch raise it, nginx says it.
    nginx = subprocess.Popen(["nginx", "-e", f"{work}/nginx.log", "-c", f"{work}/nginx.conf"])
    log = open(f"{work}/run.log", "w")
    program = subprocess.Popen([a.binary, "run", "--config", f"{work}/config.yaml"], stdout=log, stderr=log)
    try:
        print(f"{a.targets} targets every {a.interval} s, {len(recorded[JOBS[0]][0]) >> 10} KiB each, "
              f"{kept} series kept of each", flush=True)
        begin = time.time()
        first = None
        while time.time() - begin < (a.minutes * 60 + 3 * a.interval):
            time.sleep(a.interval)
            step = int((time.time() - begin) / a.interval) % max(1, steps)
            os.symlink(f"{work}/steps/{step}", f"{work}/next")
            os.replace(f"{work}/next", f"{work}/now")
            if program.poll() is not None or nginx.poll() is not None:
                sys.exit(f"a process ended: {open(f'{work}/run.log').read()[-2000:]}")
            if first is None and time.time() - begin >= 3 * a.interval:
                first = (time.time(), process(program.pid), process(worker(nginx.pid)))
        span = time.time() - first[0]
        own, server = process(program.pid), process(worker(nginx.pid))
        minutes = f"[{int(span)}s]"
        up = query(web, f"sum(sum_over_time(up{minutes}))")[0]["value"][1]
        due = query(web, f"sum(count_over_time(up{minutes}))")[0]["value"][1]
        series = query(web, "count({job='kubelet'})")[0]["value"][1]
        off = 0.0
        for one in query(web, f"up{minutes}"):
            times = [t for t, _ in one["values"]]
            off = max([off] + [abs(y - x - a.interval) for x, y in zip(times, times[1:])])
        print(f"in {span:.0f} s: {up} good scrapes of {due} ({a.targets * span / a.interval:.0f} due), {series} series; "
              f"at most {off:.3f} s off the interval")
        for name, before, after in [("upgrade-watch", first[1], own), ("nginx", first[2], server)]:
            print(f"{name}: {(after[0] - before[0]) / span:.3f} cores, {after[1]:.0f} MiB at most")
    finally:
        program.send_signal(signal.SIGTERM)
        try:
            program.wait(120)
        except subprocess.TimeoutExpired:
            program.kill()
        nginx.terminate()
        nginx.wait()

if __name__ == "__main__":
    main()
