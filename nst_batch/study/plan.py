"""From a study to its trials: which pictures, in which pairs, under which configurations, in which batches."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress, islice, product

import numpy as np
import numpy.typing as npt

from nst_batch.errors import LayerError, StudyError, without_secrets
from nst_batch.inputs.finding import Listing, inspect_all
from nst_batch.inputs.images import Inspection, fitted_size
from nst_batch.records import Configuration, Picture, Trial, trial_id
from nst_batch.study.model import Study
from nst_batch.vocabulary import conv_layers, layer_shape, scaled_size

BAD_INPUT_BATCH = -1
"""The batch of trials that will never run: one of their pictures cannot be used."""

_IDS_AT_ONCE = 65_536

Ids = npt.NDArray[np.bytes_]
"""Trial ids as sixteen bytes each."""


@dataclass(frozen=True, slots=True)
class PicturePair:
    content: Inspection | None
    styles: tuple[Inspection, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The trials of a study, made as they are asked for; iterate `trials` as often as you like."""

    study: Study
    configurations: tuple[Configuration, ...]
    batch_size: int
    pairs: tuple[PicturePair, ...]
    """Ordered so that pairs of one size stand together."""
    bad: tuple[Inspection, ...]
    """Pictures that cannot be used."""
    duplicates: tuple[tuple[str, str], ...]
    """(left out, same content as), as they may be shown."""

    @property
    def num_trials(self) -> int:
        """How many `trials` yields."""
        return len(self.pairs) * len(self.configurations)

    @property
    def num_batches(self) -> int:
        """How many batches `trials` makes; pairs of one size stand together."""
        return sum(-(-count // self.batch_size) for count in self.sizes().values())

    def sizes(self) -> Counter[tuple[int, int]]:
        """How many trials that can run there are of each (width, height)."""
        alike = Counter((each.content_layers, each.style_layers, each.style_scale) for each in self.configurations)
        one_of = {(each.content_layers, each.style_layers, each.style_scale): each for each in self.configurations}
        found: Counter[tuple[int, int]] = Counter()
        for pair in self.pairs:
            for what, count in alike.items():
                width, height, error_type, _ = _size_or_reason(pair, one_of[what])
                if error_type is None:
                    found[width, height] += count
        return found

    def examples(self, count: int) -> list[str]:
        """A few good pictures, evenly from the whole plan."""
        shapes = (pair.content or pair.styles[0] for pair in self.pairs)
        good = list(dict.fromkeys(shape.picture.uri for shape in shapes if not shape.error_type))
        return good[:: max(1, len(good) // count)][:count]

    def names(self) -> dict[str, str]:
        """Where the weights and every picture that could be read are now, by the SHA-256 of what they hold."""
        pictures = (each.picture for pair in self.pairs for each in (pair.content, *pair.styles) if each)
        names = {picture.sha256: picture.uri for picture in pictures if picture.sha256 is not None}
        return names | {each.weights_sha256: each.weights for each in self.configurations}

    def trial_ids(self) -> Ids:
        """The `trial_id` of every trial, in order."""
        identities = [configuration.identity() for configuration in self.configurations]
        return packed(trial_id(*_pictures(pair), identity) for pair in self.pairs for identity in identities)

    def trials(
        self, chosen: npt.NDArray[np.bool_] | None = None, *, first_index: int = 0, first_batch: int = 0
    ) -> Iterator[Trial]:
        """Every pair under every configuration, numbered without gaps, in batches of one size.

        Args:
            chosen: True for the trials to make, in the order of all; the others take no part in batches either.
            first_index: The `trial_index` of the first.
            first_batch: The number of the first batch.
        """
        batches = _Batches(self.batch_size, first_batch)
        identities = [configuration.identity() for configuration in self.configurations]
        points = product(self.pairs, zip(self.configurations, identities, strict=True))
        wanted = points if chosen is None else compress(points, chosen)
        for index, (pair, (configuration, identity)) in enumerate(wanted, first_index):
            width, height, error_type, error_message = _size_or_reason(pair, configuration)
            content, styles = _pictures(pair)
            yield Trial(
                trial_id=trial_id(content, styles, identity),
                trial_index=index,
                batch=batches.next(width, height) if error_type is None else BAD_INPUT_BATCH,
                content=content,
                styles=styles,
                width=width,
                height=height,
                configuration=configuration,
                error_type=error_type,
                error_message=error_message,
            )


def packed(trial_ids: Iterable[str]) -> Ids:
    """Hexadecimal digits as bytes: a million ids are 16 MB."""
    texts = iter(trial_ids)
    chunks = iter(lambda: bytes.fromhex("".join(islice(texts, _IDS_AT_ONCE))), b"")
    return np.frombuffer(b"".join(chunks), "S16")


class _Batches:
    """Numbers the batches: a new one when the last is full or of another size."""

    def __init__(self, batch_size: int, first: int) -> None:
        self._batch_size, self._batch = batch_size, first - 1
        self._filled, self._size = 0, (0, 0)

    def next(self, width: int, height: int) -> int:
        if self._filled in (0, self._batch_size) or self._size != (width, height):
            self._batch, self._filled, self._size = self._batch + 1, 0, (width, height)
        self._filled += 1
        return self._batch


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
        pairs = [PicturePair(by_uri[content], (by_uri[style],)) for content, style in listing.pairs]
    else:
        content = [by_uri[uri] for uri in listing.content]
        style = [by_uri[uri] for uri in listing.style]
        if study.pairs != "zip":
            content, style = (list(_distinct(pictures, duplicates)) for pictures in (content, style))
        pairs = _pairs(study.pairs, content, style)
    pairs = _without_repetition(pairs)
    pairs.sort(key=lambda pair: _largest_first(*_working_size(pair, configurations[0])))
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
    """Leaves out pictures whose content was there before, good or bad."""
    seen: dict[str, Inspection] = {}
    for picture in pictures:
        same = seen.setdefault(_content_of(picture), picture)
        if same is picture:
            yield picture
        else:
            duplicates.append((without_secrets(picture.picture.uri), without_secrets(same.picture.uri)))


def _content_of(picture: Inspection) -> str:
    """What `trial_id` tells pictures apart by."""
    return picture.picture.sha256 or f"unread:{without_secrets(picture.picture.uri)}"


def _pairs(how: str, content: Sequence[Inspection], style: Sequence[Inspection]) -> list[PicturePair]:
    contents: Sequence[Inspection | None] = content or [None]
    if not style:
        return [PicturePair(each, ()) for each in contents]
    if how == "blend":
        return [PicturePair(each, tuple(style)) for each in contents]
    if how == "zip":
        if len(contents) != len(style):
            counts = f"{len(content)} and {len(style)}"
            raise StudyError(f"pairs: zip needs as many contents as styles, found {counts}; use cross or a list")
        return [PicturePair(each, (other,)) for each, other in zip(contents, style, strict=True)]
    return [PicturePair(each, (other,)) for each in contents for other in style]


def _without_repetition(pairs: Sequence[PicturePair]) -> list[PicturePair]:
    """Each pair once: the same two contents under other names would be the same trial."""
    found: dict[tuple[str | None, ...], PicturePair] = {}
    for pair in pairs:
        identity = tuple(_content_of(each) if each else None for each in (pair.content, *pair.styles))
        found.setdefault(identity, pair)
    return list(found.values())


def _largest_first(width: int, height: int) -> tuple[int, int]:
    """Sorts pairs so that those of one size stand together and no long one is left for the end.

    What cannot run comes before everything: its rows tell of it at once.
    """
    return (-width * height, width) if width else (-sys.maxsize, 0)


def _working_size(pair: PicturePair, configuration: Configuration) -> tuple[int, int]:
    """(width, height) of the result; 0 where it cannot be known."""
    shape = pair.content or pair.styles[0]
    if shape.error_type:
        return 0, 0
    return fitted_size(shape.width, shape.height, configuration.size, configuration.fit)


def _size_or_reason(pair: PicturePair, configuration: Configuration) -> tuple[int, int, str | None, str | None]:
    """Width and height of the result, or the reason why there will be none."""
    pictures = [picture for picture in (pair.content, *pair.styles) if picture]
    for picture in pictures:
        if picture.error_type:
            return 0, 0, picture.error_type, picture.error_message
    for picture in pictures:
        size = configuration.size
        if picture is not pair.content:
            size = scaled_size(size, configuration.style_scale)
        width, height = fitted_size(picture.width, picture.height, size, configuration.fit)
        reason = _too_small(
            configuration.arch, configuration.content_layers, configuration.style_layers, width, height
        )
        if reason is not None:
            resized = f"{picture.width}×{picture.height} pixels become {width}×{height}"
            message = without_secrets(f"{picture.picture.uri}: {resized}: {reason}")
            return 0, 0, "too_small", message
    width, height = _working_size(pair, configuration)
    return width, height, None, None


@lru_cache(maxsize=4096)
def _too_small(
    arch: str, content_layers: tuple[str, ...], style_layers: tuple[str, ...], width: int, height: int
) -> str | None:
    """Why nothing of a picture of this size would be left at a layer that is looked at."""
    deepest = conv_layers(arch)[-1]  # the finished image is measured there in any case
    try:
        for layer in (*content_layers, *style_layers, deepest):
            layer_shape(layer, height, width)
    except LayerError as error:
        return str(error)
    return None


def _pictures(pair: PicturePair) -> tuple[Picture | None, tuple[Picture, ...]]:
    return pair.content.picture if pair.content else None, tuple(style.picture for style in pair.styles)
