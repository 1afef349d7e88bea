"""`nst-batch` with simulated workers: `python -m tests.driver run STUDY --out DIR …`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
RUNNING: list[subprocess.Popen[str]] = []
"""What a test has started; what is left of it when the test has ended is ended by `conftest`."""
WORKER = "NST_BATCH_TEST_WORKER"
"""An environment variable that names the class of `tests.workers` to be run."""


class Driver:
    """A process that runs the study of a `tests.tiny` collection into `folder/out`.

    Args:
        folder: Of the collection.
        arguments: More of the command line.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.out = folder / "out"
        study = folder / "study.yaml"
        if not study.exists():
            study.write_text(
                f"name: tiny\ncontent: [{folder}/photos]\nstyle: [{folder}/style.png]\nimage: {{size: 32}}\n"
                "network: {weights: 'random:0', pooling: average}\noptimizer: {steps: 2}\n"
            )
        command = [sys.executable, "-m", "tests.driver", "run", str(study), "--out", str(self.out), *arguments]
        self.process = subprocess.Popen(
            [*command, "--cpus-per-worker", "1", "--max-workers", "2"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        RUNNING.append(self.process)

    def wait_for(self, condition: Callable[[], object], seconds: float = 90) -> None:
        """Until `condition` holds; the process must be running all the while."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "the driver did not get so far"
            time.sleep(0.05)

    def send(self, number: signal.Signals, *, group: bool = False) -> None:
        """A signal, to the process or, as a terminal does it, to all that it has started."""
        (os.killpg if group else os.kill)(self.process.pid, number)

    def end(self, seconds: float = 120) -> tuple[int, str]:
        """The exit status and what was said on stderr."""
        _, said = self.process.communicate(timeout=seconds)
        return self.process.returncode, said

    def family(self) -> list[psutil.Process]:
        """The processes that it has started, and those that they have."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def session(self) -> list[psutil.Process]:
        """Its processes, also those that have lost their parent."""
        return [each for each in psutil.process_iter() if _session(each.pid) == self.process.pid]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def told(module: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """The JSON that `python -m MODULE FOLDER …` prints at its end, apart from any Ray of this process."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-m", module, str(folder), *arguments],
        env=environment | {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=500, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def alive(processes: list[psutil.Process]) -> list[str]:
    """The names of those that still run."""
    found = []
    for process in processes:
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.name())
        except psutil.NoSuchProcess:
            continue
    return found


def _main() -> None:
    from nst_batch.cli import program

    command = program.app

    def app() -> None:
        """Imports Ray where the program itself does: when its signals are handled already."""
        import nst_batch.cluster.pool
        from tests import workers

        chosen = getattr(workers, os.environ.get(WORKER, "SimulatedWorker"))
        setattr(nst_batch.cluster.pool, "WorkerActor", chosen)  # noqa: B010 (a class is replaced)
        command()

    setattr(program, "app", app)  # noqa: B010 (a typer.Typer is replaced)
    program.main()


if __name__ == "__main__":
    _main()
