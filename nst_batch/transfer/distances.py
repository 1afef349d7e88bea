"""How far a finished image is from its pictures at every convolution, and how far they are from each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nst_batch.records import LayerDistance, RegionScores
from nst_batch.transfer.losses import STYLE, gram_matrix, position_rows
from nst_batch.transfer.problem import Problem, resized
from nst_batch.transfer.regions import Regions
from nst_batch.transfer.strips import Strip, visit_features
from nst_batch.transfer.targets import Targets
from nst_batch.vocabulary import conv_layers, halvings

_TINY = torch.finfo(torch.float32).tiny  # the least that a distance is relative to


def layer_distances(targets: Targets, image: Tensor, problem: Problem) -> tuple[LayerDistance, ...]:
    """An image's (3xHxW) distances at every convolution, whatever was optimised, with the pair's baselines."""
    layers = conv_layers(targets.network.arch)
    pictures = [image, problem.content.pixels.to(image)] if problem.content else [image]
    styles = targets.of(STYLE, problem.styles, layers) if problem.styles else {}
    found = _compared(targets, torch.stack(pictures), layers)
    content = [found[layer][0].content for layer in layers]
    style = [_relative(found[layer][0].grams[:1], styles[layer]) for layer in layers if styles]
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


def _baselines(targets: Targets, problem: Problem, layers: Sequence[str]) -> Tensor:
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
            others.append(torch.stack([found[layer][0].content for layer in layers]))
        styles = torch.stack([_relative(found[layer][0].grams[1:], grams[layer]) for layer in layers])
        return torch.stack((torch.stack(others).amin(0), styles))

    return targets.kept(("baselines", content.key, *(style.key for style in problem.styles), *size), measured)


def region_scores(targets: Targets, image: Tensor, problem: Problem) -> tuple[RegionScores, ...]:
    """The same of each region of an image (3xHxW), weighted by it; nothing where there are none to tell apart."""
    labels, content = problem.labels, problem.content
    if labels is None or content is None:
        return ()
    layers, names = conv_layers(targets.network.arch), (*labels.styled, *labels.protected)
    pictures = torch.stack((image, content.pixels.to(image)))
    found = _compared(targets, pictures, layers, (problem.regions, names))
    styles = targets.of(STYLE, problem.styles, layers, labels.styled)
    baselines = _region_baselines(targets, problem, layers, names).tolist()
    scores = []
    for number, label in enumerate(names):
        styled = label in labels.styled
        distances = [
            _layer_distance(layer, found[layer][number], baseline, styles[layer][:, number] if styled else None)
            for layer, baseline in zip(layers, baselines[number], strict=True)
        ]
        scores.append(RegionScores.of(label, float(problem.regions.weights(label).mean()), distances))
    return tuple(scores)


def _layer_distance(layer: str, found: _Compared, content_baseline: float, style: Tensor | None) -> LayerDistance:
    """Of a region of an image, compared with the content, and with its Gram matrix in the styles, 1xNxN."""
    return LayerDistance(
        layer=layer,
        content_distance=float(found.content),
        style_distance=None if style is None else float(_relative(found.grams[:1], style)),
        content_baseline=content_baseline,
        style_baseline=None if style is None else float(_relative(found.grams[1:], style)),
    )


def _region_baselines(targets: Targets, problem: Problem, layers: Sequence[str], names: Sequence[int]) -> Tensor:
    """RxL: the content distance, in each of the content's regions, of the nearest style that has it too.

    Where a region is protected, of the nearest style at all. Kept for the pair.
    """
    content = problem.content
    assert content is not None
    everywhere = problem.labels.protected if problem.labels else ()

    def measured() -> Tensor:
        kept, found = content.pixels.to(targets.network.device), []
        for style in problem.styles:
            pair = torch.stack((resized(style.pixels.to(kept), *kept.shape[1:]).clamp(0, 1), kept))
            pasted = _compared(targets, pair, layers, (problem.regions, names))
            distances = torch.stack([torch.stack([each.content for each in pasted[layer]]) for layer in layers], 1)
            has = [label in (*style.labels, *everywhere) for label in names]
            found.append(torch.where(kept.new_tensor(has).bool().unsqueeze(1), distances, torch.inf))
        return torch.stack(found).amin(0)

    masks = (problem.regions.key, *(style.regions.key if style.regions else "" for style in problem.styles))
    return targets.kept(("region baselines", content.key, *masks, *(s.key for s in problem.styles)), measured)


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
    targets: Targets, images: Tensor, layers: Sequence[str], of: tuple[Regions, Sequence[int]] | None = None
) -> dict[str, list[_Compared]]:
    """Compares images, Bx3xHxW, at every layer, as a whole or in these regions; large ones in strips."""
    found: dict[str, list[_Compared]] = {}

    def visit(layer: str, features: Tensor, strip: Strip) -> None:
        if layer not in layers:
            return
        if of is None:
            share = strip.num_rows(layer) / (images.shape[2] >> halvings(layer))
            parts = [_Compared.of(features, gram_matrix(features) * share)]
        else:
            guidance = targets.guidance(*of, layer).strip(strip.rows(layer))
            guided = (own for _, _, own in guidance.guided(position_rows(features)))
            grams = gram_matrix(features, guidance).unbind(1)
            parts = [_Compared.of(own, gram) for own, gram in zip(guided, grams, strict=True)]
        found[layer] = list(map(_Compared.joined, found[layer], parts)) if layer in found else parts

    visit_features(targets.network, images, layers, visit, pixels=targets.strip_pixels)
    return found


def _relative(found: Tensor, wanted: Tensor) -> Tensor:
    """‖found − wanted‖² / ‖wanted‖², at least in float32; where nothing was wanted, by the smallest number."""
    found, wanted = found.float(), wanted.float()
    return (found - wanted).square().sum() / wanted.square().sum().clamp_min(_TINY)
