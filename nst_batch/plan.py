"""From a study to its trials: which pictures, in which pairs, under which configurations, in which batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from nst_batch.errors import LayerError, StudyError
from nst_batch.images import Inspection, fitted_size
from nst_batch.inputs import Listing, inspect_all
from nst_batch.layers import conv_layers, layer_shape
from nst_batch.records import Configuration, Trial, trial_id
from nst_batch.study import Study

BAD_INPUT_BATCH = -1
"""The batch of trials that will never run: one of their pictures cannot be used."""


@dataclass(frozen=True, slots=True)
class _Pair:
    content: Inspection | None
    styles: tuple[Inspection, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The trials of a study, made as they are asked for; iterate `trials` as often as you like."""

    study: Study
    configurations: tuple[Configuration, ...]
    batch_size: int
    pairs: tuple[_Pair, ...]
    """Ordered so that pairs of one size stand together."""
    bad: tuple[Inspection, ...]
    """Pictures that cannot be used."""
    duplicates: tuple[tuple[str, str], ...]
    """(left out, same content as)."""

    @property
    def num_trials(self) -> int:
        """How many `trials` yields."""
        return len(self.pairs) * len(self.configurations)

    def sizes(self) -> Counter[tuple[int, int]]:
        """How many trials that can run there are of each (width, height)."""
        found: Counter[tuple[int, int]] = Counter()
        for pair in self.pairs:
            for configuration in self.configurations:
                width, height, error_type, _ = _size_or_reason(pair, configuration)
                if error_type is None:
                    found[width, height] += 1
        return found

    @property
    def num_batches(self) -> int:
        """How many batches `trials` makes; pairs of one size stand together."""
        return sum(-(-count // self.batch_size) for count in self.sizes().values())

    def examples(self, count: int) -> list[str]:
        """A few good pictures, evenly from the whole plan."""
        good = [
            shape.picture.uri for pair in self.pairs if not (shape := pair.content or pair.styles[0]).error_type
        ]
        return good[:: max(1, len(good) // count)][:count]

    def trials(self) -> Iterator[Trial]:
        """Every pair under every configuration, `trial_index` from 0, batches from 0."""
        identities = [configuration.identity() for configuration in self.configurations]
        batch, filled, size = -1, 0, (0, 0)
        points = product(self.pairs, zip(self.configurations, identities, strict=True))
        for index, (pair, (configuration, identity)) in enumerate(points):
            width, height, error_type, error_message = _size_or_reason(pair, configuration)
            if error_type is None:
                if filled == 0 or filled == self.batch_size or size != (width, height):
                    batch, filled, size = batch + 1, 0, (width, height)
                filled += 1
            content = pair.content.picture if pair.content else None
            styles = tuple(style.picture for style in pair.styles)
            yield Trial(
                trial_id=trial_id(content, styles, identity),
                trial_index=index,
                batch=batch if error_type is None else BAD_INPUT_BATCH,
                content=content,
                styles=styles,
                width=width,
                height=height,
                configuration=configuration,
                error_type=error_type,
                error_message=error_message,
            )


def make_plan(
    study: Study,
    listing: Listing,
    *,
    configurations: Sequence[Configuration],
    batch_size: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Plan:
    """Opens every picture and pairs them.

    Args:
        study: What to compute.
        listing: Its pictures, from `inputs.list_inputs`.
        configurations: From `Study.configurations`.
        batch_size: Trials per batch, at most.
        progress: Called with the number of pictures opened so far.

    Raises:
        StudyError: `zip` was asked for with unequal numbers of pictures.
    """
    uris = dict.fromkeys((*listing.content, *listing.style))
    by_uri = dict(zip(uris, _inspected(uris, progress), strict=True))
    duplicates: list[tuple[str, str]] = []
    if listing.pairs is not None:
        pairs = [_Pair(by_uri[content], (by_uri[style],)) for content, style in listing.pairs]
    else:
        content = [by_uri[uri] for uri in listing.content]
        style = [by_uri[uri] for uri in listing.style]
        if study.pairs != "zip":
            content, style = (list(_distinct(pictures, duplicates)) for pictures in (content, style))
        pairs = _pairs(study.pairs, content, style)
    pairs = _without_repetition(pairs)
    pairs.sort(key=lambda pair: _working_size(pair, configurations[0]))
    return Plan(
        study=study,
        configurations=tuple(configurations),
        batch_size=batch_size,
        pairs=tuple(pairs),
        bad=tuple(each for each in by_uri.values() if each.error_type),
        duplicates=tuple(duplicates),
    )


def _inspected(uris: Iterable[str], progress: Callable[[int], None]) -> Iterator[Inspection]:
    for count, inspection in enumerate(inspect_all(uris), 1):
        progress(count)
        yield inspection


def _distinct(pictures: Sequence[Inspection], duplicates: list[tuple[str, str]]) -> Iterator[Inspection]:
    """Leaves out pictures whose content was there before; bad pictures are told apart by their names alone."""
    seen: dict[str, Inspection] = {}
    for picture in pictures:
        digest = picture.picture.sha256
        if digest is None or picture.error_type:
            yield picture
        elif digest in seen:
            duplicates.append((picture.picture.uri, seen[digest].picture.uri))
        else:
            seen[digest] = picture
            yield picture


def _pairs(how: str, content: Sequence[Inspection], style: Sequence[Inspection]) -> list[_Pair]:
    contents: Sequence[Inspection | None] = content or [None]
    if not style:
        return [_Pair(each, ()) for each in contents]
    if how == "blend":
        return [_Pair(each, tuple(style)) for each in contents]
    if how == "zip":
        if len(contents) != len(style):
            counts = f"{len(content)} and {len(style)}"
            raise StudyError(f"pairs: zip needs as many contents as styles, found {counts}; use cross or a list")
        return [_Pair(each, (other,)) for each, other in zip(contents, style, strict=True)]
    return [_Pair(each, (other,)) for each in contents for other in style]


def _without_repetition(pairs: Sequence[_Pair]) -> list[_Pair]:
    """Each pair once: the same two contents under other names would be the same trial."""

    def identity(pair: _Pair) -> tuple[str | None, ...]:
        pictures = [each for each in (pair.content, *pair.styles) if each]
        return tuple(each.picture.uri if each.error_type else each.picture.sha256 for each in pictures)

    return list({identity(pair): pair for pair in reversed(pairs)}.values())[::-1]


def _working_size(pair: _Pair, configuration: Configuration) -> tuple[int, int]:
    """(width, height) of the result; 0 where it cannot be known."""
    shape = pair.content or pair.styles[0]
    if shape.error_type:
        return 0, 0
    return fitted_size(shape.width, shape.height, configuration.size, configuration.fit)


def _size_or_reason(pair: _Pair, configuration: Configuration) -> tuple[int, int, str | None, str | None]:
    """Width and height of the result, or the reason why there will be none."""
    pictures = [picture for picture in (pair.content, *pair.styles) if picture]
    for picture in pictures:
        if picture.error_type:
            return 0, 0, picture.error_type, picture.error_message
    deepest = conv_layers(configuration.arch)[-1]  # the finished image is measured there in any case
    layers = (*configuration.content_layers, *configuration.style_layers, deepest)
    for picture in pictures:
        size = configuration.size
        if picture is not pair.content:
            size = max(1, round(size * configuration.style_scale))
        width, height = fitted_size(picture.width, picture.height, size, configuration.fit)
        try:
            for layer in layers:
                layer_shape(layer, height, width)
        except LayerError as error:
            resized = f"{picture.width}×{picture.height} pixels become {width}×{height}"
            return 0, 0, "too_small", f"{picture.picture.uri}: {resized}: {error}"
    width, height = _working_size(pair, configuration)
    return width, height, None, None
