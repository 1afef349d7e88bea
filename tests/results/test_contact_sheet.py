from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nst_batch.results.contact_sheet import MAX_WIDTH, Font, contact_sheet
from nst_batch.results.pictures import Tile
from tests.pictures import gradient

RED, BLUE = (255, 0, 0), (0, 0, 255)
FONT = Font(14)


def patches(sheet: Image.Image, color: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Left and top of each rectangle of exactly this colour, in reading order."""
    mask = (np.asarray(sheet) == color).all(axis=-1)
    padded = np.pad(mask, ((1, 0), (1, 0)))
    corners = mask & ~padded[:-1, 1:] & ~padded[1:, :-1]
    return [(int(x), int(y)) for y, x in np.argwhere(corners)]


def swatch(color: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Tile:
    return Tile(Image.new("RGB", size, color))


def test_tiles_stand_in_their_rows_and_columns() -> None:
    sheet = contact_sheet(
        [[swatch(RED), swatch(BLUE)], [swatch(BLUE), swatch(RED)]],
        column_labels=["one", "two"],
        row_labels=["above", "below"],
        title="title",
        caption="caption",
        tile_edge=64,
    )
    (left, top), (right, bottom) = patches(sheet, RED)
    assert left < right
    assert top < bottom
    assert patches(sheet, BLUE) == [(right, top), (left, bottom)]
    assert (np.asarray(sheet)[top : top + 64, left : left + 64] == RED).all()


def test_pictures_keep_their_proportions() -> None:
    sheet = contact_sheet([[swatch(RED, (40, 10)), swatch(BLUE, (1, 4000))]], tile_edge=64)
    pixels = np.asarray(sheet)
    assert (pixels == RED).all(axis=-1).sum() == 64 * 16
    assert (pixels == BLUE).all(axis=-1).sum() == 64


def test_a_sheet_is_the_same_every_time() -> None:
    def draw() -> bytes:
        return contact_sheet([[Tile(gradient(), "caption"), Tile(None)]], column_labels=["a", "b"]).tobytes()

    assert draw() == draw()


def test_a_failed_trial_shows_its_reason_and_no_picture() -> None:
    def draw(reason: str) -> Image.Image:
        return contact_sheet([[swatch(RED), Tile(None, reason)]], tile_edge=96)

    assert draw("").size == draw("diverged " * 100).size
    assert draw("").tobytes() != draw("diverged at step 12").tobytes()
    assert len(patches(draw("diverged"), RED)) == 1


@pytest.mark.parametrize("columns", [1, 24, 60])
def test_sheets_are_never_too_wide_and_show_every_tile(columns: int) -> None:
    row = [swatch(BLUE), *(swatch(RED) for _ in range(columns))]
    labels = ["content", *(f"block4_conv{number}" for number in range(columns))]
    sheet = contact_sheet([row], column_labels=labels, row_labels=["a pair"], repeated_columns=1)
    assert sheet.width <= MAX_WIDTH
    assert len(patches(sheet, RED)) == columns
    bands = len({top for _, top in patches(sheet, RED)})
    assert len(patches(sheet, BLUE)) == bands  # the content picture is there in every band
    assert (bands > 1) == (columns > 1 and columns * 256 > MAX_WIDTH)


@given(text=st.text(max_size=80), width=st.integers(20, 300), max_lines=st.integers(0, 4))
def test_text_stays_within_its_block(text: str, width: int, max_lines: int) -> None:
    block = FONT.block(text, width, max_lines)
    assert block.width == width
    assert block.height <= max_lines * FONT.line


def test_long_text_is_broken_between_words_and_cut_with_an_ellipsis() -> None:
    assert FONT.wrap("content block4_conv2", 110, 9) == ["content", "block4_conv2"]
    assert FONT.wrap("one two three", 60, 1) == ["one two…"]
    assert FONT.wrap("300×300 · α 0.5 · Café 東京", 400, 1) == ["300x300 · alpha 0.5 · Cafe ??"]
    assert "".join(FONT.wrap("a" * 100, 100, 99)) == "a" * 100
