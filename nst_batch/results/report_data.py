"""What the report shows, as one document: study, pictures, trials, curves, rankings, failures, provenance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import pyarrow.compute as pc

from nst_batch import __version__
from nst_batch.errors import ImageError, QueryError, without_secrets
from nst_batch.records import Picture
from nst_batch.results import labels
from nst_batch.results.overview import Overview
from nst_batch.results.pages import data_url, webp
from nst_batch.results.pictures import finished_picture, input_picture
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
_MAX_VALUES = 12
TERMS = ("total", "content", "style")
_TRIAL_COLUMNS = (
    "trial_index", "trial_id", "status", "attempt", "error_message", "image_path", *labels.SCORES,
    "content_distance", "style_distance", "final_total_loss", "steps_done", "seconds",
)  # fmt: skip
_HARDWARE = ("device", "node", "code_version", "weights", "arch", "pooling", "normalization", "optimizer", "loss")
_FAILURES = """
    SELECT status, error_type, error_message, count(*) AS count, min(trial_index) AS trial
    FROM trials WHERE status != 'ok' GROUP BY ALL ORDER BY count DESC, trial LIMIT 200
"""
"""What failed, alike ones together, most frequent first."""

Row = dict[str, Any]
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def report_data(
    run: RunDirectory, thumbnails: Directory | None, pictures_at: str | None, *, fetch: bool = False
) -> dict[str, Any]:
    """The document; its curves are as `plots` takes them.

    Args:
        thumbnails: Where thumbnails are written when they are too many to be inlined.
        pictures_at: The run's directory as seen from the report; None when it cannot be reached from there.
        fetch: Whether inputs that are named by a URL may be fetched.
    """
    max_pairs = max(1, MAX_TRIALS // max(len(run.configurations), 1))
    overview = Overview(run, max_pairs=max_pairs, max_configurations=MAX_TRIALS, columns=_TRIAL_COLUMNS)
    trials = _trials(overview)
    _add_pictures(run, trials, thumbnails, pictures_at)
    inputs = list(dict.fromkeys(each for pair in overview.pairs for each in (pair.content, *pair.styles) if each))
    numbers = {picture: number for number, picture in enumerate(inputs)}
    with Session(run) as session:
        return {
            "study": _study(overview),
            "fields": _fields(overview),
            "configurations": _configurations(overview),
            "pairs": _pairs(overview, numbers),
            "inputs": _inputs(overview, inputs, fetch),
            "trials": trials,
            "curves": _curves(overview, session, trials),
            "ranking": _ranking(run),
            "failures": session.query(_FAILURES).to_pylist(),
            "provenance": _provenance(run, session),
        }


def _study(overview: Overview) -> dict[str, Any]:
    run, used = overview.run, list(overview.run.configurations.values())
    limits = []
    if len(overview.pairs) < overview.num_pairs:
        limits.append(f"Shown one by one: the first {len(overview.pairs):,} of {overview.num_pairs:,} pairs.")
    if len(overview.configurations) < overview.num_configurations:
        limits.append(f"Shown: {len(overview.configurations):,} of {overview.num_configurations:,} configurations.")
    optimizers = ", ".join(sorted({each.optimizer for each in used}))
    return {
        "name": run.study["name"],
        "made_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "complete": run.is_complete(),
        "counts": run.counts(),
        "num_trials": run.num_trials,
        "num_pairs": overview.num_pairs,
        "num_configurations": overview.num_configurations,
        "weights": list(dict.fromkeys(labels.weights_text(each) for each in used)),
        "random": any(each.weights.startswith("random") for each in used),
        "settings": f"{_range(each.size for each in used)} pixels · {_range(each.steps for each in used)} steps · "
        f"{optimizers}",
        "limits": limits,
    }


def _range(values: Iterable[int]) -> str:
    found = set(values)
    return "–".join(str(value) for value in sorted({min(found), max(found)}))


def _fields(overview: Overview) -> list[Row]:
    """What varies: each field with its values, in the study's order."""
    values = {
        name: [labels.value_text(name, getattr(each, name)) for each in overview.configurations.values()]
        for name in overview.varying
    }
    return [
        {"name": name, "label": name.replace("_", " "), "values": list(dict.fromkeys(texts))}
        for name, texts in values.items()
    ]


def _configurations(overview: Overview) -> list[Row]:
    names = zip(overview.configurations.items(), overview.configuration_labels, strict=True)
    return [
        {
            "id": identity,
            "label": label,
            "values": [labels.value_text(name, getattr(configuration, name)) for name in overview.varying],
        }
        for (identity, configuration), label in names
    ]


def _pairs(overview: Overview, numbers: Mapping[Picture, int]) -> list[Row]:
    return [
        {
            "label": label,
            "content": numbers[pair.content] if pair.content else None,
            "styles": [numbers[style] for style in pair.styles],
        }
        for pair, label in zip(overview.pairs, overview.pair_labels, strict=True)
    ]


def _trials(overview: Overview) -> list[Row]:
    """One entry per trial that is shown and has ended: its place, and its numbers."""
    positions = {identity: number for number, identity in enumerate(overview.configurations)}
    pictures = dict.fromkeys(("thumbnail", "picture"))
    return [
        {name: row[name] for name in _TRIAL_COLUMNS}
        | pictures
        | {"pair": pair, "configuration": positions[identity]}
        for (pair, identity), row in overview.trials.items()
        if row["status"] != "pending"
    ]


# Pictures


def _add_pictures(
    run: RunDirectory, trials: Sequence[Row], folder: Directory | None, pictures_at: str | None
) -> None:
    """Adds the address of each trial's picture, and its thumbnail: a data URL, or a file where they are many."""
    shown = [trial for trial in trials if trial["image_path"]]
    edge = next(edge for limit, edge in _THUMBNAIL_EDGES if len(shown) <= limit)
    target = folder if len(shown) > MAX_INLINED else None

    def add(trial: Row) -> None:
        trial["picture"] = f"{pictures_at}/{trial['image_path']}" if pictures_at is not None else None
        # A trial that was tried again has another picture; its attempt keeps browsers from showing the old one.
        path = f"thumbnails/{trial['trial_id'][:2]}/{trial['trial_id']}-{trial['attempt']}.webp"
        if target is not None and target.exists(path):
            trial["thumbnail"] = path
            return
        try:
            picture = finished_picture(run, trial["image_path"])
        except ImageError:
            return
        trial["thumbnail"] = data_url(picture, edge) if target is None else path
        if target is not None:
            target.write(path, webp(picture, edge))

    _in_threads(add, shown)


def _inputs(overview: Overview, pictures: Sequence[Picture], fetch: bool) -> list[Row]:
    shape = next(iter(overview.run.configurations.values()))
    names = labels.short_names(picture.uri for picture in pictures)

    def made(picture: Picture) -> Row:
        entry: Row = {
            "name": names[picture.uri],
            "uri": without_secrets(picture.uri),
            "thumbnail": None,
            "reason": None,
        }
        try:
            image = input_picture(picture, shape, edge=min(_INPUT_EDGE, shape.size), fetch=fetch)
            entry["thumbnail"] = data_url(image, _INPUT_EDGE)
        except ImageError as error:
            entry["reason"] = str(error)
        return entry

    return _in_threads(made, pictures)


def _in_threads(function: Callable[[_Item], _Made], items: Iterable[_Item]) -> list[_Made]:
    with ThreadPoolExecutor(_THREADS, "nst-batch report") as pool:
        return list(pool.map(function, items))


# Numbers


def _curves(overview: Overview, session: Session, trials: Sequence[Row]) -> dict[str, Any]:
    """Loss curves of the trials shown, all at the same few steps, as shares of the initial picture's loss.

    A curve that has ended keeps its last value; a loss that begins at zero has no curve.
    """
    known = {trial["trial_index"]: trial for trial in trials if trial["status"] == "ok"}
    wanted = ", ".join(map(str, list(known)[:MAX_CURVES])) or "NULL"
    chosen = f"SELECT trial_index, step, {', '.join(TERMS)} FROM curves WHERE trial_index IN ({wanted})"
    table = session.query(f"{chosen} ORDER BY trial_index")
    recorded = np.unique(pc.list_flatten(table["step"]).to_numpy())
    at = recorded[np.linspace(0, len(recorded) - 1, min(len(recorded), CURVE_POINTS)).round().astype(int)]
    identities, curves = list(overview.configurations), []
    for row in table.to_pylist():
        trial = known[row["trial_index"]]
        found = {"trial": row["trial_index"], "configuration": identities[trial["configuration"]]}
        for term in TERMS:
            if first := row[term][0]:
                shares = np.interp(at, row["step"], row[term]) / first
                found[term] = [float(f"{share:.4g}") for share in shares]
        curves.append(found | {"pair": overview.pair_labels[trial["pair"]]})
    return {"steps": at.tolist(), "trials": curves}


def _ranking(run: RunDirectory) -> Row:
    """The configurations, best first, and what must be known to read that; no rows while nothing can be ranked."""
    try:
        table = rank(run)
    except QueryError:
        return {"rows": [], "notes": []}
    return {"rows": table.to_pylist(), "notes": notes(table)}


def _provenance(run: RunDirectory, session: Session) -> dict[str, str]:
    """Where the numbers come from."""
    facts = {"study": str(run.study["name"]), "run directory": run.directory.url()}
    facts["planned"] = str(run.study.get("created_at", "unknown"))[:19]
    for name in _HARDWARE:
        chosen = f"SELECT DISTINCT {name} FROM trials WHERE {name} IS NOT NULL ORDER BY 1 LIMIT {_MAX_VALUES + 1}"
        values = [str(value) for value in session.query(chosen)[name].to_pylist()]
        shown = values[:_MAX_VALUES] + ["…"] * (len(values) > _MAX_VALUES)
        facts[name.replace("_", " ")] = ", ".join(shown) or "unknown"
    facts["weights SHA-256"] = ", ".join(sorted({each.weights_sha256 for each in run.configurations.values()}))
    [total] = session.query(
        "SELECT sum(seconds) AS seconds, max(peak_memory_bytes) AS peak FROM trials"
    ).to_pylist()
    facts["seconds of computing, all trials"] = f"{total['seconds'] or 0:,.0f}"
    facts["memory of a batch, at most"] = f"{total['peak'] / 2**20:,.0f} MiB" if total["peak"] else "unknown"
    facts["report made by"] = f"nst-batch {__version__}"
    return facts
