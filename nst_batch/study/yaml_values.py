"""Text to plain values, knowing the line of each: YAML 1.2 as a study file needs it, and nothing else.

ruamel.yaml reads the structure; no object is ever constructed from a tag.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ruamel.yaml import YAML, MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from nst_batch.study.mistakes import KeyPath, Mistake, shown

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000
"""In all, counting what an alias repeats each time."""
MAX_DEPTH = 16

_TAGS = {
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "timestamp", "merge", "value", "seq", "map")
}
_SCALARS: dict[str, Callable[[str], Any]] = {
    "null": lambda _: None,
    "bool": lambda word: word.lower() == "true",
    "int": int,
    "float": lambda word: float(word.replace(".inf", "inf").replace(".nan", "nan")),
}


class NotYamlError(Exception):
    """Text that cannot be read at all: on which line, counted from 1, and why."""

    def __init__(self, line: int, message: str) -> None:
        self.line, self.message = line, message
        super().__init__(f"line {line}: {message}")


class Document(NamedTuple):
    """What a text says, and where it says it."""

    value: Any
    """None, bool, int, float, str, lists and dictionaries of these with text keys; None for an empty text."""
    lines: dict[KeyPath, int]
    """Of every value, from 1."""
    mistakes: list[Mistake]
    """Keys given twice; the last one counts."""


def read_yaml(source: str, path: KeyPath = ()) -> Document:
    """Reads one YAML document.

    Args:
        path: Of the key whose value the document is.

    Raises:
        NotYamlError: Broken syntax, a tag that asks for more than plain values, or one limit exceeded.
    """
    if len(source.encode(errors="replace")) > MAX_BYTES:
        raise NotYamlError(1, f"expected at most {MAX_BYTES >> 20} MiB; use a .csv or .parquet list")
    reader = YAML(typ="safe", pure=True)
    reader.composer.warn_double_anchors = False
    try:
        node = reader.compose(source)
    except ReaderError as error:
        line = source.count("\n", 0, error.position) + 1
        raise NotYamlError(line, f"not valid YAML: the character U+{error.character:04X} is not allowed") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(filter(None, (error.context, error.problem))).replace("\n", " ")
        raise NotYamlError(mark.line + 1 if mark else 1, f"not valid YAML: {message}") from None
    except (ValueError, OverflowError):  # ruamel.yaml's own, from escapes such as "\UFFFFFFFF"
        raise NotYamlError(1, "not valid YAML: an escape in quotes names no character") from None
    except RecursionError:
        raise NotYamlError(1, f"nested more than {MAX_DEPTH} levels deep") from None
    builder = _Builder()
    value = None if node is None else builder.value(node, path, 1)
    return Document(value, dict.fromkeys(prefixes(path), 1) | builder.lines, builder.mistakes)


@dataclass(slots=True)
class _Builder:
    """Turns nodes into values, counting as it goes."""

    lines: dict[KeyPath, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    num_values: int = 0

    def value(self, node: Node, path: KeyPath, line: int) -> Any:
        self.num_values += 1
        self.lines[path] = line
        if len(path) > MAX_DEPTH:  # also ends an alias that contains itself
            raise NotYamlError(_line(node), f"nested more than {MAX_DEPTH} levels deep")
        if self.num_values > MAX_VALUES:
            raise NotYamlError(_line(node), f"more than {MAX_VALUES} values; use a .csv or .parquet list")
        if node.tag not in _TAGS:
            raise NotYamlError(_line(node), f"the tag {shown(node.tag)} is not allowed")
        if isinstance(node, SequenceNode):
            return [self.value(each, (*path, index), _line(each)) for index, each in enumerate(node.value)]
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        assert isinstance(node, ScalarNode), "the third and last kind of node"
        return _scalar(node)

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, each in node.value:
            if not isinstance(key, ScalarNode):
                raise NotYamlError(_line(key), "a key must be a word, not a list or keys")
            place = (*path, key.value)
            if key.value in values:
                self.mistakes.append(Mistake(place, f"given twice, first on line {self.lines[place]}"))
            values[key.value] = self.value(each, place, _line(key))
        return values


def prefixes(path: KeyPath) -> list[KeyPath]:
    """`path` and what holds it, the nearest first."""
    return [path[:end] for end in range(len(path), 0, -1)]


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _scalar(node: ScalarNode) -> Any:
    """An unquoted word by YAML 1.2's core schema; anything quoted is text."""
    word: str = node.value
    read = _SCALARS.get(str(node.tag).rpartition(":")[2], str) if node.style is None else str
    try:
        return read(word)
    except ValueError:  # hexadecimal, or thousands of digits: no number that a study needs
        return word
