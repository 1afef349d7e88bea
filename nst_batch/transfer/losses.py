"""The terms of the objective, each per image: functions from B images' features to B numbers, listed in `TERMS`.

Content and style loss are equations 1 and 3 to 5 of Gatys, Ecker and Bethge, "Image style transfer using
convolutional neural networks" (CVPR 2016). F are features (BxNxhxw: N channels, M = h·w positions), T targets.
All sums are accumulated in at least float32, whatever the features' precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nst_batch.transfer.problem import Problem, TargetImage
from nst_batch.transfer.regions import Guidance, carried
from nst_batch.vocabulary import Loss


def gram_matrix(features: Tensor, guidance: Guidance | None = None) -> Tensor:
    """F·Fᵀ / M per image: BxNxN. With guidance the guided one of each of R regions, by its area: BxRxNxN.

    The paper's Gram matrix is not divided by the number of positions; its style loss divides by M² instead. To
    divide here gives the same loss where both pictures have the same size, and a meaningful one where not.
    """
    rows = position_rows(features)
    if guidance is None:
        return _products(rows) / rows.shape[1]
    grams = torch.stack([_products(guided) for _, _, guided in guidance.guided(rows)], 1)
    return grams / guidance.areas.view(-1, 1, 1)


def position_rows(features: Tensor) -> Tensor:
    """BxMxN: a view, not a copy, of features in the channels_last layout that the network uses."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def _products(rows: Tensor) -> Tensor:
    """Rᵀ·R of BxMxN: BxNxN, at least in float32."""
    if rows.is_cuda and rows.dtype in (torch.bfloat16, torch.float16):
        return torch.bmm(rows.transpose(1, 2), rows, out_dtype=torch.float32)
    return torch.bmm(rows.transpose(1, 2), rows).to(_exact(rows))


def mean_gram(grams: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The Gram matrix of features from those of parts of them, and each part's share of the positions."""
    return torch.stack([gram * share for gram, share in zip(grams, shares, strict=True)]).sum(0)


def content_loss(features: Tensor, target: Tensor, convention: Loss, weights: Tensor | None = None) -> Tensor:
    """`sum`: ½ Σ (F − T)². `mean`: the mean of (F − T)². Per image: B. Weights are of positions, hxw."""
    factor = 0.5 if convention == "sum" else 1 / features[0].numel()
    loss: Tensor = _SquaredDistance.apply(features, target, factor, weights)
    return loss


def content_weights(problem: Problem, layer: str) -> Tensor | None:
    """What each position's content loss counts at a layer, hxw; None where no region is protected.

    In a protected region every layer that is used, for the style too, is a content layer: the loss is the mean over
    all of them there, and over the content layers elsewhere.
    """
    if not (problem.labels and problem.labels.protected):
        return None
    protected = carried(problem.regions.weights(*problem.labels.protected), layer)
    elsewhere = (layer in problem.content_layers) / max(1, len(problem.content_layers))
    return elsewhere * (1 - protected) + protected / len(problem.layers)


class _SquaredDistance(torch.autograd.Function):
    """factor · Σ (F − T)², whose gradient is one pass over the features where autograd would take three."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, target: Tensor, factor: float, weights: Tensor | None) -> Tensor:
        difference = features - target
        ctx.save_for_backward(difference)
        ctx.factor, ctx.weights = factor, weights
        squares = difference.to(_exact(features)).square()
        return (squares if weights is None else squares * weights).sum((1, 2, 3)) * factor

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (difference,) = ctx.saved_tensors
        scale = (2 * ctx.factor * gradients[0]).view(-1, 1, 1, 1)
        scale = scale if ctx.weights is None else scale * ctx.weights
        return difference * scale.to(difference.dtype), None, None, None


def style_loss(features: Tensor, target: Tensor, convention: Loss, guidance: Guidance | None = None) -> Tensor:
    """Distance of a layer's Gram matrix from `target` (BxNxN or 1xNxN, from `gram_matrix`), per image: B.

    `sum`: Σ (G − G_s)² / (4 N² M²) with the paper's undivided Gram matrices. `mean`: the mean over the N²
    entries of (G − G_s)² with Gram matrices divided by N·M. With guidance (and targets of its regions, 1xRxNxN) the
    sum over the regions, by area.
    """
    loss: Tensor = _GramDistance.apply(features, target, gram_factor(features.shape[1], convention), guidance)
    return loss


def gram_factor(channels: int, convention: Loss) -> float:
    """What the style loss multiplies Σ (G − G_s)² by, with Gram matrices from `gram_matrix`."""
    return 1 / (4 * channels**2) if convention == "sum" else 1 / channels**4


def gram_loss(difference: Tensor, factor: float, guidance: Guidance | None = None) -> Tensor:
    """factor · Σ (G − G_s)² per image: B, from the differences, BxNxN or those of regions, BxRxNxN."""
    losses = difference.square().sum((-2, -1)) * factor
    return losses if guidance is None else (losses * guidance.shares).sum(1)


def gram_pull(features: Tensor, matrices: Tensor, guidance: Guidance | None = None) -> Tensor:
    """F·A per image, in the layout of F: the gradient of a Gram matrix's loss, A symmetric, BxNxN.

    With guidance, of the sum of regions' losses by area: Σ_r T_r²∘(F·A_r), A BxRxNxN. A region's share and its
    normalisation cancel: A is 4 · factor · (G − G_s) / M, as without.
    """
    rows = position_rows(features)
    if guidance is None:
        gradient = torch.bmm(rows, matrices.to(features.dtype))
    else:
        gradient = torch.zeros_like(rows)
        of_regions = matrices.to(features.dtype).unbind(1)
        for (positions, channel, guided), own in zip(guidance.guided(rows), of_regions, strict=True):
            gradient[:, positions] += torch.bmm(guided, own.expand(len(rows), -1, -1)).mul_(channel)
    batch, channels, height, width = features.shape
    return gradient.view(batch, height, width, channels).permute(0, 3, 1, 2)


class _GramDistance(torch.autograd.Function):
    """factor · Σ (F·Fᵀ/M − T)², with one matrix product in each direction where autograd would take two."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, target: Tensor, factor: float, guidance: Guidance | None) -> Tensor:
        difference = gram_matrix(features, guidance) - target
        ctx.save_for_backward(features, difference)
        ctx.factor, ctx.guidance = factor, guidance
        return gram_loss(difference, factor, guidance)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        features, difference = ctx.saved_tensors
        scale = gradients[0].view(-1, *(1,) * (difference.dim() - 1))
        scale = scale * (4 * ctx.factor / (features.shape[2] * features.shape[3]))
        return gram_pull(features, difference * scale, ctx.guidance), None, None, None


def tv_loss(images: Tensor, convention: Loss) -> Tensor:
    """Squared differences of neighbouring pixels, summed or averaged, per image: B.

    The total variation of Mahendran and Vedaldi (CVPR 2015) with β = 2.
    """
    vertical = (images[:, :, 1:] - images[:, :, :-1]).square()
    horizontal = (images[:, :, :, 1:] - images[:, :, :, :-1]).square()
    if convention == "sum":
        return vertical.sum((1, 2, 3)) + horizontal.sum((1, 2, 3))
    count = max(1, vertical[0].numel() + horizontal[0].numel())
    return (vertical.sum((1, 2, 3)) + horizontal.sum((1, 2, 3))) / count


def _exact(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


IMAGE = "image"
"""The layer, so to say, of a term that looks at the images themselves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """A part of the objective: what it compares with what, and what it weighs."""

    name: str
    """Of its columns: one of `records.TERMS`."""
    weight: Callable[[Problem], float]
    layers: Callable[[Problem], dict[str, float]]
    """Where it looks, and each layer's share."""
    loss: Callable[[Tensor, Tensor, Loss, Any], Tensor]
    """Of features (BxCxhxw), their targets (from `target`), the convention, and regions or weights: B."""
    target: Callable[[Tensor, Guidance | None], Tensor] = lambda features, _: features
    """What is kept of a picture's features."""
    pictures: Callable[[Problem], tuple[TargetImage, ...]] = lambda _: ()
    """Whose features are the target, in equal parts."""
    labels: Callable[[Problem], tuple[int, ...]] = lambda _: ()
    """Regions that have targets of their own; none where the whole picture has one."""
    weights: Callable[[Problem, str], Tensor | None] = lambda *_: None
    """What each position of a layer counts, hxw; None: all the same."""
    joined: Callable[[Sequence[Tensor], Sequence[float]], Tensor] = lambda parts, _: torch.cat(list(parts), 2)
    """A whole picture's target from those of strips of its rows and their shares of the positions."""


def _content_layers(problem: Problem) -> dict[str, float]:
    if problem.labels and problem.labels.protected:
        return dict.fromkeys(problem.layers, 1.0)  # shares are in the weights
    return dict.fromkeys(problem.content_layers, 1 / max(1, len(problem.content_layers)))


def _style_layers(problem: Problem) -> dict[str, float]:
    weights = problem.style_layer_weights or (1.0,) * len(problem.style_layers)
    return {layer: weight / sum(weights) for layer, weight in zip(problem.style_layers, weights, strict=True)}


CONTENT = Term(
    name="content",
    weight=lambda problem: problem.alpha,
    layers=_content_layers,
    loss=content_loss,
    weights=content_weights,
    pictures=lambda problem: (problem.content,) if problem.content else (),
)
STYLE = Term(
    name="style",
    weight=lambda problem: problem.beta,
    layers=_style_layers,
    loss=style_loss,
    target=gram_matrix,
    pictures=lambda problem: problem.styles,
    labels=lambda problem: problem.labels.styled if problem.labels else (),
    joined=mean_gram,
)
TV = Term(
    name="tv",
    weight=lambda problem: problem.tv_weight,
    layers=lambda problem: {IMAGE: 1.0} if problem.tv_weight else {},
    loss=lambda images, _, convention, __: tv_loss(images, convention),
)
TERMS = (CONTENT, STYLE, TV)
"""In the order of the columns. Another one is a function and an entry here, and a weight in `Problem`."""
