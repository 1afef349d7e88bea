"""How fast this machine is: a few evaluations of the real objective at the real size, remembered for next time.

What is timed is `transfer.solve` itself, on noise with cheap weights: convolutions take as long whatever they
multiply. The measurements are kept in a small JSON file under the user's cache directory.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from pydantic import NonNegativeFloat, TypeAdapter

from nst_batch.errors import StudyError
from nst_batch.inputs import images, memory
from nst_batch.inputs.fitting import extra_work, fitting, part_size
from nst_batch.records import ALGORITHM, CPU_BATCH, GPU_BATCH, MAX_CPUS_PER_WORKER, Configuration
from nst_batch.transfer import (
    Problem,
    Solution,
    SolveOptions,
    TargetImage,
    Targets,
    build_targets,
    gpu_bytes,
    layer_distances,
    solve,
)
from nst_batch.transfer.vgg import conv_shapes
from nst_batch.vocabulary import Encoding, MemoryLayout, layer_names, layer_shape, scaled_size

_LONG_ENOUGH_SECONDS = 1.0
_MOST_GOES = 40
_MOST_PIXELS = 512 * 512  # of an image that is timed
_SHORT, _LONG = 2, 6  # evaluations of the two runs that are compared


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a worker on this machine has to itself."""

    device: torch.device
    name: str
    threads: int
    num_workers: int
    memory_bytes: int
    """Of each worker."""

    @classmethod
    def here(cls, device: str) -> Machine:
        """This machine as a run on it would use it.

        Args:
            device: auto, cpu, cuda or cuda:N.

        Raises:
            StudyError: There is no such device.
        """
        if device not in ("auto", "cpu") and device.partition(":")[0] != "cuda":
            raise StudyError(f"--device: expected auto, cpu or cuda, found {device!r}")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise StudyError(f"--device {device}: this machine has no GPU that PyTorch can use; try --device cpu")
        if device != "cpu" and torch.cuda.is_available():
            chosen = torch.device("cuda" if device == "auto" else device)
            return cls(
                device=chosen, name=torch.cuda.get_device_name(chosen), threads=1,
                num_workers=torch.cuda.device_count(), memory_bytes=gpu_bytes(chosen)[1],
            )  # fmt: skip
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = min(MAX_CPUS_PER_WORKER, cores)
        name = f"CPU of {platform.node()}, {threads} core{'s' if threads > 1 else ''}"
        workers = max(1, cores // threads)
        return cls(
            device=torch.device("cpu"), name=name, threads=threads,
            num_workers=workers, memory_bytes=memory.total_bytes() // workers,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rate:
    """What one image costs at one size, sharing its batch with others."""

    evaluation_seconds: NonNegativeFloat
    """Of the objective and its gradient, with the optimiser's share."""
    fixed_seconds: NonNegativeFloat
    """What is done once per trial: initial losses, the finished image's distances, encoding it."""


_RATES = TypeAdapter(dict[str, Rate])


class Calibration:
    """Rates by configuration and size: remembered, or measured now.

    Args:
        machine: Where.
        note: Told before each measurement, which takes seconds on a CPU.
        path: The file to remember in; None: `default_path()`.
    """

    def __init__(
        self, machine: Machine, *, note: Callable[[str], None] = lambda _: None, path: Path | None = None
    ) -> None:
        self.machine, self.path, self._note = machine, path or default_path(), note

    def rate(
        self, chosen: Configuration, width: int, height: int, format: Encoding = "png", tile: int | None = None
    ) -> Rate:
        """What a trial of this configuration costs at `width` × `height` pixels.

        Large images are not timed themselves: every part of a step takes a time in proportion to its pixels.
        """
        layout = self.layout(chosen, width, height, tile)
        work = extra_work(chosen.arch, chosen.layers, height, width, layout.tile)
        times = max(1.0, width * height / _MOST_PIXELS)
        rate = self._rate(chosen, round(width / times**0.5), round(height / times**0.5), format)
        return Rate(rate.evaluation_seconds * times * work, rate.fixed_seconds * times)

    def layout(self, chosen: Configuration, width: int, height: int, tile: int | None = None) -> MemoryLayout:
        """How a worker here holds such an image."""
        return fitting(
            chosen.arch, chosen.layers, height, width,
            self.machine.memory_bytes, tile=tile, num_pairs=chosen.num_pairs,
        )  # fmt: skip

    def _rate(self, chosen: Configuration, width: int, height: int, format: Encoding) -> Rate:
        objective = f"{chosen.arch} {chosen.pooling} {chosen.content_layers} {chosen.style_layers}"
        how = f"{chosen.loss} {chosen.optimizer} {chosen.precision} tv={chosen.tv_weight > 0}"
        where = f"{self.machine.name}; torch {torch.__version__}; algorithm {ALGORITHM}"
        key = f"{where}; {objective}; {how}; {width}×{height} {format}"
        known = _remembered(self.path)
        if key not in known:
            self._note(f"measuring {width}×{height} pixels on {self.machine.name} …")
            with _threads(self.machine.threads):
                known[key] = self._measured(chosen, width, height, format)
            _remember(self.path, known)
        return known[key]

    @property
    def batch_size(self) -> int:
        """Trials per batch, at most."""
        return CPU_BATCH if self.machine.device.type == "cpu" else GPU_BATCH

    def batch(self, chosen: Configuration, width: int, height: int) -> int:
        """How many such images a worker here optimises together."""
        if self.machine.device.type == "cpu":
            return 1
        return min(self.batch_size, part_size(chosen.arch, chosen.layers, height, width, self.machine.memory_bytes))

    def _measured(self, chosen: Configuration, width: int, height: int, format: Encoding) -> Rate:
        """From two short runs of the engine: what the longer one takes more is its further evaluations."""
        device, batch = self.machine.device, self.batch(chosen, width, height)
        problems = [_problem(chosen, width, height, device)] * batch
        targets = _targets(chosen, device)

        def optimise(steps: int) -> list[Solution]:
            options = SolveOptions(steps=steps, optimizer=chosen.optimizer, convention=chosen.loss, plateau=0.0)
            return solve(targets, problems, options)

        def finish(image: torch.Tensor) -> None:
            layer_distances(targets, image, problems[0])
            images.encode(images.from_array(image.cpu().numpy()), format)

        image = optimise(1)[0].image  # the libraries choose their algorithms, and targets are computed
        finish(image)
        short, long = (self._seconds(partial(optimise, steps)) for steps in (_SHORT, _LONG))
        evaluation = max(0.0, (long - short) / (_LONG - _SHORT))
        rest = max(0.0, short - _SHORT * evaluation)
        return Rate(evaluation / batch, rest / batch + self._seconds(partial(finish, image)))

    def _seconds(self, action: Callable[[], object]) -> float:
        """Of the quickest of a few goes: whatever disturbs a measurement makes it longer."""
        goes: list[float] = []
        while not goes or (sum(goes) < _LONG_ENOUGH_SECONDS and len(goes) < _MOST_GOES):
            begun = time.perf_counter()
            action()
            if self.machine.device.type == "cuda":
                torch.cuda.synchronize(self.machine.device)
            goes.append(time.perf_counter() - begun)
        return min(goes)


def operations(chosen: Configuration, width: int, height: int) -> float:
    """Multiplications of one evaluation, up to a factor: carries a rate over to another configuration."""
    names, shapes = layer_names(chosen.arch), conv_shapes(chosen.arch)
    used = (*chosen.content_layers, *chosen.style_layers)
    total = 0.0
    for name in names[: max((names.index(layer) for layer in used), default=-1) + 1]:
        if name in shapes:
            out_channels, in_channels = shapes[name]
            _, rows, columns = layer_shape(name, height, width)
            total += 9.0 * out_channels * in_channels * rows * columns
    for name in chosen.style_layers:
        channels, rows, columns = layer_shape(name, height, width)
        total += float(channels) ** 2 * rows * columns
    return total


def default_path() -> Path:
    """Where measurements are remembered: `$XDG_CACHE_HOME` or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "nst-batch" / "calibration.json"


def _problem(chosen: Configuration, width: int, height: int, device: torch.device) -> Problem:
    generator = torch.Generator().manual_seed(0)
    side = scaled_size(chosen.size, chosen.style_scale)
    content, style = (torch.rand(3, *size, generator=generator) for size in ((height, width), (side, side)))
    return Problem(
        height=height,
        width=width,
        content=TargetImage(key="content", pixels=content.to(device)),
        styles=(TargetImage(key="style", pixels=style.to(device)),),
        content_layers=chosen.content_layers,
        style_layers=chosen.style_layers,
        style_layer_weights=chosen.style_layer_weights,
        alpha=chosen.alpha,
        beta=chosen.beta,
        tv_weight=chosen.tv_weight,
        init="noise",
    )


def _targets(chosen: Configuration, device: torch.device) -> Targets:
    return build_targets(
        chosen.arch,
        _cheap_weights(chosen.arch),
        pooling=chosen.pooling,
        normalization=chosen.normalization,
        device=device,
        precision=chosen.precision,
    )


def _cheap_weights(arch: str) -> dict[str, torch.Tensor]:
    """He's initialisation, which keeps activations at their size; seeded, not calibrated."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, (out_channels, in_channels) in conv_shapes(arch).items():
        spread = (2 / (9 * in_channels)) ** 0.5
        weights[f"{name}.weight"] = torch.randn(out_channels, in_channels, 3, 3, generator=generator) * spread
        weights[f"{name}.bias"] = torch.zeros(out_channels)
    return weights


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _remembered(path: Path) -> dict[str, Rate]:
    """Nothing, where the file is missing or damaged: it can always be measured again."""
    try:
        return _RATES.validate_json(path.read_bytes())
    except (OSError, ValueError):
        return {}


def _remember(path: Path, known: dict[str, Rate]) -> None:
    """Where there is a place to; a read-only home costs a measurement next time, no more."""
    partial_path = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path.write_bytes(_RATES.dump_json(known, indent=1))
        partial_path.replace(path)
    except OSError:
        return
