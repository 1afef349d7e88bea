"""Plans and results that need no network to make: each a function of its trial_index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from nst_batch.records import Configuration, Curve, Losses, Outcome, Picture, Result, Trial, trial_id
from nst_batch.scores import LayerDistance, transfer_scores  # fmt: skip
from nst_batch.vocabulary import conv_layers

STUDY: dict[str, Any] = {"name": "simulated", "fingerprint": "f00d", "code_version": "0"}
STARTED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def configuration(**changes: Any) -> Configuration:
    """A plausible configuration."""
    fields: dict[str, Any] = {
        "size": 300, "fit": "crop", "arch": "vgg16", "weights": "random:0", "weights_sha256": "ab" * 32,
        "pooling": "average", "normalization": "imagenet", "loss": "sum", "content_layers": ("block4_conv2",),
        "style_layers": ("block1_conv1", "block2_conv1"), "style_layer_weights": (), "alpha": 0.5, "beta": 5.0,
        "tv_weight": 0.0, "style_scale": 1.0, "color": "style", "init": "content", "seed": 0,
        "optimizer": "lbfgs", "steps": 300, "learning_rate": 0.02, "pyramid": "auto", "plateau": 0.0,
        "precision": "auto",
    }  # fmt: skip
    return Configuration(**(fields | changes))


CONFIGURATIONS = tuple(configuration(alpha=alpha) for alpha in (0.5, 1.0, 2.0))


def picture(name: str) -> Picture:
    """A picture whose contents are its name."""
    return Picture(uri=f"photos/{name}.jpg", sha256=hashlib.sha256(name.encode()).hexdigest())


def trial(index: int, **changes: Any) -> Trial:
    """The trial at `index` of the simulated plan."""
    content, styles = picture(f"content-{index // 3}"), (picture("style"),)
    chosen = CONFIGURATIONS[index % 3]
    made = Trial(
        trial_id=trial_id(content, styles, chosen.identity()),
        trial_index=index,
        batch=index // 4,
        content=content,
        styles=styles,
        width=300,
        height=200,
        configuration=chosen,
    )
    return replace(made, **changes)


def trials(stop: int, start: int = 0) -> Iterator[Trial]:
    """The simulated plan."""
    return map(trial, range(start, stop))


def curve(index: int, steps: int = 20) -> Curve:
    """A loss history that no other trial has; exact in float32."""
    values = tuple(float(index * 64 + step) for step in range(steps + 1))
    return Curve(step=tuple(range(steps + 1)), content=values, style=values, tv=values, total=values)


def image(index: int, size_bytes: int = 200) -> bytes:
    """Something that begins like a PNG."""
    return (b"\x89PNG\r\n\x1a\n" + index.to_bytes(8, "big")).ljust(size_bytes, b"\0")


def result(of: Trial, *, steps: int = 20, size_bytes: int = 200, **outcome: Any) -> Result:
    """What a worker would return for a trial: ok, unless `outcome` says otherwise."""
    index, history = of.trial_index, curve(of.trial_index, steps)
    ended = Outcome(
        status="ok", steps_done=steps, stop_reason="steps", initial=history.at(0), final=history.at(-1),
        best_step=steps, content_distance=0.25, style_distance=0.5, seconds=1.5, peak_memory_bytes=1 << 33,
        device="cpu", node="here", code_version="0", started_at=STARTED, finished_at=STARTED,
    )  # fmt: skip
    layers = tuple(
        LayerDistance(layer=layer, content_distance=index + position / 16, style_distance=None)
        for position, layer in enumerate(conv_layers("vgg16"))
    )
    return Result(
        trial=of,
        outcome=replace(ended, **asdict(transfer_scores(layers)), **outcome),
        curve=history,
        layers=layers,
        image=image(index, size_bytes),
    )


def failure(of: Trial, message: str = "out of luck") -> Result:
    """A trial that failed before it computed anything."""
    return Result(trial=of, outcome=Outcome(status="failed", error_type="RuntimeError", error_message=message))


def losses(value: float) -> Losses:
    """Losses that are all the same."""
    return Losses(content=value, style=value, tv=value, total=value)
