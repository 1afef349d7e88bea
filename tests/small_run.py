"""Run directories with real small pictures and chosen distances, made without a network."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nst_batch.inputs.images import encode
from nst_batch.records import Configuration, Curve, Picture, Result, Trial, trial_id
from nst_batch.scores import LayerDistance, RegionScores, transfer_scores
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import RunDirectory
from nst_batch.vocabulary import Encoding, conv_layers
from tests import simulated

EDGE = 24

Distances = Callable[[int, int], tuple[float | None, float | None]]
"""(pair, position of the configuration) → (content_distance, style_distance)."""


def drawing(seed: int, edge: int = EDGE) -> Image.Image:
    """A picture that no other seed has: two gradients and a disc."""
    y, x = np.mgrid[0:edge, 0:edge] / edge
    generator = np.random.default_rng(seed)
    phase, colour = generator.random(2), generator.integers(40, 255, 3)
    disc = (x - phase[0]) ** 2 + (y - phase[1]) ** 2 < 0.1
    levels = np.stack([x * 255, y * 255, np.full_like(x, 255 * phase[0])], axis=-1)
    levels[disc] = colour
    return Image.fromarray(levels.astype(np.uint8))


def inputs(folder: Path, names: Sequence[str]) -> list[Picture]:
    """Pictures on disk, under the given names."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for seed, name in enumerate(names):
        data = encode(drawing(seed))
        path = folder / name
        path.write_bytes(data)
        made.append(stored(path))
    return made


def masked(picture: Picture, path: Path, color: str) -> Picture:
    """The picture with a mask: its left half black, its right half of a colour."""
    mask = Image.new("RGB", (EDGE, EDGE))
    mask.paste(color, (EDGE // 2, 0, EDGE, EDGE))
    path.write_bytes(encode(mask))
    return replace(picture, mask=stored(path))


def stored(path: Path) -> Picture:
    """A picture file as a plan names it."""
    return Picture(uri=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def configurations(*changes: dict[str, Any]) -> list[Configuration]:
    """Configurations for tiny pictures, one for each dictionary."""
    return [simulated.configuration(**({"size": EDGE, "steps": 10} | each)) for each in changes]


def plan(
    contents: Sequence[Picture | None],
    styles: Sequence[Sequence[Picture]],
    chosen: Sequence[Configuration],
    edge: int = EDGE,
) -> Iterator[Trial]:
    """Every content with every style under every configuration."""
    pairs = [(content, tuple(style)) for content in contents for style in styles]
    points = ((pair, configuration) for pair in pairs for configuration in chosen)
    for index, ((content, style), configuration) in enumerate(points):
        yield Trial(
            trial_id=trial_id(content, style, configuration.identity()), trial_index=index, batch=index,
            content=content, styles=style, width=edge, height=edge, configuration=configuration,
        )  # fmt: skip


def curve(index: int, steps: int = 10) -> Curve:
    """A falling loss history."""
    values = tuple((1000.0 + index) * math.exp(-step / 4) + index + 1 for step in range(steps + 1))
    return Curve(
        step=tuple(range(steps + 1)), content=values, style=tuple(value / 2 for value in values),
        tv=(0.0,) * (steps + 1), total=tuple(value * 3 for value in values),
    )  # fmt: skip


def result(of: Trial, distances: tuple[float | None, float | None], encoding: Encoding = "png") -> Result:
    """A trial that ended well, with a picture that its index determines; baselines are 1."""
    content, style = distances
    history = curve(of.trial_index)
    ended = simulated.result(of)
    baseline = None if content is None or style is None else 1.0
    layers = tuple(
        LayerDistance(
            layer=layer, content_distance=content, style_distance=style, content_baseline=baseline,
            style_baseline=baseline,
        )
        for layer in conv_layers("vgg16")
    )  # fmt: skip
    outcome = replace(
        ended.outcome, content_distance=content, style_distance=style, steps_done=10, best_step=10,
        initial=history.at(0), final=history.at(-1), **asdict(transfer_scores(layers)),
    )  # fmt: skip
    picture = encode(drawing(1000 + of.trial_index), encoding)
    halves = (0, 1) if of.content and of.content.mask else ()
    regions = tuple(RegionScores.of(label, 0.5, layers) for label in halves)
    return replace(ended, outcome=outcome, curve=history, layers=layers, regions=regions, image=picture)


def distances_of(kept: float, taken: float) -> tuple[float, float]:
    """The distances that make these shares of content kept and style taken."""
    return (1 - kept) ** 2, (1 - taken) ** 2


def some_distances(pair: int, position: int) -> tuple[float, float]:
    """Later configurations match the style better and keep less content; pairs differ."""
    return 0.1 * (position + 1) + 0.003 * pair, 1 / (position + 1) + 0.002 * ((pair * 7) % 5)


def write(
    path: Path | str,
    trials: Sequence[Trial],
    *,
    distances: Distances = some_distances,
    failing: Sequence[int] = (),
    pending: Sequence[int] = (),
    study: dict[str, Any] | None = None,
    encoding: Encoding = "png",
) -> RunDirectory:
    """A run directory with these trials, of which some failed and some have not ended."""
    run = RunDirectory(path)
    positions = {
        key: number for number, key in enumerate(dict.fromkeys(t.configuration.identity() for t in trials))
    }
    pairs = {key: number for number, key in enumerate(dict.fromkeys((t.content, t.styles) for t in trials))}
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY | (study or {}), trials)
        for trial in trials:
            if trial.trial_index in failing:
                committer.commit(simulated.failure(trial, f"bad luck with {trial.content and trial.content.uri}"))
            elif trial.trial_index not in pending:
                pair = pairs[trial.content, trial.styles]
                position = positions[trial.configuration.identity()]
                committer.commit(result(trial, distances(pair, position), encoding))
        committer.finish()
    return RunDirectory(path)
