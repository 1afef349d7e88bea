"""Spatial control: which part of a picture takes which style, and which takes none.

The source is Gatys, Ecker, Bethge, Hertzmann and Shechtman, "Controlling perceptual factors in neural style
transfer" (CVPR 2017), section 4: guidance channels T, one per region, multiply the features at every position, and
each region has a Gram matrix of its own, of its guided features T∘F with Σ T² = 1. Departures, and why:

- T is the square root of a region's weight, not the weight. Where regions that share a position have weights that
  add up to one, their unnormalised Gram matrices then add up to the whole picture's.
- Each region's loss counts by its share of the layer, where the paper has a free factor: the gradient at a position
  is then as strong as without regions, however small its region.
- Weights are carried down the network by average pooling wherever features are pooled, by maximum or average. They
  are not shrunk by what convolutions see, so styles mix within a receptive field of a border.
- A region that no style has is protected (`losses.content_weights`, `problem.Variables`); the paper knows none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from nst_batch.vocabulary import MAX_REGIONS, halvings, kernel_side, layer_names


class Labels(NamedTuple):
    """Of the regions of an image that is to be found."""

    styled: tuple[int, ...]
    """Those that one of the styles has too."""
    protected: tuple[int, ...]
    """Those that none has."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Regions:
    """Where the regions of one picture lie. Equal labels of a trial's pictures belong together.

    Raises:
        ValueError: The plane is neither labels nor weights.
    """

    key: str
    """Equal keys mean equal planes."""
    plane: Tensor
    """HxW, as its picture: labels below `MAX_REGIONS` in uint8; or in float32, from 0 to 1, the weight of label 1,
    where label 0 has the rest."""
    labels: tuple[int, ...]
    """That the mask has before it is fitted to the picture; 0 and 1 for weights."""

    def __post_init__(self) -> None:
        soft = self.plane.dtype == torch.float32
        if self.plane.dim() != 2 or not (soft or self.plane.dtype == torch.uint8):
            found = f"{tuple(self.plane.shape)} in {self.plane.dtype}"
            raise ValueError(f"expected a plane of HxW in uint8 or float32, found {found}")
        if soft and (self.plane.amin() < 0 or self.plane.amax() > 1):
            raise ValueError("expected weights from 0 to 1, found " + " to ".join(map(str, self.plane.aminmax())))
        if not soft and int(self.plane.amax()) >= MAX_REGIONS:
            raise ValueError(f"expected labels from 0 to {MAX_REGIONS - 1}, found {int(self.plane.amax())}")

    def weights(self, *labels: int) -> Tensor:
        """HxW in float32: how much of each position is in one of these regions."""
        if self.plane.dtype == torch.uint8:
            return sum((self.plane == label for label in labels), torch.zeros_like(self.plane)).float()
        planes = {0: 1 - self.plane, 1: self.plane}
        return sum((planes[label] for label in labels), torch.zeros_like(self.plane))

    def resized(self, height: int, width: int) -> Regions:
        """At another size: labels by nearest neighbour, weights averaged."""
        plane = self.plane[None, None]
        if plane.dtype == torch.uint8:
            plane = functional.interpolate(plane, (height, width), mode="nearest-exact")
        else:
            plane = functional.interpolate(plane, (height, width), mode="area")
        return Regions(key=f"{self.key}/{height}×{width}", plane=plane[0, 0], labels=self.labels)


@lru_cache(maxsize=16)
def whole(height: int, width: int) -> Regions:
    """A picture without a mask: all of it is label 0."""
    return Regions(key=f"whole/{height}/{width}", plane=torch.zeros(height, width, dtype=torch.uint8), labels=(0,))


def carried(weights: Tensor, layer: str) -> Tensor:
    """Weights, HxW, at the positions of a layer: averaged at every pooling before it."""
    for _ in range(halvings(layer)):
        weights = functional.avg_pool2d(weights.unsqueeze(0), 2).squeeze(0)
    return weights


@dataclass(frozen=True, slots=True, eq=False)
class Guidance:
    """The guidance channels of R regions at one layer, of hxw = M positions.

    A position costs only in regions in which it has weight: four that do not overlap cost as much as one.
    """

    positions: tuple[Tensor, ...]
    """Of each region, those where it has weight: ascending numbers below M."""
    channels: tuple[Tensor, ...]
    """Of each region, T at these positions: √weight, nx1."""
    starts: tuple[list[int], ...]
    """Of each region, how many of its positions are before each row of the layer."""
    width: int
    areas: Tensor
    """R: the sum of each region's weights."""
    shares: Tensor
    """R: the part of the M positions that this is."""

    @classmethod
    def of(cls, planes: Sequence[Tensor], dtype: torch.dtype) -> Guidance:
        """From weights, hxw each, for features in `dtype`."""
        positions = tuple(plane.flatten().nonzero().squeeze(1) for plane in planes)
        weights = (plane.flatten()[own] for plane, own in zip(planes, positions, strict=True))
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        areas = torch.stack([plane.sum(dtype=torch.float64) for plane in planes])
        return cls(
            positions,
            tuple(each.to(exact).sqrt().to(dtype).unsqueeze(1) for each in weights),
            tuple(functional.pad((plane > 0).sum(1).cumsum(0), (1, 0)).tolist() for plane in planes),
            planes[0].shape[1],
            areas.clamp_min(torch.finfo(torch.float32).tiny).to(exact),
            (areas / planes[0].numel()).to(exact),
        )

    @property
    def nbytes(self) -> int:
        """What it holds, all but a little."""
        return sum(tensor.nbytes for tensor in (*self.positions, *self.channels))

    def guided(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each region its positions, T there, and the guided features T∘F, Bxnxn_channels, from F: BxMxN."""
        for positions, channel in zip(self.positions, self.channels, strict=True):
            yield positions, channel, rows[:, positions].mul_(channel)

    def strip(self, rows: slice) -> Guidance:
        """The part in these rows of the layer; areas and shares remain those of the whole."""
        parts = [slice(starts[rows.start], starts[rows.stop]) for starts in self.starts]
        offset = rows.start * self.width
        return replace(
            self,
            positions=tuple(own[part] - offset for own, part in zip(self.positions, parts, strict=True)),
            channels=tuple(own[part] for own, part in zip(self.channels, parts, strict=True)),
            starts=(),
        )


def receptive_field(arch: str, layer: str) -> int:
    """Pixels of the side of the square that one position of a layer sees."""
    side, step = 1, 1
    names = layer_names(arch)
    for name in names[: names.index(layer) + 1]:
        if name.endswith("pool"):
            side, step = side + step, 2 * step
        else:
            side += (kernel_side(name, arch) - 1) * step
    return side


def regions_mistake(
    content: Regions | None,
    styles: Sequence[Regions | None],
    style_layers: Sequence[str],
    arch: str,
    names: Sequence[object] = range(MAX_REGIONS),
) -> str | None:
    """Why these masks cannot be used, for a person who can change it; None where they can.

    Args:
        content, styles: Of the pictures at their working sizes; None for one without a mask, all of label 0.
        style_layers: Those of the style loss.
        names: What a person calls the regions, by label.
    """
    own = content.labels if content else (0,)
    offered = {label for style in styles for label in (style.labels if style else (0,))}
    styled = [label for label in own if label in offered]
    if styles and not styled:
        return (
            f"expected a region that the masks of the content and of a style have, found {_list(own, names)} in "
            f"the content's and {_list(sorted(offered), names)} in the styles'; give regions that belong together "
            f"one colour (what has no mask is black)"
        )
    deepest = max(style_layers, key=layer_names(arch).index, default=None)
    side = receptive_field(arch, deepest) if deepest else 0
    named = [("the content's", content), *((f"style {number}'s", style) for number, style in enumerate(styles, 1))]
    for label, (name, regions) in product(styled, named):
        if regions is not None and label in regions.labels:
            area = float(regions.weights(label).sum(dtype=torch.float64))
            height, width = regions.plane.shape
            if not area:
                return (
                    f"region {names[label]} of {name} mask is empty at {width}×{height} pixels, where its picture "
                    f"is cropped and resized; move it into the part that is left, or choose fit: keep"
                )
            if area < side**2:
                return (
                    f"region {names[label]} of {name} mask has {area:.0f} pixels at {width}×{height}, fewer than "
                    f"the {side}×{side} that a position of {deepest} sees; choose a larger size, shallower style "
                    f"layers or a larger region"
                )
    return None


def _list(labels: Sequence[int], names: Sequence[object]) -> str:
    return " and ".join(str(names[label]) for label in labels)
