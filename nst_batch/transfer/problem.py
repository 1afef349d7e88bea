"""What is asked for: the pictures, layers and weights of one image that is to be found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from nst_batch.records import Configuration
from nst_batch.transfer.regions import Labels, Regions, whole
from nst_batch.vocabulary import Init, Loss


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TargetImage:
    """A picture whose features are targets."""

    key: str
    """Equal keys mean equal pixels; targets are cached under it."""
    pixels: Tensor
    """3xHxW in [0, 1] at its full working size."""
    regions: Regions | None = None
    """HxW; None: all of the picture is label 0."""

    @property
    def labels(self) -> tuple[int, ...]:
        """Of its regions."""
        return self.regions.labels if self.regions else (0,)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Problem:
    """One image to be found: minimise alpha · content + beta · style + tv_weight · tv."""

    height: int
    width: int
    content: TargetImage | None
    """HxW pixels; None where `content_layers` is empty and `init` is not content."""
    styles: tuple[TargetImage, ...]
    """Blended in equal parts: the target is the mean of their Gram matrices (a region's, of those that have it)."""
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    style_layer_weights: tuple[float, ...] = ()
    """Relative weights of the style layers; empty means equal."""
    alpha: float = 1.0
    beta: float = 1.0
    tv_weight: float = 0.0
    init: Init = "content"
    seed: int = 0
    """Of the noise, when `init` is noise."""

    @classmethod
    def under(
        cls,
        chosen: Configuration,
        height: int,
        width: int,
        content: TargetImage | None,
        styles: Sequence[TargetImage],
    ) -> Problem:
        """The problem of these pictures under a configuration."""
        return cls(
            height=height,
            width=width,
            content=content,
            styles=tuple(styles),
            content_layers=chosen.content_layers,
            style_layers=chosen.style_layers,
            style_layer_weights=chosen.style_layer_weights,
            alpha=chosen.alpha,
            beta=chosen.beta,
            tv_weight=chosen.tv_weight,
            init=chosen.init,
            seed=chosen.seed,
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer that the objective looks at."""
        return tuple(dict.fromkeys((*self.content_layers, *self.style_layers)))

    @property
    def regions(self) -> Regions:
        """Of the image to be found: the content's."""
        return (self.content and self.content.regions) or whole(self.height, self.width)

    @property
    def labels(self) -> Labels | None:
        """None where there is nothing to tell apart: all pictures are one and the same region."""
        own = self.regions.labels
        offered = {label for style in self.styles for label in style.labels}
        if not offered or offered == set(own) == {own[0]}:
            return None
        return Labels(
            tuple(label for label in own if label in offered), tuple(label for label in own if label not in offered)
        )


def initial_image(problem: Problem, device: torch.device, found: Tensor | None = None) -> Tensor:
    """3xHxW: the content, the style at the content's size, or noise around mid grey.

    Args:
        found: 3xhxw, at another size: is begun with instead.
    """
    size = problem.height, problem.width
    if found is not None:
        return resized(found, *size)
    if problem.init == "noise":
        generator = torch.Generator().manual_seed(problem.seed)
        return (0.5 + 0.1 * torch.randn(3, *size, generator=generator)).clamp(0, 1).to(device)
    picture = problem.content if problem.init == "content" else problem.styles[0]
    assert picture is not None
    return resized(picture.pixels.to(device), *size).clamp(0, 1)


class Variables:
    """What is optimised of a batch of images, and the images that these variables make.

    They are the pixels themselves, except where a region is protected: there an image is the content's pixels,
    whatever its variables are, and mixed from both where the region's weight is between 0 and 1. A content loss
    alone would let it change by what the neighbouring style pulls in, the more the smaller alpha is.
    """

    def __init__(self, problems: Sequence[Problem], device: torch.device, dtype: torch.dtype) -> None:
        self._size = problems[0].height, problems[0].width
        self._kept: tuple[Tensor, Tensor] | None = None  # weights, Bx1xHxW, and pictures, Bx3xHxW
        protected = [problem.labels.protected if problem.labels else () for problem in problems]
        if any(protected):
            weights = [one.regions.weights(*labels) for one, labels in zip(problems, protected, strict=True)]
            nothing = torch.zeros(3, *self._size)
            pictures = [problem.content.pixels if problem.content else nothing for problem in problems]
            self._kept = (
                torch.stack(weights).unsqueeze(1).to(device, dtype),
                torch.stack(pictures).to(device, dtype),
            )

    def images(self, points: Tensor) -> Tensor:
        """Bx3xHxW, of points, BxD."""
        images = points.view(-1, 3, *self._size)
        return images if self._kept is None else images.lerp(self._kept[1], self._kept[0])

    def gradient(self, of_images: Tensor) -> Tensor:
        """With respect to the variables, BxD, from that with respect to the images, Bx3xHxW."""
        return (of_images if self._kept is None else of_images * (1 - self._kept[0])).flatten(1)


def reduced(problem: Problem, halvings: int, convention: Loss) -> Problem:
    """The same problem on pictures of 1/2, 1/4 … of their sides; itself at 0.

    Its weights keep the balance of the terms: at half the size a quarter of the positions are left, and neighbours
    differ by twice as much. So the content's sum is a quarter and the total variation's mean fourfold; the style's
    loss and the other two hardly change.
    """
    if not halvings:
        return problem

    def smaller(picture: TargetImage) -> TargetImage:
        height, width = (max(1, edge >> halvings) for edge in picture.pixels.shape[1:])
        pixels = resized(picture.pixels, height, width).clamp(0, 1)
        regions = picture.regions and picture.regions.resized(height, width)
        return TargetImage(key=f"{picture.key}/{halvings}", pixels=pixels, regions=regions)

    fewer = 4.0**halvings
    return replace(
        problem,
        alpha=problem.alpha * (fewer if convention == "sum" else 1.0),
        tv_weight=problem.tv_weight / (fewer if convention == "mean" else 1.0),
        height=problem.height >> halvings,
        width=problem.width >> halvings,
        content=problem.content and smaller(problem.content),
        styles=tuple(map(smaller, problem.styles)),
    )


def resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """3xHxW or Bx3xHxW at another size: antialiased bicubic."""
    if pixels.shape[-2:] == (height, width):
        return pixels
    batch = pixels if pixels.dim() == 4 else pixels.unsqueeze(0)
    out = functional.interpolate(batch, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return out if pixels.dim() == 4 else out.squeeze(0)
