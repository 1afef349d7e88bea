"""How good a transfer is: distances of the finished picture from its targets, and the scores that they make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nst_batch.vocabulary import block_and_index


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerDistance:
    """How far the finished picture is from its targets at one layer; comparable across configurations."""

    layer: str
    content_distance: float | None
    """‖F − F_content‖² / ‖F_content‖²; None without a content picture."""
    style_distance: float | None
    """‖G − G_style‖²_F / ‖G_style‖²_F; None without a style picture."""
    content_baseline: float | None = None
    """The style picture's own content distance, at the image's size; None unless there are both pictures."""
    style_baseline: float | None = None
    """The content picture's own style distance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """How good a transfer is, 0 to 1 each: comparable across configurations, pairs and networks."""

    content_kept: float | None = None
    """1 − the mean of min(1, √(content distance / baseline)) over the convolutions of blocks 3 to 5.

    The shallow layers hold exact pixels, which a transfer is meant to change."""
    style_taken: float | None = None
    """The same of the style distances, over all convolutions."""
    transfer_score: float | None = None
    """Their product: 0 for doing nothing and for pasting the style."""
    score_reason: str | None = None
    """Why they are None: a picture is missing, or the two are the same to the network."""

    @classmethod
    def of(cls, kept: float | None, taken: float | None) -> Scores:
        """From the two shares; None where content and style do not differ."""
        if kept is None or taken is None:
            return cls(score_reason="content and style are the same to the network")
        return cls(content_kept=kept, style_taken=taken, transfer_score=kept * taken)


def transfer_scores(layers: Sequence[LayerDistance]) -> Scores:
    """The scores of a finished picture from its distances at all convolutions."""
    missing = [
        name for name in ("content", "style") if all(getattr(each, f"{name}_distance") is None for each in layers)
    ]
    if missing:
        return Scores(score_reason=f"no {' and no '.join(missing)} picture")
    return Scores.of(*_shares(layers))


def _shares(layers: Sequence[LayerDistance]) -> tuple[float | None, float | None]:
    """content_kept and style_taken."""
    deep = [layer for layer in layers if block_and_index(layer.layer)[0] >= 3]
    return (
        share_reached([(layer.content_distance, layer.content_baseline) for layer in deep]),
        share_reached([(layer.style_distance, layer.style_baseline) for layer in layers]),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionScores:
    """How good a transfer is in one region of the picture; see `Scores` and `LayerDistance`."""

    label: int
    color: str = ""
    """Of the region in the masks: #rrggbb."""
    protected: bool
    """Whether no style has this region: what concerns the style is None then."""
    area: float
    """Its share of the picture, 0 to 1."""
    content_distance: float
    style_distance: float | None
    """Means over the convolutions."""
    content_kept: float | None
    style_taken: float | None
    transfer_score: float | None

    @classmethod
    def of(cls, label: int, area: float, layers: Sequence[LayerDistance]) -> RegionScores:
        """From its distances at all convolutions; without style distances it is protected."""
        kept, taken = _shares(layers)
        style = [layer.style_distance for layer in layers if layer.style_distance is not None]
        return cls(
            label=label,
            protected=not style,
            area=area,
            content_distance=sum(layer.content_distance or 0.0 for layer in layers) / len(layers),
            style_distance=sum(style) / len(style) if style else None,
            content_kept=kept,
            style_taken=taken,
            transfer_score=None if kept is None or taken is None else kept * taken,
        )


def share_reached(distances: Sequence[tuple[float | None, float | None]]) -> float | None:
    """1 − the mean of min(1, √(distance / baseline)); layers at which the two pictures are equal say nothing."""
    ratios = [
        1.0 if distance is None or not distance < baseline else math.sqrt(distance / baseline)
        for distance, baseline in distances
        if baseline is not None and math.isfinite(baseline) and baseline > 0
    ]
    return 1 - sum(ratios) / len(ratios) if ratios else None
