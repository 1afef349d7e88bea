"""What is chosen where memory is short."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nst_batch.inputs.fitting import fitting, held_bytes, operations
from nst_batch.vocabulary import MemoryLayout
from tests import simulated
from tests.transfer.problems import STYLE_LAYERS

GIB = 1 << 30
CHOSEN = simulated.configuration(content_layers=(), style_layers=STYLE_LAYERS)


def predicted(height: int, width: int, layout: MemoryLayout) -> int:
    return held_bytes("vgg16", STYLE_LAYERS, height, width, layout)


def test_what_fits_is_held_whole() -> None:
    assert fitting(CHOSEN, 1024, 1024, 16 * GIB) == MemoryLayout()


@pytest.mark.parametrize("size", [(1024, 1024), (2048, 1365), (2731, 4096), (4096, 2731)])
@pytest.mark.parametrize("available", [1 * GIB, 4 * GIB, 11 * GIB, 60 * GIB])
def test_what_is_chosen_fits_or_is_the_least(size: tuple[int, int], available: int) -> None:
    chosen = fitting(CHOSEN, *size, available)
    least = fitting(CHOSEN, *size, 0)
    assert predicted(*size, chosen) <= max(available, predicted(*size, least))


def test_strips_come_before_short_pairs_and_short_pairs_before_few() -> None:
    chosen = [fitting(CHOSEN, 2731, 4096, gib * GIB) for gib in (76, 40, 28, 16, 9)]
    assert [fit.tile > 0 for fit in chosen] == [False, True, True, True, True]
    assert [fit.pair_precision for fit in chosen] == ["float32", "float32", "float32", "bfloat16", "bfloat16"]
    assert [fit.num_pairs for fit in chosen] == [60, 60, 60, 60, 20]


def test_what_the_user_asks_for_is_kept() -> None:
    assert fitting(CHOSEN, 1024, 1024, 64 * GIB, tile=128).tile == 128
    assert fitting(CHOSEN, 1024, 1024, 1 * GIB, tile=0).tile == 0


def test_half_the_memory_in_strips_at_1024() -> None:
    assert predicted(1024, 1024, MemoryLayout(tile=256)) < 0.7 * predicted(1024, 1024, MemoryLayout())


def test_no_more_pairs_than_steps_are_reckoned_with() -> None:
    assert fitting(replace(CHOSEN, steps=8), 1024, 1024, 16 * GIB).num_pairs == 8
    few = MemoryLayout(num_pairs=0)
    assert predicted(512, 512, few) == predicted(512, 512, MemoryLayout()) - 60 * 2 * 3 * 512 * 512 * 4


def test_work_grows_with_depth_and_pixels() -> None:
    shallow, middle, deep = (
        simulated.configuration(content_layers=(layer,), style_layers=())
        for layer in ("block1_conv1", "block3_conv1", "block5_conv3")
    )
    assert operations(shallow, 64, 64) < operations(middle, 64, 64) < operations(deep, 64, 64)
    assert operations(deep, 64, 128) == 2 * operations(deep, 64, 64)


def test_strips_cost_what_is_computed_again() -> None:
    whole = operations(CHOSEN, 1024, 1024)
    costs = [operations(CHOSEN, 1024, 1024, tile) / whole for tile in (0, 512, 256, 64)]
    assert costs == sorted(costs)
    assert costs[0] == 1
    assert 1.1 < costs[2] < 1.3
