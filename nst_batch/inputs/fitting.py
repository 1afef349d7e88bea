"""What fits into a worker's memory: an image whole or in strips, with how many pairs, beside how many others.

A model of what an optimisation step holds at its peak. Imports no torch: the driver plans with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from nst_batch.records import Configuration
from nst_batch.vocabulary import (
    CHANNELS,
    WHOLE_IMAGE,
    MemoryLayout,
    kernel_side,
    layer_names,
    layer_shape,
    num_stages,
)

_USABLE = 0.85  # of the memory: fragments and the libraries' workspaces take the rest
_MAX_PART = 64
_VECTORS = 14  # image-sized float32 tensors besides the pairs: point, best, gradient, direction, spectra, pictures
_LEAST_TILE = 64  # rows: with fewer, halos of four rows on either side cost more than an eighth
# Measured at 96 pixels, block4_conv2, alpha 0.5: after 30, 60 and 90 evaluations pairs in bfloat16 are at 0.992,
# 1.001 and 1.002 times the loss of those in float32.
_SHORT = MemoryLayout(pair_precision="bfloat16")
_PAIRS = (WHOLE_IMAGE, _SHORT, *(replace(_SHORT, num_pairs=count) for count in (40, 20, 10)))


def held_bytes(
    arch: str,
    layers: Sequence[str],
    height: int,
    width: int,
    layout: MemoryLayout = WHOLE_IMAGE,
    *,
    itemsize: int = 4,
) -> int:
    """Peak bytes of one step on one image, beyond the network.

    Args:
        layers: Those that the losses look at.
        itemsize: Bytes of a feature: 4, or 2 in bfloat16.
    """
    pairs = 2 * layout.num_pairs * (4 if layout.pair_precision == "float32" else 2)
    vectors = 3 * height * width * (4 * _VECTORS + pairs)
    return itemsize * _num_features(arch, layers, height, width, layout.tile) + vectors


def _num_features(arch: str, layers: Sequence[str], height: int, width: int, tile: int) -> int:
    """Numbers held at the peak: where the gradient sets out, or where a block in strips is computed again.

    Where it sets out there are every activation of the blocks that are kept whole, the gradients that the losses
    left at their layers, and two tensors of the largest layer's size at work. Where a strip is computed again, the
    same of this strip, and the gradient of the largest pooling. Poolings between blocks in strips are there always.
    """
    kept, largest_kept, strip, pooled = 0, 0, 0, [0]
    for index, sizes in enumerate(_blocks(arch, layers, height, width)):
        own = sum(sizes.values()) + sum(size for name, size in sizes.items() if name in layers)
        largest, rows = max(sizes.values()), height >> index
        if not tile or rows <= tile:
            kept, largest_kept = kept + own, max(largest_kept, largest)
        else:
            halo = 2 * sum("conv" in name for name in sizes)
            strip = max(strip, int(min(1.0, (tile + halo) / rows) * (own + 2 * largest)))
            pooled.append(next((size for name, size in sizes.items() if name.endswith("pool")), 0))
    return sum(pooled) + max(kept + 2 * largest_kept, strip + max(pooled))


def fitting(
    chosen: Configuration, height: int, width: int, available: int, tile: int | None = None
) -> MemoryLayout:
    """How to hold one problem: whole, else in as few strips as fit, else with pairs in bfloat16 and then fewer.

    What takes the least, if nothing fits.

    Args:
        available: Bytes of memory for the whole of a worker.
        tile: Rows of a strip, 0 for the whole; None chooses.
    """
    layouts = [
        replace(pairs, tile=rows, num_pairs=min(pairs.num_pairs, chosen.num_pairs))
        for pairs in _PAIRS
        for rows in _tiles(height, tile)
    ]
    sizes = [held_bytes(chosen.arch, chosen.layers, height, width, layout) for layout in layouts]
    fits = (layout for layout, size in zip(layouts, sizes, strict=True) if size <= available * _USABLE)
    return next(fits, layouts[sizes.index(min(sizes))])


def least_bytes(chosen: Configuration, height: int, width: int, tile: int | None) -> int:
    """What one step takes, beyond the network, in the smallest strips and with all pairs in float32."""
    layouts = (MemoryLayout(tile=rows, num_pairs=chosen.num_pairs) for rows in _tiles(height, tile))
    return min(held_bytes(chosen.arch, chosen.layers, height, width, layout) for layout in layouts)


def part_size(chosen: Configuration, height: int, width: int, free: int) -> int:
    """How many problems like this one a GPU with `free` bytes of memory solves together."""
    needed = held_bytes(chosen.arch, chosen.layers, height, width)
    return max(1, min(_MAX_PART, int(free * _USABLE) // needed))


def operations(chosen: Configuration, height: int, width: int, tile: int = 0) -> float:
    """Multiplications of one evaluation, up to a factor: carries a time over to another configuration or size.

    Blocks in strips pass forward once more, with halos; coarse stages cost a quarter of the next one each.
    """
    total, in_channels = 0.0, 3
    for index, sizes in enumerate(_blocks(chosen.arch, chosen.layers, height, width)):
        convolutions = [name for name in sizes if "conv" in name]
        own = 0.0
        for name in convolutions:
            own += float(kernel_side(name, chosen.arch) ** 2 * in_channels * sizes[name])
            in_channels = CHANNELS[index]
        total += own + sum(CHANNELS[index] * size for name, size in sizes.items() if name in chosen.style_layers)
        if tile and height >> index > tile:
            total += own * (0.5 + 2 * len(convolutions) / tile)
    halvings = num_stages(height, width) if chosen.pyramid == "auto" else 0
    return total * sum(4.0**-each for each in range(halvings + 1))


def _blocks(arch: str, layers: Sequence[str], height: int, width: int) -> list[dict[str, int]]:
    """Per block, the numbers in each layer's activations, up to the deepest of `layers`."""
    names = layer_names(arch)
    depth = max((names.index(layer) for layer in layers), default=-1)
    found: dict[str, dict[str, int]] = {}
    for name in names[: depth + 1]:
        found.setdefault(name[:6], {})[name] = math.prod(layer_shape(name, height, width))
    return list(found.values())


def _tiles(height: int, tile: int | None) -> list[int]:
    """The whole, then ever more strips; or what was asked for."""
    if tile is not None:
        return [tile]
    strips = (-(-height // count) for count in range(2, max(3, height // _LEAST_TILE)))
    return [0, *dict.fromkeys(rows for rows in strips if rows >= _LEAST_TILE)]
