"""How far a finished image is from its pictures at every convolution, and how far they are from each other."""

from __future__ import annotations

import torch
from torch import Tensor

from nst_batch.records import LayerDistance
from nst_batch.transfer.losses import STYLE, gram_matrix
from nst_batch.transfer.problem import Problem, TargetImage, resized
from nst_batch.transfer.targets import Targets


def layer_distances(targets: Targets, image: Tensor, problem: Problem) -> tuple[LayerDistance, ...]:
    """An image's (3xHxW) distances at every convolution, whatever was optimised, with the pair's baselines."""
    layers = [layer for layer in targets.network.layers if "_conv" in layer]
    pictures = [image, problem.content.pixels.to(image)] if problem.content else [image]
    with torch.no_grad():
        features = targets.network.features(torch.stack(pictures), [layers] * len(pictures))
        styles = targets.of(STYLE, problem.styles, layers) if problem.styles else {}
        content = [_relative(features[layer][0], features[layer][-1]) for layer in layers]
        style = [_relative(gram_matrix(features[layer][:1]), styles[layer]) for layer in layers if styles]
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

    def features(picture: TargetImage) -> dict[str, Tensor]:
        image = resized(picture.pixels.to(targets.network.device), *size).clamp(0, 1)
        return targets.network.features(image.unsqueeze(0), [layers])

    def measured() -> Tensor:
        with torch.no_grad():
            kept, grams = features(content), targets.of(STYLE, problem.styles, layers)
            style = torch.stack([_relative(gram_matrix(kept[layer]), grams[layer]) for layer in layers])
            others = [
                torch.stack([_relative(found[layer], kept[layer]) for layer in layers])
                for found in map(features, problem.styles)
            ]
            return torch.stack((torch.stack(others).amin(0), style))

    return targets.kept(("baselines", content.key, *(style.key for style in problem.styles), *size), measured)


def _relative(found: Tensor, wanted: Tensor) -> Tensor:
    """‖found − wanted‖² / ‖wanted‖², at least in float32; where nothing was wanted, by the smallest number."""
    found, wanted = found.float(), wanted.float()
    return (found - wanted).square().sum() / wanted.square().sum().clamp_min(torch.finfo(torch.float32).tiny)
