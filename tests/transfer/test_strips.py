"""Features in strips against those of the whole image, in float64."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from nst_batch.transfer.strips import Strip, visit_features
from nst_batch.vocabulary import Pooling
from tests.transfer.problems import he_network


@pytest.mark.parametrize("pooling", get_args(Pooling))
@pytest.mark.parametrize("size", [(96, 24), (97, 17), (33, 40)])
@pytest.mark.parametrize("pixels", [1, 1000, 10_000])
def test_strips_put_together_are_the_whole_layers(size: tuple[int, int], pixels: int, pooling: Pooling) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    vgg = he_network(pooling)
    layers = [name for name in vgg.layers if size[0] >> int(name[5]) and size[1] >> int(name[5])]
    found: dict[str, list[torch.Tensor]] = {}

    def visit(layer: str, features: torch.Tensor, strip: Strip) -> None:
        assert features.shape[2] == strip.num_rows(layer) > 0
        found.setdefault(layer, []).append(features)

    visit_features(vgg, images, layers, visit, pixels=pixels)
    assert len(found["block1_conv1"]) > 1 or pixels >= size[0] * size[1]
    for layer, expected in vgg.features(images, [layers] * 2).items():
        torch.testing.assert_close(torch.cat(found[layer], 2), expected, rtol=1e-10, atol=1e-10)
