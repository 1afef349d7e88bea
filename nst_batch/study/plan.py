"""From a study to its trials: which pictures, in which pairs, under which configurations, in which batches."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import compress, islice, product
from typing import Any

import numpy as np
import numpy.typing as npt

from nst_batch.errors import LayerError, StudyError, without_secrets
from nst_batch.inputs.finding import Listing
from nst_batch.inputs.images import fitted_size
from nst_batch.inputs.inspecting import Inspection, inspect_all
from nst_batch.inputs.lists import NamedPicture
from nst_batch.inputs.masks import BLACK, WHITE, Color, hexadecimal
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
    """The pictures of a trial; `styles` are none for a reconstruction, several for a blend."""

    content: Inspection | None
    styles: tuple[Inspection, ...]

    @property
    def inspections(self) -> tuple[Inspection, ...]:
        """Of all pictures, the content first."""
        return (self.content, *self.styles) if self.content else self.styles

    @property
    def pictures(self) -> tuple[Picture | None, tuple[Picture, ...]]:
        """As a trial has them."""
        return self.content.picture if self.content else None, tuple(style.picture for style in self.styles)


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
    unused_regions: tuple[str, ...]
    """What is to be told of style regions that contents do not have."""

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
        found: Counter[tuple[int, int]] = Counter()
        alike: dict[Any, list[Configuration]] = {}
        for each in self.configurations:
            alike.setdefault((each.content_layers, each.style_layers, each.style_scale), []).append(each)
        for pair, same in product(self.pairs, alike.values()):
            width, height, error_type, _ = _size_or_reason(pair, same[0])
            if error_type is None:
                found[width, height] += len(same)
        return found

    def names(self) -> dict[str, str]:
        """Where the weights and every picture that could be read are now, by the SHA-256 of what they hold."""
        pictures = [each.picture for pair in self.pairs for each in pair.inspections]
        files = [*pictures, *(picture.mask for picture in pictures if picture.mask)]
        names = {file.sha256: file.uri for file in files if file.sha256 is not None}
        return names | {each.weights_sha256: each.weights for each in self.configurations}

    def trial_ids(self) -> Ids:
        """The `trial_id` of every trial, in order."""
        identities = [configuration.identity() for configuration in self.configurations]
        return packed(trial_id(*pair.pictures, identity) for pair in self.pairs for identity in identities)

    def trials(self, chosen: npt.NDArray[np.bool_] | None = None, *, first_batch: int = 0) -> Iterator[Trial]:
        """Every pair under every configuration, numbered without gaps, in batches of one size.

        Args:
            chosen: True for the trials to make, in the order of all; the others take no part in batches either.
            first_batch: The number of the first batch.
        """
        identities = [configuration.identity() for configuration in self.configurations]
        points = product(self.pairs, zip(self.configurations, identities, strict=True))
        wanted = points if chosen is None else compress(points, chosen)
        batch, size, num_in_batch = first_batch - 1, (0, 0), 0
        for index, (pair, (configuration, identity)) in enumerate(wanted):
            width, height, error_type, error_message = _size_or_reason(pair, configuration)
            if error_type is None:
                if (width, height) != size or num_in_batch == self.batch_size:
                    batch, size, num_in_batch = batch + 1, (width, height), 0
                num_in_batch += 1
            content, styles = pair.pictures
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


def packed(trial_ids: Iterable[str]) -> Ids:
    """Hexadecimal digits as bytes: a million ids are 16 MB."""
    texts = iter(trial_ids)
    chunks = iter(lambda: bytes.fromhex("".join(islice(texts, _IDS_AT_ONCE))), b"")
    return np.frombuffer(b"".join(chunks), "S16")


def make_plan(study: Study, listing: Listing, *, configurations: Sequence[Configuration], batch_size: int) -> Plan:
    """Opens every picture and pairs them.

    Args:
        listing: The study's pictures, from `inputs.list_inputs`.
        configurations: From `Study.configurations`.
        batch_size: Trials per batch, at most.

    Raises:
        StudyError: `zip` was asked for with unequal numbers of pictures.
    """
    by_uri = dict(zip(listing.uris, inspect_all(listing.uris), strict=True))
    named = {each: _inspected(each, by_uri) for each in (*listing.content, *listing.style)}
    duplicates: list[tuple[str, str]] = []
    if study.pairs in ("cross", "blend"):
        content, style = (tuple(_distinct(side, named, duplicates)) for side in (listing.content, listing.style))
        listing = replace(listing, content=content, style=style)
    once: dict[Any, PicturePair] = {}
    for one, several in named_pairs(study.pairs, listing):
        pair = PicturePair(one and named[one], tuple(named[each] for each in several))
        contents = tuple(each and each.picture.identity for each in (pair.content, *pair.styles))
        once.setdefault(contents, pair)  # under other names they would be the same trial
    pairs = sorted(once.values(), key=lambda pair: _largest_first(*_size(pair, configurations[0])))
    return Plan(
        study=study,
        configurations=tuple(configurations),
        batch_size=batch_size,
        pairs=tuple(pairs),
        bad=tuple(each for each in by_uri.values() if each.error_type),
        duplicates=tuple(duplicates),
        unused_regions=tuple(_unused_regions(pairs, by_uri)),
    )


def _unused_regions(pairs: Sequence[PicturePair], by_uri: Mapping[str, Inspection]) -> Iterator[str]:
    """Regions of styles that nothing is painted as, because the contents they are paired with do not have them."""
    num_pairs: Counter[Picture] = Counter()
    unused: Counter[tuple[Picture, Color]] = Counter()
    for pair in pairs:
        content, styles = pair.pictures
        if content and not any(each.error_type for each in pair.inspections):
            own = _region_colors(content, by_uri)
            num_pairs.update(styles)
            unused.update((style, color) for style in styles for color in _region_colors(style, by_uri) - own)
    for (style, color), count in unused.items():
        num = num_pairs[style]
        lacks = "no content has" if count == num else f"in {count} of {num} pairs the content lacks"
        name = without_secrets(style.uri)
        yield f"{name}: {lacks} its region {hexadecimal(color)}; that part of the style is not used"


def _region_colors(picture: Picture, by_uri: Mapping[str, Inspection]) -> set[Color]:
    """Of a mask with more colours than regions, black and white: it is soft."""
    return set(by_uri[picture.mask.uri].colors or (BLACK, WHITE)) if picture.mask else {BLACK}


def _inspected(named: NamedPicture, by_uri: Mapping[str, Inspection]) -> Inspection:
    """A picture with its mask; what is wrong with the mask is wrong with the picture."""
    found = by_uri[named.uri]
    if named.mask is None:
        return found
    mask = by_uri[named.mask]
    masked = replace(found, picture=replace(found.picture, mask=mask.picture))
    if found.error_type or not mask.error_type:
        return masked
    return replace(masked, error_type=mask.error_type, error_message=f"its mask {mask.error_message}")


def _distinct(
    pictures: Iterable[NamedPicture],
    inspected: Mapping[NamedPicture, Inspection],
    duplicates: list[tuple[str, str]],
) -> Iterator[NamedPicture]:
    """Leaves out pictures whose content was there before, good or bad."""
    seen: dict[str, NamedPicture] = {}
    for each in pictures:
        same = seen.setdefault(inspected[each].picture.identity, each)
        if same is each:
            yield each
        else:
            duplicates.append((without_secrets(each.uri), without_secrets(same.uri)))


def named_pairs(how: str, listing: Listing) -> Sequence[tuple[NamedPicture | None, tuple[NamedPicture, ...]]]:
    """The pairs that `Study.pairs` means, before a picture is opened: a content, or None, and its styles.

    Raises:
        StudyError: `zip` was asked for with unequal numbers of pictures.
    """
    if listing.pairs is not None:
        return listing.pairs
    contents, styles = listing.content or (None,), listing.style
    if how == "blend" or not styles:
        return [(content, styles) for content in contents]
    if how == "zip":
        if len(contents) != len(styles):
            counts = f"{len(listing.content)} and {len(styles)}"
            raise StudyError(f"pairs: zip needs as many contents as styles, found {counts}; use cross or a list")
        return [(content, (style,)) for content, style in zip(contents, styles, strict=True)]
    return [(content, (style,)) for content, style in product(contents, styles)]


def _size(pair: PicturePair, configuration: Configuration) -> tuple[int, int]:
    """(width, height) of the result; 0 where it cannot be known."""
    shape = pair.inspections[0]
    if shape.error_type:
        return 0, 0
    return fitted_size(shape.width, shape.height, configuration.size, configuration.fit)


def _largest_first(width: int, height: int) -> tuple[int, int]:
    """Sorts pairs: what cannot run, whose rows tell of it at once; then by size, so that no long one comes last."""
    return (-width * height, width) if width else (-sys.maxsize, 0)


def _size_or_reason(pair: PicturePair, configuration: Configuration) -> tuple[int, int, str | None, str | None]:
    """Width and height of the result, or the reason why there will be none."""
    for each in pair.inspections:
        if each.error_type:
            return 0, 0, each.error_type, each.error_message
    for each in pair.inspections:
        scale = 1.0 if each is pair.content else configuration.style_scale
        size = scaled_size(configuration.size, scale)
        width, height = fitted_size(each.width, each.height, size, configuration.fit)
        reason = _too_small(configuration.arch, configuration.layers, width, height)
        if reason is not None:
            resized = f"{each.width}×{each.height} pixels become {width}×{height}"
            return 0, 0, "too_small", without_secrets(f"{each.picture.uri}: {resized}: {reason}")
    return *_size(pair, configuration), None, None


@lru_cache(maxsize=4096)
def _too_small(arch: str, layers: tuple[str, ...], width: int, height: int) -> str | None:
    """Why nothing of a picture of this size would be left at a layer that is looked at."""
    deepest = conv_layers(arch)[-1]  # the finished image is measured there in any case
    try:
        for layer in (*layers, deepest):
            layer_shape(layer, height, width)
    except LayerError as error:
        return str(error)
    return None
