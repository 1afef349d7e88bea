"""How far a finished image is from its pictures at every convolution, and how far they are from each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nst_batch.scores import LayerDistance, RegionScores
from nst_batch.transfer.losses import STYLE, gram_matrix, position_rows
from nst_batch.transfer.problem import Problem, resized
from nst_batch.transfer.regions import Regions
from nst_batch.transfer.strips import Strip, visit_features
from nst_batch.transfer.targets import Targets
from nst_batch.vocabulary import conv_layers, halvings

_TINY = torch.finfo(torch.float32).tiny  # the least that a distance is relative to


_Where = tuple[Regions, Sequence[int]] | None
"""Regions of the content and which of them; None: the whole picture."""


def layer_distances(targets: Targets, image: Tensor, problem: Problem) -> tuple[LayerDistance, ...]:
    """An image's (3xHxW) distances at every convolution, whatever was optimised, with the pair's baselines."""
    [whole] = _distances(targets, image, problem, None)
    return whole


def region_scores(targets: Targets, image: Tensor, problem: Problem) -> tuple[RegionScores, ...]:
    """How well an image (3xHxW) does in each region, weighted by it; nothing where there are none to tell apart."""
    labels = problem.labels
    if labels is None or problem.content is None:
        return ()
    names = (*labels.styled, *labels.protected)
    areas = [float(problem.regions.weights(label).mean()) for label in names]
    return tuple(map(RegionScores.of, names, areas, _distances(targets, image, problem, (problem.regions, names))))


def _distances(targets: Targets, image: Tensor, problem: Problem, where: _Where) -> list[tuple[LayerDistance, ...]]:
    """At every convolution: of the whole picture, or of each region."""
    layers, content = conv_layers(targets.network.arch), problem.content
    found = _compared(targets, [image, content.pixels] if content else [image], layers, where)
    styled = problem.labels.styled if where and problem.labels else ()
    styles = targets.of(STYLE, problem.styles, layers, styled) if problem.styles else {}
    baselines = _content_baselines(targets, problem, layers, where).tolist() if content and styles else None

    def distance(region: int, number: int, layer: str) -> LayerDistance:
        own, wanted = found[layer][region], styles.get(layer)
        if wanted is not None and where:
            wanted = wanted[:, region] if region < len(styled) else None  # the others are protected
        return LayerDistance(
            layer=layer,
            content_distance=float(own.content) if content else None,
            style_distance=None if wanted is None else _relative(own.grams[:1], wanted),
            content_baseline=baselines[region][number] if baselines else None,
            style_baseline=None if wanted is None or not content else _relative(own.grams[1:], wanted),
        )

    regions = range(len(where[1]) if where else 1)
    return [tuple(distance(region, *each) for each in enumerate(layers)) for region in regions]


def _content_baselines(targets: Targets, problem: Problem, layers: Sequence[str], where: _Where) -> Tensor:
    """RxL: the content distance of the style at the image's size; R is 1 for the whole picture. Kept for the pair.

    Of several styles the one nearest to the content counts, of those that have the region (of all, where it is
    protected), so that none of them, given back as it is, keeps any content.
    """
    content, labels = problem.content, problem.labels
    assert content is not None

    def measured() -> Tensor:
        found = []
        for style in problem.styles:
            pasted = resized(style.pixels.to(targets.network.device), problem.height, problem.width).clamp(0, 1)
            pair = _compared(targets, [pasted, content.pixels], layers, where)
            distances = torch.stack([torch.stack([each.content for each in pair[layer]]) for layer in layers], 1)
            if where and labels:
                lacking = [number for number, label in enumerate(labels.styled) if label not in style.labels]
                distances[lacking] = torch.inf
            found.append(distances)
        return torch.stack(found).amin(0)

    masks = [each.regions.key if each.regions else "" for each in (content, *problem.styles)] if where else []
    keys = (each.key for each in (content, *problem.styles))
    return targets.kept(("baselines", *keys, *masks, problem.height, problem.width), measured)


class _Compared(NamedTuple):
    """A batch of images, or a strip of each, at one layer."""

    difference: Tensor
    """‖F − F_c‖² of the first from the last."""
    wanted: Tensor
    """‖F_c‖² of the last."""
    grams: Tensor
    """BxNxN"""

    @classmethod
    def of(cls, features: Tensor, grams: Tensor) -> _Compared:
        """From features or guided ones, the images first, and their Gram matrices."""
        found, wanted = features[0].float(), features[-1].float()
        return cls((found - wanted).square().sum(), wanted.square().sum(), grams)

    def joined(self, other: _Compared) -> _Compared:
        """Of two strips together."""
        return _Compared(*(own + its for own, its in zip(self, other, strict=True)))

    @property
    def content(self) -> Tensor:
        """The first's content distance from the last."""
        return self.difference / self.wanted.clamp_min(_TINY)


def _compared(
    targets: Targets, pictures: Sequence[Tensor], layers: Sequence[str], where: _Where
) -> dict[str, list[_Compared]]:
    """Compares images, 3xHxW each, at every layer, as a whole or in regions; large ones are looked at in strips."""
    found: dict[str, list[_Compared]] = {}
    images = torch.stack([picture.to(targets.network.device, targets.network.exact_dtype) for picture in pictures])

    def visit(layer: str, features: Tensor, strip: Strip) -> None:
        if layer not in layers:
            return
        if where is None:
            share = strip.num_rows(layer) / (images.shape[2] >> halvings(layer))
            parts = [_Compared.of(features, gram_matrix(features) * share)]
        else:
            guidance = targets.guidance(*where, layer).strip(strip.rows(layer))
            guided = (own for _, _, own in guidance.guided(position_rows(features)))
            grams = gram_matrix(features, guidance).unbind(1)
            parts = [_Compared.of(own, gram) for own, gram in zip(guided, grams, strict=True)]
        found[layer] = list(map(_Compared.joined, found[layer], parts)) if layer in found else parts

    visit_features(targets.network, images, layers, visit, pixels=targets.strip_pixels)
    return found


def _relative(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖² / ‖wanted‖², at least in float32; where nothing was wanted, by the smallest number."""
    found, wanted = found.float(), wanted.float()
    return float((found - wanted).square().sum() / wanted.square().sum().clamp_min(_TINY))
