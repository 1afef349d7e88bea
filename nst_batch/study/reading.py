"""The study file that people write: YAML, presets and overrides to a `Study`, with every mistake and its line:

- study.yaml:8: optimizer.nme: unknown key; did you mean 'name'?
- --set grid.alpha[1]: expected a number of at least 0, found 'x'
- --size: expected an integer from 16 to 16384, found 7
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

from nst_batch.errors import StudyError
from nst_batch.study.mistakes import KeyPath, Mistake, MistakesError, dotted, shown
from nst_batch.study.model import Study, study_from_dict
from nst_batch.study.yaml_values import MAX_BYTES, NotYamlError, prefixes, read_yaml
from nst_batch.vocabulary import is_list_file, is_weights_file

PACKAGE = Path(__file__).parents[1]

_SHORTCUTS: dict[str, KeyPath] = {
    "content": ("content",),
    "style": ("style",),
    "protect": ("content_masks",),
    "weights": ("network", "weights"),
    "size": ("image", "size"),
    "steps": ("optimizer", "steps"),
}
_PATHS: dict[str, Callable[[str], bool]] = {
    "content": bool,
    "style": bool,
    "pairs": is_list_file,
    "content_masks": bool,
    "style_masks": bool,
    "weights": is_weights_file,
}
"""Keys that may hold a local path, and when they do."""


class Overrides(TypedDict, total=False):
    """What may be said of a study beside its file, on the command line or in Python.

    A key that is missing, None or empty means "as the file says".
    """

    content: Sequence[str] | None
    """Replaces `content`."""
    style: Sequence[str] | None
    """Replaces `style`."""
    protect: str | None
    """Replaces `content_masks`."""
    weights: str | None
    """Replaces `network.weights`."""
    size: int | None
    """Replaces `image.size`."""
    steps: int | None
    """Replaces `optimizer.steps`."""
    overrides: Sequence[str] | None
    """`KEY=VALUE` with a dotted key and a YAML value, as in `grid.alpha=[0.5,1]`; these win over all others."""


class _Layer(NamedTuple):
    """What one place says of a study: its file, or an option, which wins over what came before."""

    origin: str
    """The file's name, `--set`, or an option that says which key it means."""
    values: dict[str, Any]
    lines: Mapping[KeyPath, int]
    """Of every value; 0 where there are none."""
    mistakes: Sequence[Mistake] = ()

    def line(self, path: KeyPath) -> int:
        """Where the value at `path`, or what holds it, is written; 0 where nothing is."""
        return next((self.lines[each] for each in prefixes(path) if each in self.lines), 0)

    def told(self, mistake: Mistake) -> str:
        """With its place."""
        key, line = dotted(mistake.path), self.line(mistake.path)
        if self.origin == "--set":
            return f"--set {key}: {mistake.message}"
        if self.origin.startswith("--") or not key:
            return f"{self.origin}: {mistake.message}"
        return f"{self.origin}{f':{line}' if line else ''}: {key}: {mistake.message}"


def load_study(source: str, **overrides: Unpack[Overrides]) -> Study:
    """Reads a study and applies overrides, which win over the file.

    Relative paths in a study file start from its folder; those in overrides and presets from the working
    directory. The study holds absolute paths and URLs.

    Args:
        source: A path, or the name of a preset; a file of that name comes first.
        overrides: See `Overrides`.

    Raises:
        StudyError: Every problem at once, in the order of the file and then of the overrides; or the one that keeps
            the file from being read.
    """
    file, name = _read(source)
    layers = [file, *_options(overrides)]
    mistakes = [(layer, each) for layer in layers for each in layer.mistakes]
    try:
        study = study_from_dict(reduce(_merged, (layer.values for layer in layers), {"name": name}))
    except MistakesError as error:
        mistakes += ((_source(layers, each.path), each) for each in error.mistakes)
    if mistakes:
        mistakes.sort(key=lambda each: (layers.index(each[0]), each[0].line(each[1].path)))
        raise StudyError([layer.told(mistake) for layer, mistake in mistakes])
    return study


# Presets and the file to start from


def preset_names() -> tuple[str, ...]:
    """The shipped studies, in alphabetical order."""
    return tuple(sorted(path.stem for path in _presets().glob("*.yaml")))


def init_text(preset: str | None = None) -> str:
    """What `nst-batch init` writes: a preset, or a study file that explains every key and holds its default.

    Raises:
        StudyError: There is no such preset; lists those that there are.
    """
    if preset is not None and preset not in preset_names():
        raise StudyError(f"{preset}: no such preset{_near_presets(preset)}")
    path = _presets() / f"{preset}.yaml" if preset is not None else PACKAGE / "study" / "template.yaml"
    return path.read_text(encoding="utf-8")


def _presets() -> Path:
    """In an installed package beside the code; in a source tree among the jobs."""
    installed = PACKAGE / "presets"
    return installed if installed.is_dir() else PACKAGE.parent / "jobs" / "studies"


def _near_presets(name: str) -> str:
    near = get_close_matches(name.replace("-", "_"), preset_names(), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? Presets: " if near else "presets: "
    return f"; {hint}{', '.join(preset_names())}"


# The layers


def _read(source: str) -> tuple[_Layer, str]:
    """A study file or preset, and the study's name unless it says otherwise."""
    path = Path(source)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError) as error:
        if source in preset_names():
            return _layer(f"preset {source}", init_text(source), Path.cwd()), source
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
    return _layer(source, text, path.absolute().parent), path.stem


def _layer(label: str, text: str, folder: Path) -> _Layer:
    """The keys that a file holds."""
    try:
        values, lines, mistakes = read_yaml(text)
    except NotYamlError as error:
        raise StudyError(f"{label}:{error.line}: {error.message}") from None
    if values is None:
        raise StudyError(f"{label}: the file is empty; `nst-batch init` writes one to start from")
    if not isinstance(values, dict):
        raise StudyError(f"{label}: expected keys such as content, style, grid, found {shown(values)}")
    return _Layer(label, _anchored(values, folder), lines, mistakes)


def _options(overrides: Overrides) -> Iterator[_Layer]:
    for option, path in _SHORTCUTS.items():
        value = overrides.get(option)
        if value not in (None, (), []):
            inner = range(len(value)) if isinstance(value, list | tuple) else ()
            places = [*prefixes(path), *((*path, index) for index in inner)]
            yield _Layer(f"--{option}", _nested(path, value), dict.fromkeys(places, 0))
    for override in overrides.get("overrides") or ():
        yield _set(override)


def _set(override: str) -> _Layer:
    """One `KEY=VALUE`."""
    key, equals, text = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        return _Layer("--set", {}, {}, [Mistake((override,), "expected KEY=VALUE, as in grid.alpha=[0.5,1]")])
    try:
        value, lines, mistakes = read_yaml(text, path)
    except NotYamlError as error:
        return _Layer("--set", {}, {}, [Mistake(path, error.message)])
    return _Layer("--set", _nested(path, value), lines, mistakes)


def _nested(path: KeyPath, value: Any) -> dict[str, Any]:
    """`value` at `path`, its local paths from the working directory."""
    for step in reversed(path):
        value = {step: value}
    return _anchored(value, Path.cwd())


def _merged(into: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """`values` over `into`: keys are merged into keys, anything else is replaced."""
    merged = dict(into)
    for key, value in values.items():
        both = isinstance(value, dict) and isinstance(into.get(key), dict)
        merged[key] = _merged(into[key], value) if both else value
    return merged


def _source(layers: Sequence[_Layer], path: KeyPath) -> _Layer:
    """The last one that says what is at `path`, or what holds it."""
    saying = (layer for each in prefixes(path) for layer in reversed(layers) if each in layer.lines)
    return next(saying, layers[0])


# Paths


def _anchored(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`values` with every local path from `folder`; what is no text is left for the checks to find."""

    anchored = dict(values)
    for key, is_path in _PATHS.items():
        value = values.get(key)
        if isinstance(value, str) and is_path(value):
            anchored[key] = _absolute(value, folder)
        elif isinstance(value, list | tuple):
            anchored[key] = [_absolute(each, folder) if isinstance(each, str) else each for each in value]
    if isinstance(network := values.get("network"), dict):
        anchored["network"] = _anchored(network, folder)
    return anchored


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
