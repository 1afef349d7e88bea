"""The report: one HTML file that needs nothing else and asks no network, and PNG and SVG files beside it."""

from __future__ import annotations

import os
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow.compute as pc

from nst_batch import __version__
from nst_batch.errors import QueryError, without_secrets
from nst_batch.results import labels, plots, sheets
from nst_batch.results.overview import Overview
from nst_batch.results.pages import data_url, render, write_page
from nst_batch.results.pictures import tile_edge
from nst_batch.results.query import Session
from nst_batch.results.rank import notes, rank
from nst_batch.store.run_directory import RunDirectory

MAX_TRIALS = 2_000
"""More are not shown one by one; the ranking is of all of them."""

_FIGURE_EDGE = 2_000
"""Pixels of a figure within the page, at most, in width and height."""
_INPUT_EDGE = 256
_THREADS = 4
_CURVE_POINTS = 48
"""Steps at which a loss curve is drawn, at most."""
_CURVES_EACH = 50
"""Loss curves of a configuration, at most."""
_CURVES = f"""
    SELECT trial_index, step, {", ".join(plots.TERMS)} FROM curves WHERE status = 'ok'
    QUALIFY row_number() OVER (PARTITION BY configuration ORDER BY trial_index) <= {_CURVES_EACH}
    ORDER BY trial_index LIMIT {MAX_TRIALS}
"""
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


def write_report(run: RunDirectory, folder: Path | None = None, *, fetch: bool = False) -> str:
    """Writes the report of a run, finished or in progress, and returns where `index.html` is.

    Beside it: `sheet.png`, `matrix.png` where layers and alpha vary, `reconstruction.png` for reconstruction
    studies; `ranking`, `tradeoff` and `curves` as PNG and SVG, each once there is something to draw.

    Args:
        folder: Where to; by default `report/` in the run directory.
        fetch: Whether inputs that the plan names by a URL may be fetched: a run may come from anybody.

    Raises:
        RunDirectoryError: The run cannot be read, or the report not written.
    """
    drawn = sheets.draw_sheets(run, fetch=fetch)
    files = {name: sheets.png(image) for name, image in drawn.items()}
    data = _report_data(run, _run_as_seen_from(folder, run), fetch)
    data["plots"] = plots.plots(data)
    del data["curves"]  # the plot has what it shows of them
    for name, specification in data["plots"].items():
        files |= {f"{name}.{suffix}": content for suffix, content in plots.drawn(specification).items()}
    figure = drawn.get("reconstruction.png")
    if figure:
        figure.thumbnail((_FIGURE_EDGE, _FIGURE_EDGE))
    more = {"files": sorted(files), "figure": figure and data_url(figure)}
    page = render("report", data, [plots.vega_javascript()], **more)
    return write_page(run, folder, "index.html", page, files)


def _report_data(run: RunDirectory, run_at: str | None, fetch: bool) -> dict[str, Any]:
    """What the page shows, as one document: study, pictures, trials, curves, rankings, failures, provenance."""
    max_pairs = max(1, MAX_TRIALS // max(len(run.configurations), 1))
    overview = Overview(run, max_pairs=max_pairs, max_configurations=MAX_TRIALS, fetch=fetch)
    numbers = {picture: number for number, picture in enumerate(overview.inputs)}
    values = {
        key: [labels.value_text(name, getattr(each, name)) for name in overview.varying]
        for key, each in overview.configurations.items()
    }
    with Session(run) as session, ThreadPoolExecutor(_THREADS, "nst-batch report") as pool:
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
                    "styles": [numbers[each] for each in styles],
                }
                for (content, styles), label in zip(overview.pairs, overview.pair_labels, strict=True)
            ],
            "inputs": _inputs(overview, pool),
            "trials": _trials(overview, run_at, pool),
            "curves": _curves(overview, session),
            "ranking": _ranking(run),
            "failures": session.query(_FAILURES).to_pylist(),
            "provenance": _provenance(run, session),
        }


def _study(overview: Overview) -> dict[str, Any]:
    run, chosen = overview.run, overview.settings
    return {
        "name": run.study["name"],
        "made_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "complete": run.is_complete(),
        "counts": run.counts(),
        "num_trials": run.num_trials,
        "num_pairs": overview.num_pairs,
        "num_configurations": len(run.configurations),
        "weights": labels.weights_text(chosen),
        "random": chosen.weights.startswith("random"),
        "settings": labels.settings_text(chosen),
        "limits": [f"Shown one by one: {text}." for text in overview.limits],
    }


def _on_curve(overview: Overview, configuration: str) -> dict[str, Any]:
    """Where a configuration is on the curves along alpha."""
    own = overview.configurations[configuration]
    others = [name for name in overview.varying if name != labels.STRENGTH]
    return {"strength": own.alpha, "curve": labels.configuration_label(own, others)}


# Pictures


def _trials(overview: Overview, run_at: str | None, pool: Executor) -> list[dict[str, Any]]:
    """One entry per trial that is shown and has ended: its place, its numbers and the addresses of its pictures."""
    positions = {key: number for number, key in enumerate(overview.configurations)}
    ended = {place: row for place, row in overview.trials.items() if row["status"] != "pending"}
    edge = tile_edge(len(ended))

    def entry(place: tuple[int, str]) -> dict[str, Any]:
        row, tile = ended[place], overview.result(*place, edge)
        return {name: row[name] for name in _TRIAL_COLUMNS} | {
            "configuration": positions[place[1]],
            "scores": labels.scores_text(row),
            "picture": _address(run_at, row["image_path"]),
            "thumbnail": tile.image and data_url(tile.image),
            "reason": None if tile.image else tile.text,
        }

    return list(pool.map(entry, ended))


def _address(run_at: str | None, image_path: str | None) -> str | None:
    """Of a picture that a browser can show."""
    return f"{run_at}/{image_path}" if run_at and image_path and not image_path.endswith(".tif") else None


def _run_as_seen_from(folder: Path | None, run: RunDirectory) -> str | None:
    """The relative URL from the report to the run's pictures, if there is one."""
    if folder is None:
        return ".."
    return quote(os.path.relpath(run.directory.root, folder)) if run.directory.is_local else None


def _inputs(overview: Overview, pool: Executor) -> list[dict[str, Any]]:
    pictures = overview.inputs
    names = labels.short_names(picture.uri for picture in pictures)
    tiles = pool.map(lambda picture: overview.input(picture, _INPUT_EDGE), pictures)
    return [
        {
            "name": names[picture.uri],
            "uri": without_secrets(picture.uri),
            "thumbnail": tile.image and data_url(tile.image),
            "mask": tile.mask and data_url(tile.mask),
            "reason": tile.text,
        }
        for picture, tile in zip(pictures, tiles, strict=True)
    ]


# Numbers


def _curves(overview: Overview, session: Session) -> dict[str, Any]:
    """Loss curves of trials shown, all at the same few steps, as shares of the initial picture's loss.

    A curve that has ended keeps its last value; a loss that begins at zero, or was not recorded, has no curve.
    """
    places, names = {row["trial_index"]: place for place, row in overview.trials.items()}, overview.pair_labels
    table = session.query(_CURVES)
    recorded = np.unique(pc.list_flatten(table["step"]).to_numpy())
    at = recorded[np.linspace(0, len(recorded) - 1, min(len(recorded), _CURVE_POINTS)).round().astype(int)]
    curves = []
    for row in table.to_pylist():
        if row["trial_index"] not in places:
            continue
        pair, configuration = places[row["trial_index"]]
        found = {"trial": row["trial_index"], "pair": names[pair]}
        found |= {"configuration": configuration, "label": overview.configuration_labels[configuration]}
        for term in plots.TERMS:
            if row[term] and row[term][0]:
                shares = np.interp(at, row["step"], row[term]) / row[term][0]
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
