"""A network's features computed in strips of rows, equal to the whole image's up to rounding.

Galerne, Raad, Lezama and Morel ("Scaling painting style transfer", 2022) cut an image into tiles that each pass
through the whole network, with a halo as wide as its receptive field: more than a hundred pixels on every side at
block5_conv1. Here a strip passes through one block of convolutions at a time, and the block's pooled output, a
quarter of its size or less, is put together whole before the next block begins. A halo is then the two to four
rows that one block's convolutions see beyond a strip, and strips of the full width have no halo at their sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nst_batch.transfer.vgg import Vgg

WHOLE = 0
"""Instead of a number of rows: the whole image is one strip."""

_LEAST_ROWS = 16  # with fewer, more of a strip is halo than not


@dataclass(frozen=True, slots=True)
class Strip:
    """Rows of a block that are computed together: its own, and the halo that these need."""

    start: int
    """Even, so that pooling meets the same rows as in the whole image."""
    stop: int
    above: int
    """Rows of halo before `start`: none at the image's edge, where the network pads with zeros; even."""
    below: int

    @property
    def seen(self) -> slice:
        """The rows of the block's input that this strip reads."""
        return slice(self.start - self.above, self.stop + self.below)

    def rows(self, layer: str) -> slice:
        """Where its own rows lie in the whole layer."""
        step = _step(layer)
        return slice(self.start // step, self.stop // step)

    def num_rows(self, layer: str) -> int:
        """Of its own."""
        step = _step(layer)
        return self.stop // step - self.start // step

    def own(self, layer: str, features: Tensor) -> Tensor:
        """Activations of the strip with its halo, BxCxhxw, without what belongs to the halo."""
        if not (self.above or self.below):
            return features
        above = self.above // _step(layer)
        return features[:, :, above : above + self.num_rows(layer)]


Visitor = Callable[[str, Tensor, Strip], None]
"""Is shown a layer's name, a strip's own activations of it, and the strip."""


@dataclass(frozen=True, slots=True)
class Block:
    """Layers between two poolings, the latter included, and the strips they are computed in."""

    layers: tuple[str, ...]
    strips: tuple[Strip, ...]

    @property
    def is_first(self) -> bool:
        """Whether it reads images in [0, 1]."""
        return self.layers[0] == "block1_conv1"

    @property
    def pooling(self) -> str | None:
        """The layer that the next block reads; None in the deepest block needed."""
        return self.layers[-1] if self.layers[-1].endswith("pool") else None

    def num_rows(self, layer: str) -> int:
        """Of the whole layer."""
        return self.strips[-1].stop // _step(layer)


def _step(layer: str) -> int:
    """Rows of a block to one of this layer."""
    return 2 if layer.endswith("pool") else 1


def blocks(names: Sequence[str], layers: Sequence[str], height: int, rows: int) -> tuple[Block, ...]:
    """The blocks up to the deepest of `layers`, in strips of `rows` rows at most (an odd last one joins them).

    Args:
        names: Of all layers of a network, in order.
        height: Of the image, in pixels.
        rows: At each block's own resolution; `WHOLE` for one strip.
    """
    depth = max((names.index(layer) for layer in layers), default=-1)
    found: dict[str, list[str]] = {}
    for name in names[: depth + 1]:
        found.setdefault(name[:6], []).append(name)
    return tuple(
        Block(tuple(own), tuple(_strips(height >> index, rows, sum("conv" in name for name in own))))
        for index, own in enumerate(found.values())
    )


def _strips(height: int, rows: int, convolutions: int) -> Iterator[Strip]:
    """Strips of equal height; each convolution sees one row beyond its own."""
    count = -(-height // rows) if rows else 1
    step, halo = 2 * -(-height // (2 * count)), convolutions + convolutions % 2
    starts = range(0, max(1, height - 1), step)  # a last row alone would pool to nothing
    for start in starts:
        stop = height if start == starts[-1] else start + step
        yield Strip(start, stop, min(halo, start), min(halo, height - stop))


def strip_features(network: Vgg, block: Block, x: Tensor, strip: Strip) -> Iterator[tuple[str, Tensor]]:
    """Each layer's name and the strip's own activations of it, from the rows `strip.seen` of the block's input."""
    if block.is_first:
        x = network.normalized(x)
    for name in block.layers:
        x = network.layer(name, x)
        yield name, strip.own(name, x)


def pass_through(network: Vgg, block: Block, x: Tensor, visit: Visitor) -> Tensor | None:
    """Passes a whole input (BxCxhxw) through a block, strip by strip, and shows every layer's activations.

    Returns:
        What the next block reads, whole; None where there is none. Differentiable if there is one strip.
    """
    whole = None
    for strip in block.strips:
        for name, own in strip_features(network, block, x[:, :, strip.seen], strip):
            visit(name, own, strip)
            if name != block.pooling:
                continue
            if len(block.strips) == 1:
                return own
            if whole is None:
                shape = (*own.shape[:2], block.strips[-1].stop // 2, own.shape[3])
                whole = torch.empty(shape, dtype=own.dtype, device=own.device, memory_format=torch.channels_last)
            whole[:, :, strip.rows(name)] = own
    return whole


def visit_features(network: Vgg, images: Tensor, layers: Sequence[str], visit: Visitor, *, pixels: int) -> None:
    """Shows the activations of `layers`, and of those before them, in the order of computation, without gradients.

    Args:
        images: Bx3xHxW in [0, 1].
        pixels: A larger image is shown in strips of so many at most (though of 16 rows at least), so that what
            this holds at once, besides the poolings, does not grow with the image.
    """
    height, width = images.shape[2:]
    rows = WHOLE if height * width <= pixels else max(_LEAST_ROWS, pixels // width)
    x: Tensor | None = images
    with torch.no_grad():
        for block in blocks(network.layers, layers, height, rows):
            assert x is not None
            x = pass_through(network, block, x, visit)
