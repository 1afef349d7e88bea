"""A real Ray head on loopback, with token authentication: a process of its own that takes everything with it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

TOKEN = "not-a-secret-" + "0123456789abcdef" * 2
_START_SECONDS = 180.0
_STOP_SECONDS = 60.0  # Ray itself allows its node half a minute to drain


@dataclass(frozen=True, slots=True)
class Head:
    """Where it is, and what a client's environment must say."""

    address: str
    """Of the cluster, HOST:PORT."""
    dashboard: str
    """Of the Jobs API, http://HOST:PORT."""
    environment: dict[str, str]


@contextmanager
def ray_head(num_cpus: int = 1) -> Iterator[Head]:
    """Starts a head and ends it; another Ray on this machine is neither used nor disturbed."""
    folder = tempfile.mkdtemp(prefix="nst", dir="/tmp")  # Ray's sockets need short paths
    port, dashboard, agent, client = free_ports(4)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    environment["RAY_worker_niceness"] = "0"  # Ray's workers would starve beside other tests
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder}"]
    command += [f"--ray-client-server-port={client}", f"--num-cpus={num_cpus}", "--num-gpus=0"]
    command += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000"]
    head = Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", environment)
    with Path(folder, "start.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment | {"RAY_AUTH_MODE": "token"}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _await(head, process, Path(folder, "start.log"))
        yield head
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _await(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    request = urllib.request.Request(f"{head.dashboard}/api/version", headers={"Authorization": f"Bearer {TOKEN}"})
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with closing(urllib.request.urlopen(request, timeout=5)):
                if "Ray runtime started" in log.read_text():  # its dashboard answers before its node is there
                    return
                time.sleep(0.3)
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"Ray's head did not start:\n{log.read_text()[-4000:]}")
