"""Text on pictures: one font in any size, wrapped and cut to a width.

It is the font that comes with Pillow (Aileron, ASCII and a little more), so that text is the same on every machine.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

_INK: Color = (32, 34, 38)
_FINER = 4
_BREAK_AFTER = "_/,.=+-"
_ELLIPSIS = "…"
_IN_THE_FONT = _ELLIPSIS + "·°“”’"
_SPELLINGS = str.maketrans(
    {"×": "x", "–": "-", "—": "-", "−": "-", "α": "alpha", "β": "beta", "γ": "gamma", "→": "->", "‘": "'"}
)


@dataclass(frozen=True, slots=True)
class Font:
    """The font in one size and colour, drawn finer and reduced: set directly, its hinting eats the spaces."""

    face: ImageFont.FreeTypeFont | ImageFont.ImageFont
    line: int
    """Pixels from one line to the next."""
    ink: Color

    @classmethod
    def of_size(cls, size: float, ink: Color = _INK) -> Font:
        return cls(ImageFont.load_default(_FINER * size), round(1.3 * size), ink)

    def fits(self, text: str, width: int) -> bool:
        return self.face.getlength(text) <= _FINER * width


def write(draw: ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[str], font: Font) -> None:
    """Draws lines below each other; `corner` is the first one's left and top in pixels."""
    left, top = corner
    for index, line in enumerate(lines):
        width = math.ceil(font.face.getlength(line) / _FINER) + 2
        mask = Image.new("L", (_FINER * width, _FINER * font.line))
        ImageDraw.Draw(mask).text((0, 0), line, fill=255, font=font.face)
        draw.bitmap((left, top + index * font.line), mask.reduce(_FINER), fill=font.ink)


def wrapped(text: str, font: Font, width: int, max_lines: int) -> list[str]:
    """`text` in lines of at most `width` pixels; an ellipsis stands for what does not fit `max_lines`."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in _spelled(paragraph).split():
            joined = f"{line} {word}".lstrip()
            if font.fits(joined, width):
                line = joined
            else:
                *full, line = [*filter(None, [line]), *_broken(word, font, width)]
                lines += full
        lines.append(line)
    if len(lines) > max_lines:
        lines = lines[:max_lines]
        while lines and lines[-1] and not font.fits(lines[-1] + _ELLIPSIS, width):
            lines[-1] = lines[-1][:-1]
        lines[-1:] = [line + _ELLIPSIS for line in lines[-1:]]
    return lines


def _broken(word: str, font: Font, width: int) -> Iterator[str]:
    """A word in pieces of at most `width` pixels, broken after punctuation where there is some."""
    while not font.fits(word, width) and len(word) > 1:
        end = next(end for end in range(len(word) - 1, 0, -1) if end == 1 or font.fits(word[:end], width))
        natural = max(word.rfind(mark, 0, end) for mark in _BREAK_AFTER) + 1
        end = natural or end
        yield word[:end]
        word = word[end:]
    yield word


def _spelled(text: str) -> str:
    """`text` in characters that the font has: accents are dropped, what remains becomes a question mark."""
    plain = text.translate(_SPELLINGS)
    letters = (
        char
        if char in _IN_THE_FONT
        else unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode() or "?"
        for char in plain
    )
    return "".join(letters)
