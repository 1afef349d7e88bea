"""What the report shows, as one document: study, pictures, trials, curves, rankings, failures, provenance."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import pyarrow.compute as pc

from nst_batch import __version__
from nst_batch.errors import QueryError, without_secrets
from nst_batch.results import labels
from nst_batch.results.overview import Overview
from nst_batch.results.pages import data_url, webp
from nst_batch.results.query import Session
from nst_batch.results.rank import notes, rank
from nst_batch.store.files import Directory
from nst_batch.store.run_directory import RunDirectory

MAX_TRIALS = 5_000
"""More are not shown one by one; the ranking is of all of them."""
MAX_INLINED = 1_000
"""With more trials thumbnails are files beside the report."""
MAX_CURVES = 2_000
CURVE_POINTS = 48
"""Steps at which a loss curve is drawn, at most."""

_THUMBNAIL_EDGES = ((150, 256), (400, 192), (10**9, 144))
"""Pixels by the number of trials at most."""
_INPUT_EDGE = 256
_THREADS = 4
TERMS = ("total", "content", "style")
_TRIAL_COLUMNS = (
    "trial_index", "trial_id", "status", "error_message", *labels.SCORES, "content_distance", "style_distance",
    "final_total_loss", "steps_done", "seconds", "pair",
)  # fmt: skip
_FAILURES = """
    SELECT status, error_type, error_message, count(*) AS count, min(trial_index) AS trial
    FROM trials WHERE status != 'ok' GROUP BY ALL ORDER BY count DESC, trial LIMIT 200
"""
"""What failed, alike ones together, most frequent first."""
_HARDWARE = ("device", "node", "code_version", "weights", "arch", "pooling", "normalization", "optimizer", "loss")
_MAX_VALUES = 12
"""Of a column of `_HARDWARE` that are named."""

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def report_data(run: RunDirectory, target: Directory, *, fetch: bool = False) -> dict[str, Any]:
    """The document; its curves are as `plots` takes them.

    Args:
        target: Where the report is written, and thumbnails when they are too many to be inlined.
        fetch: Whether inputs that are named by a URL may be fetched.
    """
    max_pairs = max(1, MAX_TRIALS // max(len(run.configurations), 1))
    overview = Overview(run, max_pairs=max_pairs, max_configurations=MAX_TRIALS, fetch=fetch)
    numbers = {picture: number for number, picture in enumerate(overview.inputs)}
    values = {
        key: [labels.value_text(name, getattr(each, name)) for name in overview.varying]
        for key, each in overview.configurations.items()
    }
    with Session(run) as session:
        return {
            "study": _study(overview),
            "fields": [
                {"name": name, "label": name.replace("_", " "), "values": list(dict.fromkeys(texts))}
                for name, *texts in zip(overview.varying, *values.values(), strict=True)
            ],
            "configurations": [
                {"id": key, "label": label, "values": values[key], **_on_curve(overview, key)}
                for key, label in overview.configuration_labels.items()
            ],
            "pairs": [
                {
                    "label": label,
                    "content": content and numbers[content],
                    "styles": [numbers[style] for style in styles],
                }
                for (content, styles), label in zip(overview.pairs, overview.pair_labels, strict=True)
            ],
            "inputs": _inputs(overview),
            "trials": _trials(overview, target),
            "curves": _curves(overview, session),
            "ranking": _ranking(run),
            "failures": session.query(_FAILURES).to_pylist(),
            "provenance": _provenance(run, session),
        }


def _study(overview: Overview) -> dict[str, Any]:
    run, used = overview.run, list(overview.run.configurations.values())
    sizes, steps = ({getattr(each, name) for each in used} for name in ("size", "steps"))
    pixels, evaluations = ("–".join(map(str, sorted({min(found), max(found)}))) for found in (sizes, steps))
    optimizers = ", ".join(sorted({each.optimizer for each in used}))
    return {
        "name": run.study["name"],
        "made_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "complete": run.is_complete(),
        "counts": run.counts(),
        "num_trials": run.num_trials,
        "num_pairs": overview.num_pairs,
        "num_configurations": len(used),
        "weights": list(dict.fromkeys(labels.weights_text(each) for each in used)),
        "random": any(each.weights.startswith("random") for each in used),
        "settings": f"{pixels} pixels · {evaluations} steps · {optimizers}",
        "limits": [f"Shown one by one: {text}." for text in overview.limits],
    }


def _on_curve(overview: Overview, configuration: str) -> dict[str, Any]:
    """Where a configuration is on the curves along alpha."""
    own = overview.configurations[configuration]
    others = [labels.value_text(name, getattr(own, name)) for name in overview.varying if name != labels.STRENGTH]
    return {"strength": own.alpha, "curve": " · ".join(others) or "all"}


# Pictures


def _trials(overview: Overview, target: Directory) -> list[dict[str, Any]]:
    """One entry per trial that is shown and has ended: its place, its numbers and the addresses of its pictures."""
    positions = {key: number for number, key in enumerate(overview.configurations)}
    ended = {place: row for place, row in overview.trials.items() if row["status"] != "pending"}
    num_pictures = sum(row["image_path"] is not None for row in ended.values())
    edge = next(edge for limit, edge in _THUMBNAIL_EDGES if num_pictures <= limit)
    run_at = _run_as_seen_from(target, overview.run)
    folder = target if num_pictures > MAX_INLINED else None

    def entry(place: tuple[int, str]) -> dict[str, Any]:
        row, picture, thumbnail = ended[place], None, None
        if row["image_path"] is not None:
            picture = run_at and f"{run_at}/{row['image_path']}"
            thumbnail = _thumbnail(overview, place, edge, folder)
        found = {name: row[name] for name in _TRIAL_COLUMNS} | {"scores": labels.scores_text(row)}
        return found | {"configuration": positions[place[1]], "picture": picture, "thumbnail": thumbnail}

    return _in_threads(entry, ended)


def _thumbnail(overview: Overview, place: tuple[int, str], edge: int, folder: Directory | None) -> str | None:
    """The address of a trial's small picture: a data URL, or a file in `folder`; None where it cannot be read."""
    row = overview.trials[place]
    # A trial that was tried again has another picture; its attempt keeps browsers from showing the old one.
    path = f"thumbnails/{row['trial_id'][:2]}/{row['trial_id']}-{row['attempt']}.webp"
    if folder and folder.exists(path):
        return path
    image = overview.result(*place, edge).image
    if image and folder:
        folder.write(path, webp(image))
        return path
    return data_url(image) if image else None


def _run_as_seen_from(target: Directory, run: RunDirectory) -> str | None:
    """The way from the report to the run's pictures, if there is one."""
    if target.root == run.directory.url("report"):
        return ".."
    if target.is_local and run.directory.is_local:
        return os.path.relpath(run.directory.root, target.root).replace(os.sep, "/")
    return None


def _inputs(overview: Overview) -> list[dict[str, Any]]:
    pictures = overview.inputs
    names = labels.short_names(picture.uri for picture in pictures)
    tiles = _in_threads(lambda picture: overview.input(picture, _INPUT_EDGE), pictures)
    return [
        {
            "name": names[picture.uri],
            "uri": without_secrets(picture.uri),
            "thumbnail": tile.image and data_url(tile.image),
            "reason": None if tile.image else tile.text,
        }
        for picture, tile in zip(pictures, tiles, strict=True)
    ]


def _in_threads(function: Callable[[_Item], _Made], items: Iterable[_Item]) -> list[_Made]:
    with ThreadPoolExecutor(_THREADS, "nst-batch report") as pool:
        return list(pool.map(function, items))


# Numbers


def _curves(overview: Overview, session: Session) -> dict[str, Any]:
    """Loss curves of the trials shown, all at the same few steps, as shares of the initial picture's loss.

    A curve that has ended keeps its last value; a loss that begins at zero has no curve.
    """
    places = {row["trial_index"]: place for place, row in overview.trials.items() if row["status"] == "ok"}
    wanted = ", ".join(map(str, list(places)[:MAX_CURVES])) or "NULL"
    chosen = f"SELECT trial_index, step, {', '.join(TERMS)} FROM curves WHERE trial_index IN ({wanted})"
    table = session.query(f"{chosen} ORDER BY trial_index")
    recorded = np.unique(pc.list_flatten(table["step"]).to_numpy())
    at = recorded[np.linspace(0, len(recorded) - 1, min(len(recorded), CURVE_POINTS)).round().astype(int)]
    curves = []
    for row in table.to_pylist():
        pair, configuration = places[row["trial_index"]]
        found = {"trial": row["trial_index"], "pair": overview.pair_labels[pair]}
        found |= {"configuration": configuration, "label": overview.configuration_labels[configuration]}
        for term in TERMS:
            if first := row[term][0]:
                shares = np.interp(at, row["step"], row[term]) / first
                found[term] = [float(f"{share:.4g}") for share in shares]
        curves.append(found)
    return {"steps": at.tolist(), "trials": curves}


def _ranking(run: RunDirectory) -> dict[str, Any]:
    """The configurations, best first, and what must be known to read that; no rows while nothing can be ranked."""
    try:
        table = rank(run)
    except QueryError:
        return {"rows": [], "notes": []}
    return {"rows": table.to_pylist(), "notes": notes(table)}


def _provenance(run: RunDirectory, session: Session) -> dict[str, str]:
    """Where the numbers come from."""
    several = ", ".join(f"list(DISTINCT {name} ORDER BY {name}) AS {name}" for name in _HARDWARE)
    totals = "sum(seconds) AS seconds, max(peak_memory_bytes) AS peak"
    [row] = session.query(f"SELECT {several}, {totals} FROM trials").to_pylist()
    facts = {"study": str(run.study["name"]), "run directory": without_secrets(run.directory.url())}
    facts["planned"] = str(run.study.get("created_at", "unknown"))[:19]
    for name in _HARDWARE:
        values = [value for value in row[name] or () if value is not None]
        shown = values[:_MAX_VALUES] + ["…"] * (len(values) > _MAX_VALUES)
        facts[name.replace("_", " ")] = ", ".join(shown) or "unknown"
    return facts | {
        "weights SHA-256": ", ".join(sorted({each.weights_sha256 for each in run.configurations.values()})),
        "seconds of computing, all trials": f"{row['seconds'] or 0:,.0f}",
        "memory of a batch, at most": f"{row['peak'] / 2**20:,.0f} MiB" if row["peak"] else "unknown",
        "report made by": f"nst-batch {__version__}",
    }
