"""How much memory and how many cores there are, and that decoding keeps within its share of the memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from PIL import Image

from nst_batch.errors import TRANSIENT_KINDS
from nst_batch.inputs import limits
from nst_batch.inputs.limits import MemoryBudget
from tests.pictures import file_of

MIB = 1 << 20


def group(folder: Path, **files: object) -> None:
    """A control group with these files; the first `_` stands for the dot in a name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{content}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The control groups of a machine where this process is in /pod/inner."""
    monkeypatch.setattr(limits, "CGROUPS", tmp_path)
    (tmp_path / "self").write_text("0::/pod/inner\n")
    monkeypatch.setattr(limits, "OWN_CGROUPS", tmp_path / "self")
    return tmp_path


def test_without_a_limit_it_is_the_machines(machine: Path) -> None:
    group(machine / "pod/inner", memory_max="max", memory_current=5, memory_stat="inactive_file 1")
    assert limits.available_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    assert limits.total_bytes() == psutil.virtual_memory().total


def test_the_limit_of_a_container_counts_and_pages_of_files_are_free(machine: Path) -> None:
    statistics = f"anon 3\ninactive_file {20 * MIB}"
    group(machine / "pod/inner", memory_max="max", memory_current=0, memory_stat=statistics)
    group(machine / "pod", memory_max=100 * MIB, memory_current=50 * MIB, memory_stat=statistics)
    assert limits.available_bytes() == 70 * MIB
    assert limits.total_bytes() == 100 * MIB


def test_control_groups_of_version_1(machine: Path) -> None:
    (machine / "self").write_text("5:cpu,cpuacct:/x\n4:memory:/pod\n")
    files = {"memory_limit_in_bytes": 90 * MIB, "memory_usage_in_bytes": 80 * MIB}
    group(machine / "memory/pod", **files, memory_stat="total_inactive_file 0")
    assert limits.available_bytes() == 10 * MIB


def test_cores_are_those_that_it_is_bound_to_within_the_quotas_around_it(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    group(machine / "pod/inner", cpu_max="max 100000")
    assert limits.num_cores() == 8
    group(machine / "pod", cpu_max="350000 100000")
    assert limits.num_cores() == 3
    group(machine / "pod/inner", cpu_max="50000 100000")
    assert limits.num_cores() == 1


def test_quotas_of_control_groups_of_version_1(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (machine / "self").write_text("4:memory:/pod\n5:cpu,cpuacct:/pod\n")
    group(machine / "cpu,cpuacct/pod", cpu_cfs_quota_us=-1, cpu_cfs_period_us=100000)
    assert limits.num_cores() == 8
    group(machine / "cpu,cpuacct/pod", cpu_cfs_quota_us=200000, cpu_cfs_period_us=100000)
    assert limits.num_cores() == 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are not bound to cores here")
def test_a_process_that_is_bound_to_one_core_has_one() -> None:
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    script += "from nst_batch.inputs import limits; print(limits.num_cores())"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "1\n"


def test_pictures_wait_until_there_is_room_and_one_always_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "available_bytes", lambda: 200)
    budget = MemoryBudget(0.5)
    held, most, lock = 0, 0, threading.Lock()

    def decode(pixels: int) -> None:
        nonlocal held, most
        with budget.holding(pixels):
            with lock:
                held += pixels
                most = max(most, held if held > pixels else 0)
            threading.Event().wait(0.002)
            with lock:
                held -= pixels

    threads = [threading.Thread(target=decode, args=(pixels,)) for pixels in [30, 60, 40, 500, 10] * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert 0 < most <= 100


def test_planning_decodes_as_many_at_once_as_memory_holds(tmp_path: Path) -> None:
    """However many cores there are: where there is memory for one large picture, four need no more."""
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(
            file_of(Image.new("RGBA", (5000, 5000), name_color(name)), "PNG", compress_level=1)
        )
    one, four = (peak_megabytes(tmp_path, names) for names in ("a", "abcd"))
    assert four < 1.5 * one, (one, four)


def name_color(name: str) -> tuple[int, int, int, int]:
    return (ord(name), 0, 0, 128)


def peak_megabytes(folder: Path, names: str) -> float:
    """Of a process that inspects pictures where nothing is free, beyond what it held before."""
    script = f"""
import os, pathlib, re
from nst_batch.inputs import inspecting, limits
os.cpu_count = lambda: 4
limits.available_bytes = lambda: 0
def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
pathlib.Path("/proc/self/clear_refs").write_text("5")  # VmHWM, the most so far, starts anew
before = kilobytes("VmRSS")
found = list(inspecting.inspect_all({[str(folder / f"{name}.png") for name in names]}))
assert [each.width for each in found] == [5000] * {len(names)}, found
print((kilobytes("VmHWM") - before) / 1024)
"""
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from nst_batch.errors import ImageError
from nst_batch.inputs import decoding

decoding.decode(Path(sys.argv[1]).read_bytes(), "small.png")
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 16 * 2**20, resource.RLIM_INFINITY))
try:
    decoding.decode(Path(sys.argv[2]).read_bytes(), "large.png")
except ImageError as error:
    print(error.kind, error.message, sep=": ")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of a process's memory")
def test_a_picture_that_does_not_fit_into_memory_is_not_to_blame(tmp_path: Path) -> None:
    """What is free is another matter the next time: such a picture is read again, one that is too large is not."""
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.new("RGB", (40, 40)).save(small)
    Image.new("RGB", (4000, 4000)).save(large, compress_level=1)
    command = [sys.executable, "-c", LITTLE_MEMORY, str(small), str(large)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == "unreadable: PNG file that does not fit into the memory that is free when decoded\n"
    assert "unreadable" in TRANSIENT_KINDS
