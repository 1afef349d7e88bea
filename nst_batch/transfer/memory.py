"""How many images fit: a model of what an optimisation step holds at its peak."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nst_batch.layers import layer_names, layer_shape
from nst_batch.transfer.objective import Problem

_VECTORS = 2 * 20 + 8  # image-sized float32 tensors of an optimiser: history, point, best, gradient, direction
_USABLE = 0.85  # of the free memory: the allocator's fragments and the libraries' workspaces take the rest
_MAX_PART = 64


def predicted_bytes(
    arch: str, layers: Sequence[str], height: int, width: int, batch: int, itemsize: int = 4
) -> int:
    """Peak bytes of one step beyond the network and its targets.

    Every activation up to the deepest layer is kept for the backward pass. At the peak, which is at the largest
    layer, there are besides them its gradient and the one being computed.
    """
    names = layer_names(arch)
    deepest = max((names.index(layer) for layer in layers), default=-1)
    sizes = []
    for name in names[: deepest + 1]:
        channels, rows, columns = layer_shape(name, height, width)
        sizes.append(channels * rows * columns * itemsize)
    activations = sum(sizes) + 2 * max(sizes, default=0)
    targets = sum(sizes) // 4
    return batch * (activations + targets + _VECTORS * 3 * height * width * 4)


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
