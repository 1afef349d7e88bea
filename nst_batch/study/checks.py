"""Small checks that compose: each takes a value as it was written and returns it typed, or says what it expected.

A check is a function of one value that raises `UnfitError`, which holds every problem with its path below the
value, so that a list with three wrong entries is three problems, and a whole study can be reported at once.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, get_args

T = TypeVar("T")
Check = Callable[[object], T]
KeyPath = tuple[str | int, ...]
"""Keys and list positions from the root of a study: `("grid", "alpha", 1)` is `grid.alpha[1]`."""


class Problem(NamedTuple):
    """One thing that is wrong, and where."""

    path: KeyPath
    message: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}" if self.path else self.message


class UnfitError(ValueError):
    """A value that fails its check.

    Args:
        problems: Each with its path below the checked value.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))

    def under(self, *path: str | int) -> list[Problem]:
        """The problems as seen from further up."""
        return [Problem((*path, *problem.path), problem.message) for problem in self.problems]


def expected(what: str, value: object) -> UnfitError:
    """The error that every check raises: what was expected, what was found."""
    return UnfitError([Problem((), f"expected {what}, found {shown(value)}")])


def shown(value: object) -> str:
    """A value as a message shows it: short, on one line, in YAML's words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        return "keys"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}…{text[-1]}"


def dotted(path: KeyPath) -> str:
    """`grid.alpha[1]`; what cannot be printed is escaped."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{_printable(step)}" for step in path)
    return "".join(steps).removeprefix(".")


def _printable(key: str) -> str:
    text = key if key.isprintable() else ascii(key)
    return text if len(text) <= 60 else f"{text[:59]}…"


def alternatives(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def integer(low: int, high: int) -> Check[int]:
    """A whole number from `low` to `high`; true and false are not numbers."""

    def check(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise expected(f"an integer from {low} to {high}", value)

    return check


def number(
    low: float = -math.inf, high: float = math.inf, *, above: float = -math.inf, below: float = math.inf
) -> Check[float]:
    """A finite number: `low` and `high` belong to the range, `above` and `below` do not."""
    bounds = (
        f"of at least {low:g}" if low > -math.inf else "",
        f"above {above:g}" if above > -math.inf else "",
        f"at most {high:g}" if high < math.inf else "",
        f"below {below:g}" if below < math.inf else "",
    )
    what = f"a number {' and '.join(filter(None, bounds))}".rstrip()

    def check(value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                found = float(value) + 0.0  # one spelling of zero: -0.0 becomes 0.0
            except OverflowError:
                found = math.inf
            if math.isfinite(found) and low <= found <= high and above < found < below:
                return found
        raise expected(what, value)

    return check


def choice(literal: Any) -> Check[str]:
    """One of the words of a `Literal` type."""
    words = get_args(literal)

    def check(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise expected(alternatives(words), value)

    return check


def text(value: object) -> str:
    """One line of text that is not blank."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise UnfitError([Problem((), f"expected text, found {shown(value)}; write it in quotes")])
    if not isinstance(value, str) or not value.strip():
        raise expected("text", value)
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in value):
        raise expected("one line of text without control characters", value)
    return value


def list_of(entry: Check[T]) -> Check[tuple[T, ...]]:
    """A list, possibly empty; a single value stands for the list that holds it."""

    def check(value: object) -> tuple[T, ...]:
        entries: list[T] = []
        problems: list[Problem] = []
        for index, each in enumerate(value if isinstance(value, list | tuple) else (value,)):
            try:
                entries.append(entry(each))
            except UnfitError as unfit:
                problems += unfit.under(index)
        if problems:
            raise UnfitError(problems)
        return tuple(entries)

    return check


def axis(entry: Check[T], *, when_empty: tuple[T, ...] = ()) -> Check[tuple[T, ...]]:
    """A list of one value or more to vary; an empty one means `when_empty`, if that holds anything."""
    entries = list_of(entry)

    def check(value: object) -> tuple[T, ...]:
        values = entries(value) or when_empty
        if not values:
            raise expected("one value or more", value)
        return values

    return check


def as_written(path: KeyPath, values: object) -> KeyPath:
    """The path without positions that the writer did not write: the value stood for a list of one."""
    for depth, step in enumerate(path):
        if isinstance(step, int):
            if not isinstance(values, list | tuple) or step >= len(values):
                return path[:depth]
            values = values[step]
        else:
            values = values.get(step) if isinstance(values, dict) else None
    return path
