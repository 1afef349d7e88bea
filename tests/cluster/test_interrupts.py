"""SIGINT and SIGTERM, at every stage of a run: a clean flush, the right exit status, and nothing left running."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import tiny
from tests.driver import ROOT, Driver, alive

GO_ON = "run the same command again to go on"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_flushes_and_says_how_to_go_on(
    tmp_path: Path, embedded_ray: str, number: signal.Signals, status: int
) -> None:
    photos = tiny.collection(tmp_path, tiny.good(40), seconds=0.3)
    driver = Driver(tmp_path, "--address", embedded_ray)
    driver.wait_for(lambda: len(list((photos / ".calls").iterdir())) >= 12)
    driver.send(number)
    code, said = driver.end()
    assert code == status, said
    assert f"stopped by {number.name}: " in said, "ended by itself, before its patience did"
    assert GO_ON in said
    recorded = tiny.num_recorded(tmp_path / "out")
    assert recorded >= 12 - 4  # what had finished; two workers had two batches each in flight
    assert f"{recorded} of 40 trials are safe" in said
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_ctrl_c_on_an_embedded_ray_flushes_and_leaves_nothing_running(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, tiny.good(40), seconds=0.3)
    driver = Driver(tmp_path)
    driver.wait_for(lambda: len(list((photos / ".calls").iterdir())) >= 6)
    family = driver.family()
    assert {"raylet", "gcs_server"} <= set(alive(family))
    driver.send(signal.SIGINT, group=True)
    code, said = driver.end()
    assert (code, GO_ON in said) == (130, True), said
    assert "at once" not in said
    assert tiny.num_recorded(tmp_path / "out") >= 2
    assert alive(family) == []


@pytest.mark.parametrize("seconds", [1.5, 3.0, 5.0])
def test_a_signal_while_it_starts_ends_it_as_well(
    tmp_path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing, planning, starting Ray: whatever it does then."""
    # Ray's agents end when they have looked for their core for so long, by default a minute.
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    tiny.collection(tmp_path, tiny.good(9), seconds=0.5)
    driver = Driver(tmp_path)
    began = time.monotonic()
    driver.wait_for(lambda: handles(driver.process.pid, signal.SIGTERM))  # Python itself may take long to start
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    driver.send(signal.SIGTERM)
    code, said = driver.end()
    assert (code, GO_ON in said) == (143, True), said
    tiny.wait_until(lambda: not alive(driver.session()), seconds=90)


def script(body: str, grace_seconds: float = 300.0) -> subprocess.Popen[str]:
    """A process that handles signals and says `ready`."""
    text = "\n".join(
        [
            "import time",
            "from nst_batch.cluster import interrupts",
            f"interrupts.GRACE_SECONDS = {grace_seconds}",
            *body.split(";"),
        ]
    )
    process = subprocess.Popen(
        [sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


BLOCKED = (
    "from ctypes import CDLL;"
    "with interrupts.Interrupts() as signals:;"
    "  signals.hold();"
    "  print('ready', flush=True);"
    "  [CDLL(None).sleep(100) for _ in range(9)]"  # a signal cuts one short
)


def test_a_second_sigint_ends_at_once_whatever_the_main_thread_does() -> None:
    process = script(BLOCKED)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == f"stopped by SIGINT at once; {GO_ON}\n"


def test_patience_with_what_does_not_end_has_an_end() -> None:
    process = script(BLOCKED, grace_seconds=1.0)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (143, f"stopped by SIGTERM at once; {GO_ON}\n")


def test_before_hold_a_signal_raises_also_through_blanket_excepts() -> None:
    process = script(
        "with interrupts.Interrupts():;  print('ready', flush=True);"
        "  try:;    time.sleep(200);  except Exception:;    pass"
    )
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"Interrupted: stopped by SIGTERM; {GO_ON}" in said


def test_handlers_are_put_back() -> None:
    text = (
        "import signal; from nst_batch.cluster.interrupts import Interrupts\n"
        "before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]\n"
        "with Interrupts(), Interrupts(): pass\n"
        "assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]\n"
        "assert signal.set_wakeup_fd(-1) == -1\n"
    )
    subprocess.run([sys.executable, "-c", text], cwd=ROOT, check=True)


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)
