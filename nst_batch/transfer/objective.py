"""What is minimised: the problems of a batch, their targets, and the losses and gradient at a batch of images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nst_batch.transfer.losses import content_loss, gram_matrix, style_loss, tv_loss
from nst_batch.transfer.vgg import Vgg
from nst_batch.vocabulary import Init, Loss


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Picture:
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
    content: Picture | None
    """HxW pixels; None where `content_layers` is empty and `init` is not content."""
    styles: tuple[Picture, ...]
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


def resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """3xHxW or Bx3xHxW at another size: antialiased bicubic."""
    if pixels.shape[-2:] == (height, width):
        return pixels
    batch = pixels if pixels.dim() == 4 else pixels.unsqueeze(0)
    out = functional.interpolate(batch, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return out if pixels.dim() == 4 else out.squeeze(0)


class Targets:
    """Content features and style Gram matrices, computed once per picture, size and layer.

    Args:
        network: What computes them.
        limit_bytes: What the cache may hold; the least recently used targets make way.
    """

    def __init__(self, network: Vgg, limit_bytes: int = 1 << 30) -> None:
        self.network, self.limit_bytes = network, limit_bytes
        self._cache: OrderedDict[tuple[str | int, ...], Tensor] = OrderedDict()
        self._bytes = 0

    def content(self, picture: Picture, size: tuple[int, int], layers: Sequence[str]) -> dict[str, Tensor]:
        """Features of the picture at `size` (height, width): 1xCxhxw for each layer."""
        return self._get("content", picture, size, layers, lambda features: features)

    def style(self, pictures: Sequence[Picture], scale: float, layers: Sequence[str]) -> dict[str, Tensor]:
        """Gram matrices of the pictures at `scale` times their size, averaged: 1xNxN for each layer."""
        grams = []
        for picture in pictures:
            size = tuple(max(1, round(side * scale)) for side in picture.pixels.shape[1:])
            grams.append(self._get("style", picture, (size[0], size[1]), layers, gram_matrix))
        if len(grams) == 1:
            return grams[0]
        return {layer: torch.stack([gram[layer] for gram in grams]).mean(0) for layer in layers}

    def _get(
        self,
        kind: str,
        picture: Picture,
        size: tuple[int, int],
        layers: Sequence[str],
        target: Callable[[Tensor], Tensor],
    ) -> dict[str, Tensor]:
        keys = {layer: (kind, picture.key, *size, layer) for layer in layers}
        found = {layer: self._cache[key] for layer, key in keys.items() if key in self._cache}
        missing = [layer for layer in layers if layer not in found]
        if missing:
            image = resized(picture.pixels.to(self.network.device), *size).clamp(0, 1).unsqueeze(0)
            with torch.no_grad():
                features = self.network.features(image, [missing])
            found |= {layer: target(features[layer]) for layer in missing}
        for layer, key in keys.items():
            self._keep(key, found[layer])
        return found

    def kept(self, key: tuple[str | int, ...], make: Callable[[], Tensor]) -> Tensor:
        """The tensor under `key`, made if it is not in the cache."""
        tensor = self._cache[key] if key in self._cache else make()
        self._keep(key, tensor)
        return tensor

    def _keep(self, key: tuple[str | int, ...], tensor: Tensor) -> None:
        if key not in self._cache:
            self._bytes += tensor.nbytes
        self._cache[key] = tensor
        self._cache.move_to_end(key)
        while self._bytes > self.limit_bytes and len(self._cache) > 1:
            self._bytes -= self._cache.popitem(last=False)[1].nbytes


@dataclass(frozen=True, slots=True)
class _Term:
    """One layer's part in one of the losses."""

    layer: str
    rows: Tensor | slice
    weights: Tensor
    target: Tensor


class Objective:
    """The losses of a batch of problems as a function of their images.

    Args:
        targets: Where the targets come from; its network computes the features.
        problems: Ordered deepest first (see `Vgg.features`).
        size: Height and width at which to work.
        scale: That size relative to the full one. The content loss, a sum over positions, is multiplied by
            1 / scale² in the `sum` convention, so that a coarse objective weighs content as the full one does.
        convention: `sum` or `mean`.
    """

    def __init__(
        self,
        targets: Targets,
        problems: Sequence[Problem],
        *,
        size: tuple[int, int],
        scale: float,
        convention: Loss,
    ) -> None:
        self.network, self.problems, self.size, self.convention = targets.network, problems, size, convention
        device, dtype = self.network.device, self.network.exact_dtype

        def column(values: Sequence[object]) -> Tensor:
            return torch.tensor(values, device=device, dtype=dtype)

        def terms(wanted: Callable[[Problem], dict[str, float]], target: Callable[..., Tensor]) -> list[_Term]:
            weights = [wanted(problem) for problem in problems]
            used = sorted({layer for own in weights for layer in own}, key=self.network.layers.index)
            found = []
            for layer in used:
                rows = [row for row, own in enumerate(weights) if layer in own]
                found.append(
                    _Term(
                        layer,
                        slice(len(rows)) if rows[-1] == len(rows) - 1 else torch.tensor(rows, device=device),
                        column([weights[row][layer] for row in rows]),
                        _stacked([target(problems[row], layer) for row in rows]),
                    )
                )
            return found

        self._content = terms(
            lambda problem: dict.fromkeys(problem.content_layers, 1 / max(1, len(problem.content_layers))),
            lambda problem, layer: targets.content(problem.content, size, problem.content_layers)[layer],
        )
        self._style = terms(
            style_weights,
            lambda problem, layer: targets.style(problem.styles, scale, problem.style_layers)[layer],
        )
        self._tv = convention if any(problem.tv_weight for problem in problems) else None
        area = scale**2 if convention == "sum" else 1.0
        self._factors = column([[p.alpha / area, p.beta, p.tv_weight] for p in problems])

    def terms(self, images: Tensor) -> Tensor:
        """Content, style, tv and total loss at Bx3xHxW images: Bx4, differentiable."""
        features = self.network.features(images, [problem.layers for problem in self.problems])
        zero = images.new_zeros(len(images))
        content, style = zero, zero
        for term in self._content:
            loss = content_loss(_of(features[term.layer], term.rows), term.target, self.convention)
            content = _added(content, term.rows, loss * term.weights)
        for term in self._style:
            loss = style_loss(_of(features[term.layer], term.rows), term.target, self.convention)
            style = _added(style, term.rows, loss * term.weights)
        tv = tv_loss(images, self._tv) if self._tv else zero
        parts = torch.stack((content, style, tv), 1)
        return torch.cat((parts, (parts * self._factors).sum(1, keepdim=True)), 1)

    def losses_and_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """At flattened images, BxD: the four losses, Bx4, and the gradient of each image's total, BxD."""
        images = points.detach().view(-1, 3, *self.size).requires_grad_()
        terms = self.terms(images)
        (gradient,) = torch.autograd.grad(terms[:, 3].sum(), images)
        return terms.detach(), gradient.flatten(1)


def style_weights(problem: Problem) -> dict[str, float]:
    """The weight of each style layer; they sum to one."""
    weights = problem.style_layer_weights or (1.0,) * len(problem.style_layers)
    return {layer: weight / sum(weights) for layer, weight in zip(problem.style_layers, weights, strict=True)}


def _stacked(targets: Sequence[Tensor]) -> Tensor:
    """One target for all where they are the same one (a grid on one pair), else one for each."""
    same = all(target is targets[0] for target in targets)
    return targets[0] if same else torch.cat(list(targets))


def _of(features: Tensor, rows: Tensor | slice) -> Tensor:
    """These rows; all of them as they are, because the gradient of a slice is a copy into zeros."""
    return features if isinstance(rows, slice) and rows.stop == len(features) else features[rows]


def _added(total: Tensor, rows: Tensor | slice, values: Tensor) -> Tensor:
    if isinstance(rows, slice):
        return total + functional.pad(values, (0, len(total) - len(values)))
    return total.index_add(0, rows, values)
