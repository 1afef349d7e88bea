"""How fast this machine is: a few evaluations of the real objective at the real size, remembered for next time.

What is timed is what `transfer.solve` does at each step, on noise with cheap weights: convolutions take as long
whatever they multiply. The measurements are kept in a small JSON file under the user's cache directory.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nst_batch.errors import StudyError
from nst_batch.inputs import images
from nst_batch.records import ALGORITHM, CPU_BATCH, GPU_BATCH, MAX_CPUS_PER_WORKER, Configuration
from nst_batch.transfer import Objective, Picture, Problem, Targets, build_network, layer_distances, part_size
from nst_batch.transfer.engine import initial_image
from nst_batch.transfer.optimizers import Adam, Lbfgs
from nst_batch.transfer.vgg import conv_shapes
from nst_batch.vocabulary import layer_names, layer_shape

_LONG_ENOUGH_SECONDS = 1.0
_LEAST_GOES, _MOST_GOES = 3, 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a worker on this machine has to itself."""

    device: torch.device
    name: str
    threads: int
    num_workers: int

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
                num_workers=torch.cuda.device_count(),
            )  # fmt: skip
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = min(MAX_CPUS_PER_WORKER, cores)
        name = f"CPU of {platform.node()}, {threads} core{'s' if threads > 1 else ''}"
        return cls(device=torch.device("cpu"), name=name, threads=threads, num_workers=max(1, cores // threads))


@dataclass(frozen=True, slots=True)
class Rate:
    """What one image costs at one size, sharing its batch with others."""

    evaluation_seconds: float
    """Of the objective and its gradient, with the optimiser's share."""
    fixed_seconds: float
    """What is done once per trial: initial losses, the finished image's distances, encoding it."""


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
        self._networks: dict[tuple[str, ...], Targets] = {}

    def rate(self, chosen: Configuration, width: int, height: int, format: images.Encoding = "png") -> Rate:
        """What a trial of this configuration costs at `width` × `height` pixels."""
        key = self._key(chosen, width, height, format)
        known = _read(self.path)
        if key in known:
            return Rate(**known[key])
        self._note(f"measuring {width}×{height} pixels on {self.machine.name} …")
        with _threads(self.machine.threads):
            rate = self._measured(chosen, width, height, format)
        _write(self.path, known | {key: asdict(rate)})
        return rate

    @property
    def batch_size(self) -> int:
        """Trials per batch, at most."""
        return CPU_BATCH if self.machine.device.type == "cpu" else GPU_BATCH

    def batch(self, chosen: Configuration, width: int, height: int) -> int:
        """How many such images a worker here optimises together."""
        device = self.machine.device
        return min(self.batch_size, part_size(device, chosen.arch, _problem(chosen, width, height, device)))

    def _key(self, chosen: Configuration, width: int, height: int, format: str) -> str:
        objective = (
            f"{chosen.arch} {chosen.pooling} {','.join(chosen.content_layers)}|{','.join(chosen.style_layers)}"
        )
        how = f"{chosen.loss} {chosen.optimizer} {chosen.precision} tv={chosen.tv_weight > 0}"
        where = f"{self.machine.name}; torch {torch.__version__}; algorithm {ALGORITHM}"
        return f"{where}; {objective}; {how}; {width}×{height} {format}"

    def _measured(self, chosen: Configuration, width: int, height: int, format: images.Encoding) -> Rate:
        targets, batch = self._targets(chosen), self.batch(chosen, width, height)
        problems = [_problem(chosen, width, height, self.machine.device)] * batch
        objective = Objective(targets, problems, size=(height, width), scale=1.0, convention=chosen.loss)
        points = torch.stack([initial_image(problem, self.machine.device) for problem in problems]).flatten(1)
        optimizer = Lbfgs(points) if chosen.optimizer == "lbfgs" else Adam(points, learning_rate=0.02)

        def evaluate() -> None:
            losses, gradient = objective.losses_and_gradient(optimizer.point)
            optimizer.update(losses[:, 3], gradient)

        def first() -> None:
            with torch.no_grad():
                objective.terms(points.view(batch, 3, height, width))

        def finish() -> None:
            image = points[0].view(3, height, width)
            layer_distances(targets, image, problems[0])
            images.encode(images.from_array(image.cpu().numpy()), format)

        return Rate(self._least(evaluate) / batch, self._least(first) / batch + self._least(finish))

    def _least(self, action: Callable[[], None]) -> float:
        """The seconds of the quickest of a few goes: whatever disturbs a measurement makes it longer."""
        action()  # the libraries choose their algorithms, and targets are computed
        self._wait()
        goes: list[float] = []
        while len(goes) < _LEAST_GOES or (sum(goes) < _LONG_ENOUGH_SECONDS and len(goes) < _MOST_GOES):
            begun = time.perf_counter()
            action()
            self._wait()
            goes.append(time.perf_counter() - begun)
        return min(goes)

    def _wait(self) -> None:
        if self.machine.device.type == "cuda":
            torch.cuda.synchronize(self.machine.device)

    def _targets(self, chosen: Configuration) -> Targets:
        key = chosen.arch, chosen.pooling, chosen.precision
        if key not in self._networks:
            network = build_network(
                chosen.arch,
                _cheap_weights(chosen.arch),
                pooling=chosen.pooling,
                normalization=chosen.normalization,
                device=self.machine.device,
                precision=chosen.precision,
            )
            self._networks[key] = Targets(network)
        return self._networks[key]


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
    side = max(1, round(chosen.size * chosen.style_scale))
    content = Picture(key=f"content {width}×{height}", pixels=torch.rand(3, height, width, generator=generator))
    style = Picture(key=f"style {side}", pixels=torch.rand(3, side, side, generator=generator))
    return Problem(
        height=height,
        width=width,
        content=Picture(key=content.key, pixels=content.pixels.to(device)),
        styles=(style,),
        content_layers=chosen.content_layers,
        style_layers=chosen.style_layers,
        style_layer_weights=chosen.style_layer_weights,
        alpha=chosen.alpha,
        beta=chosen.beta,
        tv_weight=chosen.tv_weight,
        init="noise",
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


def _read(path: Path) -> dict[str, dict[str, float]]:
    """What is remembered; nothing, where the file is missing or damaged: it can always be measured again."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: rate for key, rate in found.items() if _is_rate(rate)}


def _is_rate(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == set(Rate.__slots__)
        and all(isinstance(number, float) and number >= 0 for number in value.values())
    )


def _write(path: Path, known: Mapping[str, Any]) -> None:
    """Remembers, where there is a place to; a read-only home costs a measurement next time, no more."""
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(known, indent=1), encoding="utf-8")
        partial.replace(path)
    except OSError:
        return
