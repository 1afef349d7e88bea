"""How far a finished image is from its pictures at every convolution, and how far they are from each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nst_batch.records import LayerDistance
from nst_batch.transfer.losses import STYLE, gram_matrix, mean_gram
from nst_batch.transfer.problem import Problem, resized
from nst_batch.transfer.strips import Strip, visit_features
from nst_batch.transfer.targets import Targets

_TINY = torch.finfo(torch.float32).tiny  # the least that a distance is relative to


def layer_distances(targets: Targets, image: Tensor, problem: Problem) -> tuple[LayerDistance, ...]:
    """An image's (3xHxW) distances at every convolution, whatever was optimised, with the pair's baselines."""
    layers = [layer for layer in targets.network.layers if "_conv" in layer]
    pictures = [image, problem.content.pixels.to(image)] if problem.content else [image]
    styles = targets.of(STYLE, problem.styles, layers) if problem.styles else {}
    found = _compared(targets, torch.stack(pictures), layers)
    content = [found[layer].content for layer in layers]
    style = [_relative(found[layer].grams[:1], styles[layer]) for layer in layers if styles]
    unknown = [None] * len(layers)
    columns = (
        layers,
        torch.stack(content).tolist() if problem.content else unknown,
        torch.stack(style).tolist() if styles else unknown,
        *(_baselines(targets, problem, layers).tolist() if problem.content and styles else (unknown, unknown)),
    )
    return tuple(
        LayerDistance(
            layer=layer,
            content_distance=content,
            style_distance=style,
            content_baseline=content_baseline,
            style_baseline=style_baseline,
        )
        for layer, content, style, content_baseline, style_baseline in zip(*columns, strict=True)
    )


def _baselines(targets: Targets, problem: Problem, layers: list[str]) -> Tensor:
    """2xL: the style's content distance at the image's size, and the content's style distance; kept for the pair.

    Of several styles that are blended, the one nearest to the content counts, so that none of them, given back as
    it is, keeps any content.
    """
    content = problem.content
    assert content is not None
    size = (problem.height, problem.width)

    def measured() -> Tensor:
        device, grams = targets.network.device, targets.of(STYLE, problem.styles, layers)
        kept, others = resized(content.pixels.to(device), *size).clamp(0, 1), []
        for style in problem.styles:
            pair = torch.stack((resized(style.pixels.to(device), *size).clamp(0, 1), kept))
            found = _compared(targets, pair, layers)
            others.append(torch.stack([found[layer].content for layer in layers]))
        styles = torch.stack([_relative(found[layer].grams[1:], grams[layer]) for layer in layers])
        return torch.stack((torch.stack(others).amin(0), styles))

    return targets.kept(("baselines", content.key, *(style.key for style in problem.styles), *size), measured)


class _Compared(NamedTuple):
    """A batch of images, or a strip of each, at one layer."""

    difference: Tensor
    """‖F − F_c‖² of the first from the last."""
    wanted: Tensor
    """‖F_c‖² of the last."""
    grams: Tensor
    """BxNxN"""

    @property
    def content(self) -> Tensor:
        """The first's content distance from the last."""
        return self.difference / self.wanted.clamp_min(_TINY)


def _compared(targets: Targets, images: Tensor, layers: Sequence[str]) -> dict[str, _Compared]:
    """Compares images, Bx3xHxW, at every layer; large ones are looked at in strips."""
    strips: dict[str, list[tuple[_Compared, int]]] = {layer: [] for layer in layers}

    def visit(layer: str, features: Tensor, strip: Strip) -> None:
        if layer in strips:
            found, wanted = features[0].float(), features[-1].float()
            part = _Compared((found - wanted).square().sum(), wanted.square().sum(), gram_matrix(features))
            strips[layer].append((part, strip.num_rows(layer)))

    visit_features(targets.network, images, layers, visit, pixels=targets.strip_pixels)
    return {layer: _joined(parts) for layer, parts in strips.items()}


def _joined(strips: Sequence[tuple[_Compared, int]]) -> _Compared:
    """The whole from its strips and their numbers of rows."""
    parts, rows = zip(*strips, strict=True)
    difference, wanted, grams = zip(*parts, strict=True)
    shares = [count / sum(rows) for count in rows]
    return _Compared(torch.stack(difference).sum(), torch.stack(wanted).sum(), mean_gram(grams, shares))


def _relative(found: Tensor, wanted: Tensor) -> Tensor:
    """‖found − wanted‖² / ‖wanted‖², at least in float32; where nothing was wanted, by the smallest number."""
    found, wanted = found.float(), wanted.float()
    return (found - wanted).square().sum() / wanted.square().sum().clamp_min(_TINY)
