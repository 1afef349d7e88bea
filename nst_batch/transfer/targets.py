"""What images are compared with: features and Gram matrices of pictures, computed once each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from nst_batch.transfer.losses import Term
from nst_batch.transfer.problem import Problem, TargetImage
from nst_batch.transfer.regions import Guidance, Regions, carried, whole
from nst_batch.transfer.strips import Strip, visit_features
from nst_batch.transfer.vgg import Vgg
from nst_batch.vocabulary import halvings


class _Sized(Protocol):
    """What knows how much it holds: tensors do."""

    @property
    def nbytes(self) -> int: ...


_Kept = TypeVar("_Kept", bound=_Sized)


class Targets:
    """Content features and style Gram matrices, computed once per picture and layer.

    Args:
        network: What computes them.
        limit_bytes: What the cache may hold; the least recently used targets make way.
        judge: A network in float32, where `network` computes more coarsely.
        strip_pixels: A larger picture's features are computed in strips of so many pixels at most.
    """

    def __init__(
        self, network: Vgg, limit_bytes: int = 1 << 30, judge: Vgg | None = None, *, strip_pixels: int = 1 << 20
    ) -> None:
        self.network, self.limit_bytes, self.strip_pixels = network, limit_bytes, strip_pixels
        self.judge = Targets(judge, limit_bytes, strip_pixels=strip_pixels) if judge else self
        """What finished images are judged by; these targets themselves where they are exact enough."""
        self._cache: OrderedDict[tuple[str | int, ...], Any] = OrderedDict()
        self._bytes = 0

    def of(
        self, term: Term, pictures: Sequence[TargetImage], layers: Sequence[str], labels: Sequence[int] = ()
    ) -> dict[str, Tensor]:
        """What `term` compares with: for each layer the mean over the pictures.

        Args:
            labels: Of regions that have targets of their own: for each layer they are stacked as 1xRx…, each the
                mean over the pictures that have the region.
        """
        if not labels:
            return _mean([self._of_one(term, picture, layers, None) for picture in pictures])
        regions = [
            _mean([self._of_one(term, picture, layers, label) for picture in pictures if label in picture.labels])
            for label in labels
        ]
        return {layer: torch.cat([region[layer] for region in regions], 1) for layer in layers}

    def wanted(self, term: Term, problem: Problem) -> dict[str, Tensor]:
        """What `term` compares a problem's image with, at each of its layers; nothing where it needs no picture."""
        pictures = term.pictures(problem)
        return self.of(term, pictures, tuple(term.layers(problem)), term.labels(problem)) if pictures else {}

    def _of_one(
        self, term: Term, picture: TargetImage, layers: Sequence[str], label: int | None
    ) -> dict[str, Tensor]:
        region = () if label is None else (picture.regions.key if picture.regions else "", label)
        keys = {layer: (term.name, picture.key, *region, layer) for layer in layers}
        found = {layer: self._cache[key] for layer, key in keys.items() if key in self._cache}
        missing = [layer for layer in layers if layer not in found]
        if missing:
            found |= self._computed(term, picture, missing, label)
        for layer, key in keys.items():
            self._keep(key, found[layer])
        return found

    def _computed(
        self, term: Term, picture: TargetImage, layers: Sequence[str], label: int | None
    ) -> dict[str, Tensor]:
        network, regions = self.network, picture.regions or whole(*picture.pixels.shape[1:])
        parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        rows: dict[str, list[int]] = {layer: [] for layer in layers}

        def visit(layer: str, features: Tensor, strip: Strip) -> None:
            if layer in parts:
                guidance = None
                if label is not None:
                    guidance = self.guidance(regions, (label,), layer).strip(strip.rows(layer))
                parts[layer].append(term.target(features, guidance))
                rows[layer].append(strip.num_rows(layer))

        image = picture.pixels.to(network.device).clamp(0, 1).unsqueeze(0)
        visit_features(network, image, layers, visit, pixels=self.strip_pixels)
        joined = {}
        for layer, own in parts.items():
            # Guided Gram matrices of strips are by the area of the whole region already.
            shares = [count / sum(rows[layer]) if label is None else 1.0 for count in rows[layer]]
            joined[layer] = own[0] if len(own) == 1 else term.joined(own, shares)
        return joined

    def part(self, term: Term, problem: Problem, layer: str) -> Guidance | Tensor | None:
        """In which regions a layer's positions count for `term`, or how much, hxw; None: all of them, equally."""
        if labels := term.labels(problem):
            return self.guidance(problem.regions, labels, layer)
        weights = term.weights(problem, layer)
        return None if weights is None else weights.to(self.network.device, self.network.exact_dtype)

    def guidance(self, regions: Regions, labels: Sequence[int], layer: str) -> Guidance:
        """The guidance channels of some of a picture's regions at a layer; kept."""

        def made() -> Guidance:
            planes = [regions.weights(label).to(self.network.device) for label in labels]
            return Guidance.of([carried(plane, layer) for plane in planes], self.network.dtype)

        return self.kept(("guidance", regions.key, halvings(layer), *labels), made)

    def kept(self, key: tuple[str | int, ...], make: Callable[[], _Kept]) -> _Kept:
        """What is in the cache under `key`, made if it is not there."""
        found = self._cache[key] if key in self._cache else make()
        self._keep(key, found)
        return found

    def _keep(self, key: tuple[str | int, ...], tensor: _Sized) -> None:
        if key not in self._cache:
            self._bytes += tensor.nbytes
        self._cache[key] = tensor
        self._cache.move_to_end(key)
        while self._bytes > self.limit_bytes and len(self._cache) > 1:
            self._bytes -= self._cache.popitem(last=False)[1].nbytes


def _mean(targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of several pictures', layer by layer."""
    if len(targets) == 1:
        return targets[0]
    return {layer: torch.stack([each[layer] for each in targets]).mean(0) for layer in targets[0]}
