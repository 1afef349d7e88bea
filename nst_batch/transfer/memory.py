"""How many images fit: a model of what an optimisation step holds at its peak."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch

from nst_batch.transfer.optimizers import HISTORY
from nst_batch.transfer.problem import Problem
from nst_batch.vocabulary import layer_names, layer_shape

_VECTORS = 2 * HISTORY + 8  # image-sized float32 tensors of an optimiser: history, point, best, gradient, direction
_USABLE = 0.85  # of the free memory: the allocator's fragments and the libraries' workspaces take the rest
_MAX_PART = 64
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_KEPT_BYTES = (
    64 << 20
)  # larger tensors are handed back: among few of them, kept memory is in pieces that do not fit


def predicted_bytes(
    arch: str, layers: Sequence[str], height: int, width: int, batch: int, itemsize: int = 4
) -> int:
    """Peak bytes of one step beyond the network.

    Every activation up to the deepest layer is kept for the backward pass. At the peak, near the image, there are
    besides them the gradients that the losses left at their layers, and four tensors of the largest layer's size:
    the gradient there before and after its ReLU, the one being computed, and what a convolution library needs for
    itself, which was measured as none to two of these.

    Args:
        layers: Those that the losses look at.
        itemsize: Bytes of a feature: 4, or 2 in bfloat16.
    """
    names = layer_names(arch)
    deepest = max((names.index(layer) for layer in layers), default=-1)
    shapes = {name: layer_shape(name, height, width) for name in names[: deepest + 1]}
    sizes = {name: math.prod(shape) * itemsize for name, shape in shapes.items()}
    features = sum(sizes.values()) + sum(sizes[layer] for layer in layers) + 4 * max(sizes.values(), default=0)
    return batch * (features + _VECTORS * 3 * height * width * 4)


def part_size(device: torch.device, arch: str, problem: Problem) -> int:
    """How many problems like this one to solve together.

    On a CPU, one: convolutions of a single image fill the cores, its activations stay in the cache, and a
    trial's result is then the same to the last bit whoever shares its batch.
    """
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    one = predicted_bytes(arch, problem.layers, problem.height, problem.width, 1)
    return max(1, min(_MAX_PART, int(free * _USABLE) // one))


def keep_freed_memory() -> None:
    """Has this process keep the memory of tensors that it frees, up to 64 MiB each, where its C library is glibc.

    Every step on a CPU frees what the next one allocates; memory that is handed back and asked for again costs a
    fault for each of its pages. Measured at 300 pixels, over the bare convolutions: 1.16 instead of 1.22 with one
    image, 1.19 instead of 1.35 with two.
    """
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "mallopt"):
        allocator.mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        allocator.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
