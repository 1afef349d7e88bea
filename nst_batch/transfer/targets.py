"""What images are compared with: features and Gram matrices of pictures, computed once each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nst_batch.transfer.losses import Term
from nst_batch.transfer.problem import TargetImage
from nst_batch.transfer.strips import Strip, visit_features
from nst_batch.transfer.vgg import Vgg


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
        self._cache: OrderedDict[tuple[str | int, ...], Tensor] = OrderedDict()
        self._bytes = 0

    def of(self, term: Term, pictures: Sequence[TargetImage], layers: Sequence[str]) -> dict[str, Tensor]:
        """What `term` compares with: for each layer the mean over the pictures."""
        targets = [self._of_one(term, picture, layers) for picture in pictures]
        if len(targets) == 1:
            return targets[0]
        return {layer: torch.stack([each[layer] for each in targets]).mean(0) for layer in layers}

    def _of_one(self, term: Term, picture: TargetImage, layers: Sequence[str]) -> dict[str, Tensor]:
        keys = {layer: (term.name, picture.key, layer) for layer in layers}
        found = {layer: self._cache[key] for layer, key in keys.items() if key in self._cache}
        missing = [layer for layer in layers if layer not in found]
        if missing:
            image = picture.pixels.to(self.network.device).clamp(0, 1).unsqueeze(0)
            found |= self._computed(term, image, missing)
        for layer, key in keys.items():
            self._keep(key, found[layer])
        return found

    def _computed(self, term: Term, image: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        rows: dict[str, list[int]] = {layer: [] for layer in layers}

        def visit(layer: str, features: Tensor, strip: Strip) -> None:
            if layer in parts:
                parts[layer].append(term.target(features))
                rows[layer].append(strip.num_rows(layer))

        visit_features(self.network, image, layers, visit, pixels=self.strip_pixels)
        shares = {layer: [count / sum(counts) for count in counts] for layer, counts in rows.items()}
        return {layer: own[0] if len(own) == 1 else term.joined(own, shares[layer]) for layer, own in parts.items()}

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
