"""The report: one HTML file that needs nothing else and asks no network, and PNG and SVG files beside it."""

from __future__ import annotations

from pathlib import Path

from nst_batch.results import plots, sheets
from nst_batch.results.pages import data_url, page_folder, render
from nst_batch.results.report_data import report_data
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
    drawn = sheets.draw_sheets(run, fetch=fetch)
    files = {name: sheets.png(image) for name, image in drawn.items()}
    with page_folder(run, folder) as target:
        data = report_data(run, target, fetch=fetch)
        data["plots"] = plots.plots(data)
        del data["curves"]  # the plot has what it shows of them
        for name, specification in data["plots"].items():
            files |= {f"{name}.{suffix}": content for suffix, content in plots.drawn(specification).items()}
        for name, content in files.items():
            target.write(name, content)
        context = {name: data[name] for name in ("study", "failures", "provenance", "plots")}
        context |= {"files": sorted(files), "figure": None}
        if figure := drawn.get("reconstruction.png"):
            figure.thumbnail((_FIGURE_EDGE, _FIGURE_EDGE))
            context["figure"] = data_url(figure)
        target.write("index.html", render("report", data, context, [plots.vega_javascript()]).encode())
    return target.url("index.html")
