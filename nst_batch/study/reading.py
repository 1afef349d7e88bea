"""The study file that people write: YAML, presets and overrides to a `Study`, with every mistake and its line:

- study.yaml:8: optimizer.nme: unknown key; did you mean 'name'?
- --set grid.alpha[1]: expected a number of at least 0, found 'x'
- --size: expected an integer from 16 to 8192, found 7
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

from nst_batch.errors import StudyError
from nst_batch.study.mistakes import KeyPath, Mistake, MistakesError, dotted, shown
from nst_batch.study.model import Study, study_from_dict
from nst_batch.study.yaml_values import MAX_BYTES, NotYamlError, read_yaml
from nst_batch.vocabulary import is_list_file, is_weights_file

PACKAGE = Path(__file__).parents[1]

_SHORTCUTS: dict[str, KeyPath] = {
    "content": ("content",),
    "style": ("style",),
    "weights": ("network", "weights"),
    "size": ("image", "size"),
    "steps": ("optimizer", "steps"),
}


class Overrides(TypedDict, total=False):
    """What may be said of a study beside its file, on the command line or in Python.

    A key that is missing, None or empty means "as the file says".
    """

    content: Sequence[str] | None
    """Replaces `content`."""
    style: Sequence[str] | None
    """Replaces `style`."""
    weights: str | None
    """Replaces `network.weights`."""
    size: int | None
    """Replaces `image.size`."""
    steps: int | None
    """Replaces `optimizer.steps`."""
    overrides: Sequence[str] | None
    """`KEY=VALUE` with a dotted key and a YAML value, as in `grid.alpha=[0.5,1]`; these win over all others."""


def load_study(source: str, **overrides: Unpack[Overrides]) -> Study:
    """Reads a study and applies overrides, which win over the file.

    Relative paths in a study file start from its folder; those in overrides and presets from the working
    directory. The study holds absolute paths and URLs.

    Args:
        source: A path, or the name of a preset; a file of that name comes first.
        overrides: See `Overrides`.

    Raises:
        StudyError: Every problem at once; or the one that keeps the file from being read.
    """
    draft = _Draft(_open(source))
    for option, path in _SHORTCUTS.items():
        value = overrides.get(option)
        if value not in (None, (), []):
            draft.override(path, value, _Place(1, 0, f"--{option}", keyed=False))
    for override in overrides.get("overrides") or ():
        draft.set(override)
    return draft.study()


# Presets and the file to start from


def preset_names() -> tuple[str, ...]:
    """The shipped studies, in alphabetical order."""
    return tuple(sorted(path.stem for path in _presets().glob("*.yaml")))


def preset_text(name: str) -> str:
    """A shipped study as it is written, comments included.

    Raises:
        StudyError: There is no such preset; lists those that there are.
    """
    if name not in preset_names():
        raise StudyError(f"{name}: no such preset{_near_presets(name)}")
    return (_presets() / f"{name}.yaml").read_text(encoding="utf-8")


def init_text(preset: str | None = None) -> str:
    """What `nst-batch init` writes: a preset, or a study file that explains every key and holds its default.

    Raises:
        StudyError: There is no such preset.
    """
    if preset is not None:
        return preset_text(preset)
    return (PACKAGE / "study" / "template.yaml").read_text(encoding="utf-8")


def _presets() -> Path:
    """In an installed package beside the code; in a source tree among the jobs."""
    installed = PACKAGE / "presets"
    return installed if installed.is_dir() else PACKAGE.parent / "jobs" / "studies"


def _near_presets(name: str) -> str:
    near = get_close_matches(name.replace("-", "_"), preset_names(), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? Presets: " if near else "presets: "
    return f"; {hint}{', '.join(preset_names())}"


# Finding the text


class _Source(NamedTuple):
    """A study file or preset."""

    label: str
    """How messages call it."""
    text: str
    folder: Path
    """Where its relative paths start."""
    name: str
    """The study's, unless it says otherwise."""


def _open(source: str) -> _Source:
    path = Path(source)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError) as error:
        if source in preset_names():
            return _Source(f"preset {source}", preset_text(source), Path.cwd(), source)
        if isinstance(error, IsADirectoryError):
            raise StudyError(f"{source}: expected a study file, found a folder") from None
        hint = "" if path.suffix in (".yaml", ".yml") else f" or preset{_near_presets(source)}"
        raise StudyError(f"{source}: no such file{hint}") from None
    except OSError as error:
        raise StudyError(f"{source}: cannot be read: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise StudyError(f"{source}:{line}: not UTF-8: found byte 0x{data[error.start]:02x}") from None
    return _Source(source, text, path.absolute().parent, path.stem)


# Values and where they come from


class _Place(NamedTuple):
    """Where a value was written, as messages name it; sorted: lines of the file, then the command line."""

    order: int
    line: int
    origin: str
    keyed: bool = True
    """Whether the key is named too; `--size` says it already."""

    def tell(self, mistake: Mistake) -> str:
        key = dotted(mistake.path)
        if not self.keyed or not key:
            return f"{self.origin}: {mistake.message}"
        return f"{self.origin}{' ' if self.origin == '--set' else ': '}{key}: {mistake.message}"


_SET = _Place(2, 0, "--set")


class _Draft:
    """A study while it is put together: plain values, where each was written, and what is wrong so far."""

    def __init__(self, source: _Source) -> None:
        self.source = source
        label = source.label
        try:
            document = read_yaml(source.text)
        except NotYamlError as error:
            raise StudyError(f"{label}:{error.line}: {error.message}") from None
        if document.value is None:
            raise StudyError(f"{label}: the file is empty; `nst-batch init` writes one to start from")
        if not isinstance(document.value, dict):
            found = shown(document.value)
            raise StudyError(f"{label}: expected keys such as content, style, grid, found {found}")
        self.values: dict[str, Any] = document.value
        self.places = {path: _Place(0, line, f"{label}:{line}") for path, line in document.lines.items()}
        self.mistakes = [(self.places[mistake.path], mistake) for mistake in document.mistakes]
        _make_absolute(self.values, source.folder)

    def set(self, override: str) -> None:
        """Applies one `KEY=VALUE`."""
        key, equals, value = override.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            message = "expected KEY=VALUE, as in grid.alpha=[0.5,1]"
            self.mistakes.append((_SET, Mistake((override,), message)))
            return
        try:
            document = read_yaml(value)
        except NotYamlError as error:
            self.mistakes.append((_SET, Mistake(path, error.message)))
            return
        self.mistakes += ((_SET, Mistake((*path, *each.path), each.message)) for each in document.mistakes)
        self.override(path, document.value, _SET)

    def override(self, path: KeyPath, value: Any, place: _Place) -> None:
        """Puts `value` at `path`; keys are merged into keys, anything else is replaced."""
        for step in reversed(path):
            value = {step: value}
        _make_absolute(value, Path.cwd())
        self._merge(self.values, value, (), place)

    def _merge(self, into: dict[str, Any], values: dict[str, Any], path: KeyPath, place: _Place) -> None:
        for key, value in values.items():
            here = (*path, key)
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                self._merge(into[key], value, here, place)
                continue
            into[key] = value
            self.places = {known: each for known, each in self.places.items() if known[: len(here)] != here}
            self.places[here] = place

    def study(self) -> Study:
        """The checked study.

        Raises:
            StudyError: Every mistake, in the order of the file and then of the command line.
        """
        try:
            study = study_from_dict({"name": self.source.name, **self.values})
        except MistakesError as error:
            self.mistakes += ((self._place(mistake.path), mistake) for mistake in error.mistakes)
        if self.mistakes:
            in_order = sorted(self.mistakes, key=lambda each: each[0][:2])
            raise StudyError([place.tell(mistake) for place, mistake in in_order])
        return study

    def _place(self, path: KeyPath) -> _Place:
        """Where the value at `path`, or what holds it, was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return _Place(0, 0, self.source.label)


# Paths


def _make_absolute(values: dict[str, Any], folder: Path) -> None:
    """Anchors every local path in `values` at `folder`; what is no text is left for the checks to find."""
    for key in ("content", "style"):
        given = values.get(key)
        if isinstance(given, str):
            values[key] = _absolute(given, folder)
        elif isinstance(given, list):
            values[key] = [_absolute(each, folder) if isinstance(each, str) else each for each in given]
    pairs, network = values.get("pairs"), values.get("network")
    if isinstance(pairs, str) and is_list_file(pairs):
        values["pairs"] = _absolute(pairs, folder)
    if isinstance(network, dict):
        weights = network.get("weights")
        if isinstance(weights, str) and is_weights_file(weights):
            network["weights"] = _absolute(weights, folder)


def _absolute(name: str, folder: Path) -> str:
    """A local path or glob, absolute; URLs, blanks and absolute paths as they are."""
    if "://" in name or not name.strip() or "\0" in name:
        return name
    path = Path(name)
    if name.startswith("~"):
        with suppress(RuntimeError):  # no such user: an ordinary name that begins with ~
            path = path.expanduser()
    if any(mark in name for mark in "*?["):
        folder = Path(glob.escape(str(folder)))
    return str(folder / path)
