"""What this machine has, and whether nst-batch can work with it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nst_batch
from nst_batch.errors import NstBatchError
from nst_batch.vocabulary import duration

State = Literal["ok", "note", "bad"]

_MIN_PYTHON = (3, 11)
_FREE_BYTES = 5 * 1024**3
"""Less is little for any run: a hundred thousand pictures of 300 pixels take some twenty gigabytes."""
_IMAGENET = "vgg16_features-amdegroot-88682ab5.pth"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    """ok; note: it works, but a person may want to know; bad: a run would fail."""
    found: str
    advice: str = ""


def examine(out: str = ".", *, start_ray: bool = True) -> list[Finding]:
    """Looks at Python, torch, GPUs, Ray, the weights' cache, write access to `out` and the room there."""
    checks: list[Callable[[], Iterator[Finding]]] = [_python, _packages, _gpus, _weights, lambda: _directory(out)]
    if start_ray:
        checks.append(_ray)
    return [finding for check in checks for finding in check()]


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    found = f"{version} at {sys.executable}; nst-batch {nst_batch.__version__}; {os.cpu_count()} CPU cores"
    if sys.version_info[:2] < _MIN_PYTHON:
        yield Finding(name="Python", state="bad", found=found, advice="install Python 3.11 or newer")
    else:
        yield Finding(name="Python", state="ok", found=found)


def _packages() -> Iterator[Finding]:
    for name in ("torch", "torchvision", "ray", "pyarrow", "duckdb", "pillow"):
        try:
            yield Finding(name=name, state="ok", found=importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name=name, state="bad", found="not installed", advice=f"pip install {name}")


def _gpus() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        cuda = torch.version.cuda
        built = f"torch is built for CUDA {cuda}" if cuda else "torch is built without CUDA"
        advice = "runs use the CPU, which is many times slower"
        yield Finding(name="GPU", state="note", found=f"none that torch can use; {built}", advice=advice)
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found = f"{properties.name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free, CUDA {torch.version.cuda}"
        yield Finding(name=f"GPU {index}", state="ok", found=found)


def _weights() -> Iterator[Finding]:
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / _IMAGENET
    if path.is_file():
        yield Finding(name="weights", state="ok", found=f"{path}, {path.stat().st_size / 2**20:.0f} MiB")
    else:
        advice = "the first run that uses them downloads 528 MB; without internet use --weights random:0"
        yield Finding(name="weights", state="note", found=f"imagenet is not at {path}", advice=advice)


def _directory(out: str) -> Iterator[Finding]:
    """Whether `out`, or what there is of its path, can be written, and how much room it has."""
    from nst_batch.store.files import Directory

    probe = f"nst-batch-doctor-{os.getpid()}"
    directory = Directory(out)
    if directory.is_local:
        folder = Path(directory.root)
        while not folder.exists():
            folder = folder.parent
        yield _writable(folder)
        free = shutil.disk_usage(folder).free
        found, advice = f"{free / 2**30:.1f} GiB free at {folder}", "free some, or choose another --out"
        enough = free >= _FREE_BYTES
        yield Finding(name="disk", state="ok" if enough else "note", found=found, advice="" if enough else advice)
        return
    try:
        directory.write(probe, b"")
        directory.remove(probe)
    except NstBatchError as error:
        yield Finding(name="write access", state="bad", found=str(error), advice="see to the store's credentials")
    else:
        yield Finding(name="write access", state="ok", found=directory.url())


def _writable(folder: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Finding(name="write access", state="ok", found=str(folder))
    except OSError as error:
        found = f"{folder}: {error.strerror}"
        return Finding(name="write access", state="bad", found=found, advice="choose another --out")


def _ray() -> Iterator[Finding]:
    """Whether Ray can be started here, and how long that takes."""
    from nst_batch.cluster.connection import Cluster
    from nst_batch.cluster.embedded import EmbeddedRay
    from nst_batch.cluster.options import ClusterOptions

    began = time.monotonic()
    try:
        with EmbeddedRay(), Cluster(ClusterOptions()) as cluster:
            found = f"{cluster.describe()}; ready after {duration(time.monotonic() - began)}"
    except NstBatchError as error:
        yield Finding(
            name="Ray", state="bad", found=str(error), advice="see the logs under /tmp/ray/session_latest"
        )
    else:
        yield Finding(name="Ray", state="ok", found=found)
