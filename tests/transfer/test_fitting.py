"""What is chosen where memory is short."""

from __future__ import annotations

import pytest

from nst_batch.transfer.fitting import Fit, fitting, held_bytes
from tests.transfer.problems import STYLE_LAYERS

GIB = 1 << 30


def predicted(height: int, width: int, fit: Fit) -> int:
    return held_bytes("vgg16", STYLE_LAYERS, height, width, fit)


def test_what_fits_is_held_whole() -> None:
    assert fitting("vgg16", STYLE_LAYERS, 1024, 1024, 16 * GIB) == Fit()


@pytest.mark.parametrize("size", [(1024, 1024), (2048, 1365), (2731, 4096), (4096, 2731)])
@pytest.mark.parametrize("available", [1 * GIB, 4 * GIB, 11 * GIB, 60 * GIB])
def test_what_is_chosen_fits_or_is_the_least(size: tuple[int, int], available: int) -> None:
    chosen = fitting("vgg16", STYLE_LAYERS, *size, available)
    least = fitting("vgg16", STYLE_LAYERS, *size, 0)
    assert predicted(*size, chosen) <= max(available, predicted(*size, least))


def test_strips_come_before_short_pairs_and_short_pairs_before_few() -> None:
    chosen = [fitting("vgg16", STYLE_LAYERS, 2731, 4096, gib * GIB) for gib in (64, 40, 24, 13, 8)]
    assert [fit.tile > 0 for fit in chosen] == [False, True, True, True, True]
    assert [fit.pair_precision for fit in chosen] == ["float32", "float32", "float32", "bfloat16", "bfloat16"]
    assert [fit.num_pairs for fit in chosen[:4]] == [60, 60, 60, 60]
    assert chosen[4].num_pairs < 60


def test_what_the_user_asks_for_is_kept() -> None:
    assert fitting("vgg16", STYLE_LAYERS, 1024, 1024, 64 * GIB, tile=128).tile == 128
    assert fitting("vgg16", STYLE_LAYERS, 1024, 1024, 1 * GIB, tile=0).tile == 0


def test_half_the_memory_in_strips_at_1024() -> None:
    assert predicted(1024, 1024, Fit(tile=256)) < 0.7 * predicted(1024, 1024, Fit())
