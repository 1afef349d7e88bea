"""How fast this machine is: a few evaluations of the real objective, timed now.

What is timed is `transfer.solve` itself, on noise with cheap weights: convolutions take as long whatever they
multiply.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from nst_batch import transfer
from nst_batch.errors import StudyError
from nst_batch.inputs import images, limits
from nst_batch.inputs.fitting import fitting, operations, part_size
from nst_batch.records import CPU_BATCH, GPU_BATCH, MAX_CPUS_PER_WORKER, Configuration
from nst_batch.transfer.vgg import conv_shapes
from nst_batch.vocabulary import Encoding, MemoryLayout, kernel_side, scaled_size

_LONG_ENOUGH_SECONDS = 1.0
_MOST_GOES = 40
_MOST_PIXELS = 512 * 512  # of an image that is timed
_SHORT, _LONG = 2, 6  # evaluations of the two runs that are compared


@dataclass(frozen=True, slots=True)
class Rate:
    """What trials cost, sharing their batch with others."""

    operation_seconds: float
    """Of one of the `operations` of an evaluation: the objective, its gradient, and the optimiser's share."""
    pixel_seconds: float
    """What is done once per trial: initial losses, the finished image's distances, encoding it."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a worker on this machine has to itself, and how fast it is."""

    device: torch.device
    name: str
    threads: int
    num_workers: int
    memory_bytes: int
    """Of each worker."""

    @classmethod
    def here(cls, device: str) -> Machine:
        """This machine as a run on `device` (auto, cpu, cuda or cuda:N) would use it.

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
                num_workers=torch.cuda.device_count(), memory_bytes=transfer.gpu_bytes(chosen)[1],
            )  # fmt: skip
        cores = limits.num_cores()
        threads = min(MAX_CPUS_PER_WORKER, cores)
        name = f"CPU of {platform.node()}, {threads} core{'s' if threads > 1 else ''}"
        workers = max(1, cores // threads)
        return cls(
            device=torch.device("cpu"), name=name, threads=threads,
            num_workers=workers, memory_bytes=limits.total_bytes() // workers,
        )  # fmt: skip

    @property
    def batch_size(self) -> int:
        """Trials per batch, at most."""
        return CPU_BATCH if self.device.type == "cpu" else GPU_BATCH

    def layout(self, chosen: Configuration, width: int, height: int, tile: int | None) -> MemoryLayout:
        """How a worker here holds such an image."""
        return fitting(chosen, height, width, self.memory_bytes, tile)

    def batch(self, chosen: Configuration, width: int, height: int) -> int:
        """How many such images a worker here optimises together."""
        if self.device.type == "cpu":
            return CPU_BATCH
        return min(GPU_BATCH, part_size(chosen, height, width, self.memory_bytes))

    def rate(self, chosen: Configuration, width: int, height: int, format: Encoding) -> Rate:
        """From a short and a longer run of the engine, of large images on fewer pixels: time is in proportion."""
        shrink = max(1.0, width * height / _MOST_PIXELS) ** 0.5
        width, height = round(width / shrink), round(height / shrink)
        batch, targets = self.batch(chosen, width, height), _targets(chosen, self.device)
        problem = _problem(chosen, width, height, self.device)

        def optimise(steps: int) -> list[transfer.Solution]:
            options = transfer.SolveOptions(
                steps=steps, optimizer=chosen.optimizer, convention=chosen.loss, plateau=0.0
            )
            return transfer.solve(targets, [problem] * batch, options)

        def finish(image: torch.Tensor) -> None:
            transfer.layer_distances(targets, image, problem)
            images.encode(images.from_array(image.cpu().numpy()), format)

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            image = optimise(1)[0].image  # the libraries choose their algorithms, and targets are computed
            finish(image)
            short, long = (self._seconds(partial(optimise, steps)) for steps in (_SHORT, _LONG))
            finishing = self._seconds(partial(finish, image))
        finally:
            torch.set_num_threads(before)
        evaluation = max(0.0, (long - short) / (_LONG - _SHORT))
        beginning = max(0.0, short - _SHORT * evaluation)
        return Rate(
            evaluation / batch / operations(chosen, height, width),
            (beginning / batch + finishing) / (width * height),
        )

    def _seconds(self, action: Callable[[], object]) -> float:
        """Of the quickest of a few goes: whatever disturbs a measurement makes it longer."""
        goes: list[float] = []
        while not goes or (sum(goes) < _LONG_ENOUGH_SECONDS and len(goes) < _MOST_GOES):
            begun = time.perf_counter()
            action()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            goes.append(time.perf_counter() - begun)
        return min(goes)


def _problem(chosen: Configuration, width: int, height: int, device: torch.device) -> transfer.Problem:
    """Of noise."""
    side = scaled_size(max(width, height), chosen.style_scale)
    generator = torch.Generator().manual_seed(0)
    content, style = (
        transfer.TargetImage(key=key, pixels=torch.rand(3, *size, generator=generator).to(device))
        for key, size in (("content", (height, width)), ("style", (side, side)))
    )
    return transfer.Problem.under(chosen, height, width, content, (style,))


def _targets(chosen: Configuration, device: torch.device) -> transfer.Targets:
    """With He's weights, which keep activations at their size."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, (out_channels, in_channels) in conv_shapes(chosen.arch).items():
        side = kernel_side(name, chosen.arch)
        spread = (2 / (side**2 * in_channels)) ** 0.5
        weights[f"{name}.weight"] = torch.randn(out_channels, in_channels, side, side, generator=generator) * spread
        weights[f"{name}.bias"] = torch.zeros(out_channels)
    return transfer.targets_under(chosen, weights, device)
