"""What the values of a study's keys may be: pydantic types for text, numbers, layers and lists of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
)
from pydantic_core import CoreSchema, core_schema

from nst_batch.study.mistakes import expected
from nst_batch.vocabulary import LIST_SUFFIXES, Pooling, is_list_file, is_weights_file, layer_names

MAX_SIZE = 16_384
"""Pixels of a picture's edge."""
MIN_TILE = 64
PAIRINGS = ("cross", "zip", "blend")
_WEIGHTS = re.compile(r"imagenet|imagenet_v1|random:[0-9]{1,18}")

T = TypeVar("T")


@dataclass(frozen=True)
class Listed:
    """Marks a tuple that may also be written as the single value that it would hold."""

    when_empty: tuple[Any, ...] | None = None
    """What an empty list stands for; None: it is a mistake."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._listed, handler(source))

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        listed = handler(core["schema"])
        least = {"minItems": 1} if self.when_empty is None else {}
        return {"anyOf": [listed["items"], listed | least]}

    def _listed(self, value: object) -> object:
        if not isinstance(value, list | tuple):
            return (value,)
        if not value and self.when_empty is None:
            raise expected("one value or more", value)
        return value or self.when_empty


def must(hold: Callable[[Any], bool], what: str) -> AfterValidator:
    """The check that a value is `what`, as `hold` tells."""

    def checked(value: object) -> object:
        if not hold(value):
            raise expected(what, value)
        return value

    return AfterValidator(checked)


def _is_one_line(value: str) -> bool:
    return not any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in value)


def _tile(value: object) -> object:
    number = isinstance(value, int) and not isinstance(value, bool)
    if value in ("auto", "off") or (number and MIN_TILE <= value <= MAX_SIZE):  # type: ignore[operator]
        return value
    raise expected(f"auto, off or an integer from {MIN_TILE} to {MAX_SIZE}", value)


def _list_of_weights(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise expected("a list of weights, one per style layer, as in [[1, 1, 0.5]]", value)
    if value and not any(value):
        raise ValueError("expected at least one weight above 0, found only 0")
    return value


Text = Annotated[str, must(str.strip, "text"), must(_is_one_line, "one line of text without control characters")]
Place = Annotated[str, must(_is_one_line, "one line of text without control characters")]
"""Of files; empty for none."""
Name = Annotated[Text, must(lambda value: len(value) <= 200, "at most 200 characters")]
Integer = Annotated[int, Strict()]
Number = Annotated[float, Strict(), AllowInfNan(False)]
ONE_ZERO = AfterValidator(lambda value: value + 0.0)
"""-0.0 becomes 0.0, so that equal values have one spelling."""
NotNegative = Annotated[Number, Field(ge=0), ONE_ZERO]
Names = Annotated[tuple[Text, ...], Listed(when_empty=())]
Axis = Annotated[tuple[T, ...], Listed()]
"""The values of the grid along one key."""
Layer = Annotated[Name, Field(examples=list(layer_names("vgg16")))]
LayerSets = Annotated[tuple[Annotated[tuple[Layer, ...], Listed(when_empty=())], ...], Listed(when_empty=((),))]
WeightSet = Annotated[tuple[NotNegative, ...], BeforeValidator(_list_of_weights, list[NotNegative])]
WeightSets = Annotated[tuple[WeightSet, ...], Listed(when_empty=((),))]
Pairing = Annotated[
    Text,
    must(
        lambda value: value in PAIRINGS or is_list_file(value),
        f"cross, zip, blend or a list file ({', '.join(LIST_SUFFIXES)})",
    ),
]
WeightsName = Annotated[
    Text,
    must(
        lambda value: bool(_WEIGHTS.fullmatch(value)) or is_weights_file(value),
        "imagenet, imagenet_v1, random:SEED, or the path or URL of a state dict",
    ),
]
Tile = Annotated[
    int | Literal["auto", "off"],
    BeforeValidator(_tile, Annotated[int, Field(ge=MIN_TILE, le=MAX_SIZE)] | Literal["auto", "off"]),
]
PoolingName = Annotated[
    Pooling, BeforeValidator(lambda value: "average" if value == "avg" else value, Literal[Pooling, "avg"])
]
