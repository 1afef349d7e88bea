"""What the report shows, as one JSON document: study, pictures, trials, curves, ranking, failures, provenance."""

from __future__ import annotations

import base64
import io
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from PIL import Image

from nst_batch import __version__
from nst_batch.errors import ImageError, QueryError
from nst_batch.records import Picture
from nst_batch.results import labels
from nst_batch.results.overview import Overview
from nst_batch.results.pictures import finished_picture, input_picture
from nst_batch.results.query import Session
from nst_batch.results.rank import By, notes, rank
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
_SHOWN_VALUES = 12
_TRIAL_COLUMNS = (
    "trial_index", "trial_id", "status", "attempt", "error_type", "error_message", "image_path", "content_distance",
    "style_distance", "final_content_loss", "final_style_loss", "final_total_loss", "steps_done", "stop_reason",
    "seconds",
)  # fmt: skip
_HARDWARE = ("device", "node", "code_version", "weights", "arch", "pooling", "normalization", "optimizer", "loss")


def report_data(run: RunDirectory, thumbnails: Directory | None, pictures_at: str | None) -> dict[str, Any]:
    """The document; nothing in it is NaN.

    Args:
        thumbnails: Where thumbnails are written when they are too many to be inlined.
        pictures_at: The run's directory as seen from the report; None when it cannot be reached from there.
    """
    max_pairs = max(1, MAX_TRIALS // max(len(run.configurations), 1))
    board = Overview(run, max_pairs=max_pairs, max_configurations=MAX_TRIALS, columns=_TRIAL_COLUMNS)
    trials = _trials(board)
    shown = [trial for trial in trials if trial["image_path"]]
    for trial, thumbnail in zip(shown, _thumbnails(board, shown, thumbnails), strict=True):
        trial["thumbnail"] = thumbnail
        trial["picture"] = f"{pictures_at}/{trial['image_path']}" if pictures_at is not None else None
    pictures = list(dict.fromkeys(each for pair in board.pairs for each in (*_content(pair.content), *pair.styles)))
    numbers = {picture: number for number, picture in enumerate(pictures)}
    return {
        "study": _study(board),
        "fields": _fields(board),
        "configurations": _configurations(board),
        "pairs": [
            {
                "label": label,
                "content": numbers[pair.content] if pair.content else None,
                "styles": [numbers[style] for style in pair.styles],
            }
            for pair, label in zip(board.pairs, board.pair_labels, strict=True)
        ],
        "inputs": list(_inputs(board, pictures)),
        "trials": trials,
        "curves": _curves(run, trials),
        "ranking": _rankings(run),
        "failures": _failures(run),
        "provenance": _provenance(run),
    }


def _content(picture: Picture | None) -> list[Picture]:
    return [picture] if picture else []


def _study(board: Overview) -> dict[str, Any]:
    run, counts = board.run, board.run.counts()
    used = list(run.configurations.values())
    weights = list(dict.fromkeys(labels.weights_text(each) for each in used))
    sizes = sorted({each.size for each in used})
    steps = sorted({each.steps for each in used})
    optimizers = sorted({each.optimizer for each in used})
    return {
        "name": run.study["name"],
        "made_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "complete": run.is_complete(),
        "counts": counts,
        "num_trials": run.num_trials,
        "num_pairs": board.num_pairs,
        "num_configurations": board.num_configurations,
        "weights": weights,
        "random": any(each.weights.startswith("random") for each in used),
        "settings": f"{_range(sizes)} pixels · {_range(steps)} steps · {', '.join(optimizers)}",
        "limits": _limits(board),
    }


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]}–{values[-1]}"


def _limits(board: Overview) -> list[str]:
    found = []
    if len(board.pairs) < board.num_pairs:
        found.append(f"Shown one by one: the first {len(board.pairs):,} of {board.num_pairs:,} pairs.")
    if len(board.configurations) < board.num_configurations:
        found.append(f"Shown: {len(board.configurations):,} of {board.num_configurations:,} configurations.")
    return found


def _fields(board: Overview) -> list[dict[str, Any]]:
    """What varies: each field with its values, in the study's order."""
    fields = []
    for name in board.varying:
        values = [labels.value_text(name, getattr(each, name)) for each in board.configurations.values()]
        fields.append({"name": name, "label": name.replace("_", " "), "values": list(dict.fromkeys(values))})
    return fields


def _configurations(board: Overview) -> list[dict[str, Any]]:
    return [
        {
            "id": identity,
            "label": label,
            "values": [labels.value_text(name, getattr(configuration, name)) for name in board.varying],
        }
        for (identity, configuration), label in zip(
            board.configurations.items(), board.configuration_labels, strict=True
        )
    ]


def _trials(board: Overview) -> list[dict[str, Any]]:
    """One entry per trial that is shown and has ended: its place on the board, and its numbers."""
    positions = {identity: number for number, identity in enumerate(board.configurations)}
    shown = dict.fromkeys(("thumbnail", "picture"))
    return [
        {name: row[name] for name in _TRIAL_COLUMNS} | shown | {"pair": pair, "configuration": positions[identity]}
        for (pair, identity), row in board.trials.items()
        if row["status"] != "pending"
    ]


# Pictures


def _thumbnails(
    board: Overview, trials: Sequence[dict[str, Any]], folder: Directory | None
) -> Iterator[str | None]:
    """The address of each trial's thumbnail: a data URL, or a file below `folder` where they are many."""
    edge = next(edge for limit, edge in _THUMBNAIL_EDGES if len(trials) <= limit)

    def made(trial: dict[str, Any]) -> str | None:
        try:
            data = _webp(finished_picture(board.run, trial["image_path"]), edge)
        except ImageError:
            return None
        if len(trials) <= MAX_INLINED or folder is None:
            return _data_url(data)
        # A trial that was tried again has another picture; its attempt keeps browsers from showing the old one.
        path = f"thumbnails/{trial['trial_id'][:2]}/{trial['trial_id']}-{trial['attempt']}.webp"
        if not folder.exists(path):
            folder.write(path, data)
        return path

    with ThreadPoolExecutor(_THREADS, "nst-batch report") as pool:
        yield from pool.map(made, trials)


def _inputs(board: Overview, pictures: Sequence[Picture]) -> Iterator[dict[str, Any]]:
    shape = next(iter(board.run.configurations.values()))
    names = labels.short_names(picture.uri for picture in pictures)

    def made(picture: Picture) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": names[picture.uri], "uri": picture.uri, "thumbnail": None, "reason": None}
        try:
            image = input_picture(picture, shape, edge=min(_INPUT_EDGE, shape.size))
            entry["thumbnail"] = _data_url(_webp(image, _INPUT_EDGE))
        except ImageError as error:
            entry["reason"] = str(error)
        return entry

    with ThreadPoolExecutor(_THREADS, "nst-batch report") as pool:
        yield from pool.map(made, pictures)


def _webp(image: Image.Image, edge: int) -> bytes:
    image.thumbnail((edge, edge), Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    image.save(file, "webp", quality=80, method=2)
    return file.getvalue()


def _data_url(data: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"


# Numbers


def _curves(run: RunDirectory, trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Loss curves of the trials shown, all at the same few steps: by trial_index, for each term of the loss."""
    wanted = [trial["trial_index"] for trial in trials if trial["status"] == "ok"][:MAX_CURVES]
    terms = ("total", "content", "style")
    chosen = f"SELECT trial_index, step, {', '.join(terms)} FROM curves"
    with Session(run) as session:
        table = session.query(f"{chosen} WHERE trial_index IN ({', '.join(map(str, wanted)) or 'NULL'})")
    recorded = np.unique(pc.list_flatten(table["step"]).to_numpy())
    at = (
        recorded[np.unique(np.linspace(0, len(recorded) - 1, CURVE_POINTS).round().astype(int))]
        if len(recorded)
        else recorded
    )
    found: dict[str, Any] = {"steps": at.tolist(), **{term: {} for term in terms}}
    for row in table.to_pylist():
        for term in terms:
            found[term][row["trial_index"]] = _sampled(row["step"], row[term], at)
    return found


def _sampled(steps: Sequence[int], values: Sequence[float], at: npt.NDArray[np.int64]) -> list[float | None]:
    """A curve at other steps, as far as it goes; between its own a straight line on a logarithmic scale."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms = np.interp(at[at <= steps[-1]], steps, np.log(np.array(values, np.float64)))
    return [float(f"{value:.5g}") if value > 0 and math.isfinite(value) else None for value in np.exp(logarithms)]


def _rankings(run: RunDirectory) -> dict[str, Any]:
    """The ranking by both distances and by each, with notes; empty while nothing can be ranked."""
    rankings: dict[str, Any] = {}
    orders: tuple[By, ...] = ("both", "content", "style")
    for by in orders:
        try:
            table = rank(run, by)
        except QueryError:
            continue
        rankings[by] = {"rows": table.to_pylist(), "notes": notes(table)}
    return rankings


def _failures(run: RunDirectory) -> list[dict[str, Any]]:
    """What failed, alike ones together, most frequent first."""
    table = run.table("trials", ["trial_index", "status", "error_type", "error_message"])
    rows = table.filter(pc.not_equal(table["status"], "ok")).to_pylist()
    kinds = Counter((row["status"], row["error_type"], row["error_message"]) for row in rows)
    first = {(row["status"], row["error_type"], row["error_message"]): row["trial_index"] for row in reversed(rows)}
    return [
        {"status": kind[0], "error_type": kind[1], "error_message": kind[2], "count": count, "trial": first[kind]}
        for kind, count in kinds.most_common(200)
    ]


def _provenance(run: RunDirectory) -> list[list[str]]:
    """Pairs of a name and a text: where the numbers come from."""
    table = run.table("trials", [*_HARDWARE, "weights_sha256", "seconds", "peak_memory_bytes", "finished_at"])
    facts = [["study", str(run.study["name"])], ["run directory", run.directory.url()]]
    facts += [["planned", str(run.study.get("created_at", "unknown"))[:19]]]
    for name in _HARDWARE:
        values = sorted({str(value) for value in table[name].unique().to_pylist() if value is not None})
        more = ["…"] if len(values) > _SHOWN_VALUES else []
        facts.append([name.replace("_", " "), ", ".join([*values[:_SHOWN_VALUES], *more]) or "unknown"])
    hashes = sorted({configuration.weights_sha256 for configuration in run.configurations.values()})
    facts.append(["weights SHA-256", ", ".join(hashes)])
    seconds = pc.sum(table["seconds"]).as_py() or 0.0
    facts.append(["seconds of computing, all trials", f"{seconds:,.0f}"])
    peak = pc.max(table["peak_memory_bytes"]).as_py()
    facts.append(["memory of a batch, at most", f"{peak / 2**20:,.0f} MiB" if peak else "unknown"])
    facts.append(["report made by", f"nst-batch {__version__}"])
    return facts


def relative(path: str, start: str) -> str:
    """`path` as a URL relative to the folder `start`, both local."""
    return os.path.relpath(path, start).replace(os.sep, "/")
