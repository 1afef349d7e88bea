"""What is asked for: the pictures, layers and weights of one image that is to be found."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nst_batch.vocabulary import Init


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TargetImage:
    """A picture whose features are targets."""

    key: str
    """Equal keys mean equal pixels; targets are cached under it."""
    pixels: Tensor
    """3xHxW in [0, 1] at its full working size."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Problem:
    """One image to be found: minimise alpha · content + beta · style + tv_weight · tv."""

    height: int
    width: int
    content: TargetImage | None
    """HxW pixels; None where `content_layers` is empty and `init` is not content."""
    styles: tuple[TargetImage, ...]
    """Blended in equal parts: the target is the mean of their Gram matrices."""
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

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer that the objective looks at."""
        return tuple(dict.fromkeys((*self.content_layers, *self.style_layers)))


def initial_image(problem: Problem, device: torch.device) -> Tensor:
    """3xHxW: the content, the style at the content's size, or noise around mid grey."""
    size = problem.height, problem.width
    if problem.init == "noise":
        generator = torch.Generator().manual_seed(problem.seed)
        return (0.5 + 0.1 * torch.randn(3, *size, generator=generator)).clamp(0, 1).to(device)
    picture = problem.content if problem.init == "content" else problem.styles[0]
    assert picture is not None
    return resized(picture.pixels.to(device), *size).clamp(0, 1)


def resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """3xHxW or Bx3xHxW at another size: antialiased bicubic."""
    if pixels.shape[-2:] == (height, width):
        return pixels
    batch = pixels if pixels.dim() == 4 else pixels.unsqueeze(0)
    out = functional.interpolate(batch, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return out if pixels.dim() == 4 else out.squeeze(0)
