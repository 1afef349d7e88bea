"""The commands that look after runs and machines: verify, doctor."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer

import nst_batch
from nst_batch.cli.options import AsJson, RunArgument
from nst_batch.cli.printing import print_json, print_line, print_note
from nst_batch.errors import NstBatchError, WeightsError, without_secrets
from nst_batch.vocabulary import duration

app = typer.Typer()

_FREE_BYTES = 5 * 1024**3
"""Less is little for any run: a hundred thousand pictures of 300 pixels take some twenty gigabytes."""
_ELSEWHERE = "choose another --out"


@app.command(epilog="Example: nst-batch verify runs/w7")
def verify(
    directory: RunArgument,
    images: Annotated[bool, typer.Option(help="Read and hash every picture.")] = True,
    as_json: AsJson = False,
) -> None:
    """Check every row against its plan, picture and numbers.

    Exit code 1: something is wrong.
    """
    from nst_batch.api import open_run

    run = open_run(directory)
    found = run.verify(images=images)
    if as_json:
        print_json(asdict(found) | {"complete": run.is_complete})
    else:
        for problem in found.problems:
            print_line(problem)
    looked = f"{found.num_rows} published rows of {found.num_trials} trials, {found.num_images} pictures"
    verdict = f"{len(found.problems)} problems" if found.problems else "all sound"
    print_note(f"{looked}: {verdict}" + ("" if run.is_complete else "; the run has not ended"))
    if not found.is_sound:
        raise typer.Exit(1)


@app.command(epilog="Example: nst-batch doctor --out runs/ --json")
def doctor(
    out: Annotated[str, typer.Option(metavar="DIR", help="Where a run would write.")] = ".",
    ray: Annotated[bool, typer.Option(help="Start Ray to see that it can be.")] = True,
    as_json: AsJson = False,
) -> None:
    """Say whether this machine is ready for a run.

    Exit code 1: it is not.
    """
    findings = list(examine(out, start_ray=ray))
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        width = max(len(finding.name) for finding in findings)
        for name, state, found, advice in findings:
            print_line(f"{state:4}  {name:{width}}  {found}" + (f"; {advice}" if advice else ""))
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "note", "bad"]
    """ok; note: it works, but a person may want to know; bad: a run would fail."""
    found: str
    advice: str = ""


def examine(out: str = ".", *, start_ray: bool = True) -> Iterator[Finding]:
    """Looks at Python, torch, GPUs, the weights' cache, write access to `out` and the room there, and Ray."""
    from importlib import metadata  # takes a while, and only here

    from nst_batch.inputs.limits import num_cores

    version = ".".join(map(str, sys.version_info[:3]))
    found = f"{version} at {sys.executable}; nst-batch {nst_batch.__version__}; {num_cores()} CPU cores"
    yield Finding("Python", "ok", found)
    for name in ("torch", "torchvision", "ray", "pyarrow", "duckdb", "pillow"):
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "bad", "not installed", f"pip install {name}")
    yield from _torch()
    yield from _local(Path(out).absolute()) if "://" not in out else _remote(out)
    if start_ray:
        yield _ray()


def _torch() -> Iterator[Finding]:
    """The GPUs that torch can use, and the weights that it has downloaded."""
    import torch

    from nst_batch.inputs import weights

    cuda = torch.version.cuda
    if not torch.cuda.is_available():
        built = f"none that torch can use; torch is built {f'for CUDA {cuda}' if cuda else 'without CUDA'}"
        yield Finding("GPU", "note", built, "runs use the CPU, which is many times slower")
    for index in range(torch.cuda.device_count()):
        free, total = (count / 2**30 for count in torch.cuda.mem_get_info(index))
        name = torch.cuda.get_device_properties(index).name
        yield Finding(f"GPU {index}", "ok", f"{name}, {free:.0f} of {total:.0f} GiB free, CUDA {cuda}")
    try:
        yield Finding(
            "weights", "ok", str(weights.resolve("imagenet", "vgg16", "max", "auto", download=False).path)
        )
    except WeightsError as error:
        advice = "`make demo WEIGHTS=imagenet` or the first run downloads 528 MB; without internet use random:0"
        yield Finding("weights", "note", f"imagenet: {error}", advice)


def _local(folder: Path) -> Iterator[Finding]:
    """Whether a folder, or what there is of its path, can be written, and how much room it has."""
    folder = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            yield Finding("write access", "ok", str(folder))
    except OSError as error:
        yield Finding("write access", "bad", f"{folder}: {error.strerror}", _ELSEWHERE)
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free at {folder}"
    enough = free >= _FREE_BYTES
    yield Finding("disk", "ok" if enough else "note", found, "" if enough else f"free some, or {_ELSEWHERE}")


def _remote(url: str) -> Iterator[Finding]:
    """Whether a store can be written."""
    from nst_batch.store.files import Directory

    probe = f"nst-batch-doctor-{os.getpid()}"
    try:
        directory = Directory(url)
        directory.write(probe, b"")
        directory.remove(probe)
        yield Finding("write access", "ok", without_secrets(directory.url()))
    except NstBatchError as error:
        yield Finding("write access", "bad", str(error), "see to the store's credentials")


def _ray() -> Finding:
    """Whether Ray can be started here, and how long that takes."""
    from nst_batch.cluster.connection import Cluster
    from nst_batch.cluster.options import ClusterOptions

    began = time.monotonic()
    try:
        with Cluster(ClusterOptions()) as cluster:
            return Finding("Ray", "ok", f"{cluster.describe()}; ready after {duration(time.monotonic() - began)}")
    except NstBatchError as error:
        return Finding("Ray", "bad", str(error), "see the logs under /tmp/ray/session_latest")
