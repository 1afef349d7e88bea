"""An embedded Ray: its cores, its addresses, its token, and that it ends alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, os, stat, subprocess, sys, time
import psutil
from nst_batch.cluster.connection import Cluster
from nst_batch.cluster.options import ClusterOptions
from nst_batch.cluster import embedded
from nst_batch.inputs.limits import available_bytes
import ray

shut_down = ray.shutdown
ray.shutdown = lambda: (shut_down(), time.sleep(embedded._WATCH_SECONDS + 2))  # a busy machine
embedded.END_SECONDS = 0.5

before = available_bytes()
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
children = lambda: psutil.Process().children(recursive=True)
with Cluster(ClusterOptions(), "cpu"):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    time.sleep(2)
    node = ray.nodes()[0]["Resources"]
    rays = [each for each in children() if each.pid != other.pid]
    addresses = [
        found.laddr.ip for each in [psutil.Process(), *rays] for found in each.net_connections("tcp")
        if found.status == "LISTEN"
    ]
deadline = time.monotonic() + 60
while any(each.is_running() and each.status() != "zombie" for each in rays) and time.monotonic() < deadline:
    time.sleep(0.2)
alive = [each.name() for each in rays if each.is_running() and each.status() != "zombie"]
mode = stat.S_IMODE(os.stat(os.path.expanduser("~/.ray")).st_mode)
print(json.dumps({"addresses": addresses, "alive": alive, "other": other.poll(), "mode": mode,
                  "share": node["memory"] / before, "cores": node["CPU"]}))
other.kill()
"""


def test_it_listens_on_loopback_and_ends_alone(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment | {"HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["addresses"]  # and Ray's processes, which end in its shutdown, were not taken for dead ones
    assert {address.removeprefix("::ffff:") for address in told["addresses"]} == {"127.0.0.1"}
    assert told["alive"] == []
    assert told["other"] is None  # a child that the caller started meanwhile goes on
    assert told["mode"] == 0o700
    assert told["cores"] == 1
    assert 0.5 < told["share"] < 1.5  # workers are counted by what this process's control groups leave
