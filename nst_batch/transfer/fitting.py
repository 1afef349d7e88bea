"""How a problem is held where memory is short: in strips, with shorter pairs of L-BFGS, with fewer of them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from nst_batch.transfer.strips import WHOLE, blocks
from nst_batch.vocabulary import LBFGS_HISTORY, layer_names, layer_shape, predicted_bytes

PairPrecision = Literal["float32", "bfloat16"]

_USABLE = 0.85  # of the memory: fragments and the libraries' workspaces take the rest
_VECTORS = 14  # image-sized float32 tensors besides the pairs: point, best, gradient, direction, spectra, pictures
_LEAST_TILE = 64  # rows: with fewer, halos of four rows on either side cost more than an eighth
# Measured at 96 pixels, block4_conv2, alpha 0.5: after 30, 60 and 90 evaluations pairs in bfloat16 are at 0.992,
# 1.001 and 1.002 times the loss of those in float32.
_PAIRS: tuple[tuple[int, PairPrecision], ...] = (
    (LBFGS_HISTORY, "float32"),
    (LBFGS_HISTORY, "bfloat16"),
    (40, "bfloat16"),
    (20, "bfloat16"),
    (10, "bfloat16"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """How a problem is held while it is solved. Strips change the rounding, other pairs the path."""

    tile: int = WHOLE
    """Rows of a strip (`transfer.tiles`); 0: the whole image at once."""
    num_pairs: int = LBFGS_HISTORY
    """Of L-BFGS."""
    pair_precision: PairPrecision = "float32"


WHOLE_IMAGE = Fit()
"""What is chosen wherever it fits."""


def held_bytes(arch: str, layers: Sequence[str], height: int, width: int, fit: Fit) -> int:
    """Peak bytes of one step on one image beyond the network, in float32; see `vocabulary.predicted_bytes`.

    In strips, what is kept are the poolings and the blocks of a single strip. While a strip is computed again,
    there are besides them its own activations, as for a whole image, and the gradient of the largest pooling.
    """
    if fit == WHOLE_IMAGE:
        return predicted_bytes(arch, layers, height, width, 1)
    kept, poolings, strip, pooled = 0, 0, 0, [0]
    for block in blocks(layer_names(arch), layers, height, fit.tile):
        sizes = {name: 4 * math.prod(layer_shape(name, height, width)) for name in block.layers}
        own = sum(sizes.values()) + sum(size for name, size in sizes.items() if name in layers)
        if len(block.strips) == 1:
            kept += own
            strip = max(strip, 4 * max(sizes.values()))
        else:
            rows = max(each.seen.stop - each.seen.start for each in block.strips)
            part = rows / block.num_rows(block.layers[0])
            strip = max(strip, int(part * (own + 4 * max(sizes.values()))))
            pooled.append(sizes.get(block.pooling or "", 0))
            poolings += pooled[-1]
    pairs = 2 * fit.num_pairs * (4 if fit.pair_precision == "float32" else 2)
    return kept + poolings + max(pooled) + strip + 3 * height * width * (4 * _VECTORS + pairs)


def fitting(
    arch: str, layers: Sequence[str], height: int, width: int, available: int, tile: int | None = None
) -> Fit:
    """How to hold one problem: whole, else in as few strips as fit, else with pairs in bfloat16 and then fewer.

    Args:
        layers: Those that the losses look at.
        available: Bytes for one step, beyond the network.
        tile: Rows of a strip, 0 for the whole; None chooses.

    Returns:
        What fits; if nothing does, what takes the least.
    """
    tiles = _tiles(height) if tile is None else [tile]
    fits = [
        Fit(tile=rows, num_pairs=count, pair_precision=precision) for count, precision in _PAIRS for rows in tiles
    ]
    sizes = [held_bytes(arch, layers, height, width, fit) for fit in fits]
    found = next((fit for fit, size in zip(fits, sizes, strict=True) if size <= available), None)
    return found or fits[sizes.index(min(sizes))]


def _tiles(height: int) -> list[int]:
    """The whole, then ever more strips."""
    strips = (-(-height // count) for count in range(2, max(3, height // _LEAST_TILE)))
    return [WHOLE, *dict.fromkeys(rows for rows in strips if rows >= _LEAST_TILE)]


def available_bytes(device: torch.device, num_workers: int = 1) -> int:
    """What a worker may hold: a part of all the memory, not of what is free now, so that a run repeats itself.

    Args:
        num_workers: That share a machine's memory where there is no GPU.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * _USABLE)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(total * _USABLE) // num_workers
