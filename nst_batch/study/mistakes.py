"""What is wrong with a study: every mistake with its key, what was expected there and what was found.

pydantic finds the mistakes; what it expected is read from the JSON Schema that `nst-batch schema` prints, so the
message and the schema cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from nst_batch.errors import StudyError

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the root of a study: `("grid", "alpha", 1)` is `grid.alpha[1]`."""
Schema = Mapping[str, Any]
"""JSON Schema."""

_BOUNDS = {
    "minimum": "of at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"
}  # fmt: skip


class Mistake(NamedTuple):
    """One thing that is wrong, and where."""

    path: KeyPath
    message: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}" if self.path else self.message


class MistakesError(StudyError):
    """A study with mistakes: all of them."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__([str(mistake) for mistake in mistakes])

    def __reduce__(self) -> tuple[type[MistakesError], tuple[tuple[Mistake, ...]]]:
        return MistakesError, (self.mistakes,)


def expected(what: str, value: object) -> ValueError:
    """The error that a check of ours raises."""
    return ValueError(f"expected {what}, found {shown(value)}")


def found_by_pydantic(error: ValidationError, schema: Schema) -> list[Mistake]:
    """pydantic's errors of a study's fields in our words; `schema` is the study's."""
    return [Mistake(each["loc"], _message(each, schema)) for each in error.errors(include_url=False)]


def _message(details: ErrorDetails, schema: Schema) -> str:
    match details["type"]:
        case "value_error":  # a check of ours
            return str(details["ctx"]["error"])
        case "unexpected_keyword_argument":
            return _unknown(str(details["loc"][-1]), _at(details["loc"][:-1], schema), schema)
    what, value = _described(_at(details["loc"], schema)), details["input"]
    if details["type"] == "missing":
        return f"expected {what}, found no such key"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    hint = "; write it in quotes" if what == "text" and is_number else ""
    return f"expected {what}, found {shown(value)}{hint}"


def _at(path: KeyPath, schema: Schema) -> Schema:
    """The part of the schema that speaks of the value at `path`."""
    here = schema
    for step in (*path, None):
        if "$ref" in here:
            here = schema["$defs"][here["$ref"].rsplit("/", 1)[-1]]
        if "anyOf" in here:  # one value, or the list of several
            here = here["anyOf"][-1]
        if step is not None:
            here = here["items"] if isinstance(step, int) else here.get("properties", {}).get(step, {})
    return here


def _described(schema: Schema) -> str:
    """`a number of at least 0 and below 1`, `crop or keep`."""
    if words := schema.get("enum"):
        return f"{', '.join(words[:-1])} or {words[-1]}"
    match schema.get("type"):
        case "integer":
            return f"an integer from {schema['minimum']} to {schema['maximum']}"
        case "number":
            return "a number " + " and ".join(f"{_BOUNDS[key]} {schema[key]:g}" for key in _BOUNDS if key in schema)
        case "object":
            return f"keys such as {', '.join(list(schema['properties'])[:3])}"
    return "text"


def _unknown(key: str, section: Schema, schema: Schema) -> str:
    """The message for an unknown key: the near one, or where it belongs, or all that there are."""
    names = list(section["properties"])
    elsewhere = {
        inner: f"{name}.{inner}"
        for name in schema["properties"]
        for inner in _at((name,), schema).get("properties", ())
    } | {name: name for name in schema["properties"]}
    meant = (*get_close_matches(key.lower(), names, n=1), elsewhere.get(key))[0]
    return f"unknown key; did you mean {meant!r}?" if meant else f"unknown key; the keys are {', '.join(names)}"


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
    return "".join(f"[{step}]" if isinstance(step, int) else f".{_word(step)}" for step in path).removeprefix(".")


def _word(key: str) -> str:
    text = key if key.isprintable() else ascii(key)
    return text if len(text) <= 60 else f"{text[:59]}…"
