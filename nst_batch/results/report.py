"""The report: one HTML file that needs nothing else and asks no network, and PNG and SVG files beside it."""

from __future__ import annotations

import os
from pathlib import Path

from nst_batch.results import plots, sheets
from nst_batch.results.pages import data_url, render
from nst_batch.results.report_data import report_data
from nst_batch.store.files import Directory
from nst_batch.store.run_directory import RunDirectory

_FIGURE_EDGE = 2_000
"""Pixels of a figure within the page, at most, in width and height."""


def write_report(run: RunDirectory, folder: Path | None = None, *, fetch: bool = False) -> str:
    """Writes the report of a run, finished or in progress, and returns where `index.html` is.

    Beside it: `sheet.png`, `matrix.png` where layers and alpha vary, `reconstruction.png` for reconstruction
    studies; `ranking`, `tradeoff` and `curves` as PNG and SVG, each once there is something to draw; and with more
    than 1,000 trials, `thumbnails/`.

    Args:
        folder: Where to; by default `report/` in the run directory.
        fetch: Whether inputs that the plan names by a URL may be fetched: a run may come from anybody.

    Raises:
        RunDirectoryError: The run cannot be read, or the report not written.
    """
    target = Directory(folder if folder is not None else run.directory.url("report"))
    drawn = sheets.draw_sheets(run, fetch=fetch)
    data = report_data(run, target, _run_as_seen_from(target, run), fetch=fetch)
    data["plots"] = plots.plots(data)
    del data["curves"]  # the plot has what it shows of them
    files = {name: sheets.png(image) for name, image in drawn.items()}
    for name, specification in data["plots"].items():
        files |= {f"{name}.{suffix}": content for suffix, content in plots.drawn(specification).items()}
    for name, content in files.items():
        target.write(name, content)
    figure = drawn.get("reconstruction.png")
    context = {name: data[name] for name in ("study", "failures", "provenance", "plots")}
    context |= {"files": sorted(files), "figure": data_url(figure, _FIGURE_EDGE) if figure else None}
    target.write("index.html", render("report", data, context, [plots.vega_javascript()]).encode())
    _remove_staging(target)
    return target.url("index.html")


def _run_as_seen_from(target: Directory, run: RunDirectory) -> str | None:
    """The way from the report to the run's pictures, if there is one."""
    if target.root == run.directory.url("report"):
        return ".."
    if target.is_local and run.directory.is_local:
        return os.path.relpath(run.directory.root, target.root).replace(os.sep, "/")
    return None


def _remove_staging(target: Directory) -> None:
    """Files are written by way of `staging/`; a report has no use for it."""
    if target.is_local:
        staging = Path(target.root, "staging")
        if staging.is_dir() and not any(staging.iterdir()):
            staging.rmdir()
