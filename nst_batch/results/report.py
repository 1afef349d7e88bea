"""The report: one HTML file that needs nothing else and asks no network, and PNG and SVG files beside it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from nst_batch.records import finite
from nst_batch.results import plots, sheets
from nst_batch.results.report_data import report_data
from nst_batch.store.files import Directory
from nst_batch.store.run_directory import RunDirectory

_FILES = Path(__file__).parent / "web"
_FIGURE_WIDTH = 1_600
"""Pixels of a figure within the page, at most."""


def write_report(run: RunDirectory, folder: Path | None = None) -> str:
    """Writes the report of a run, finished or in progress, and returns where `index.html` is.

    Beside it: `sheet.png`, `reconstruction.png` for reconstruction studies; `ranking`, `pareto` and `curves` as PNG
    and SVG, each once there is something to draw; and with more than 1,000 trials, `thumbnails/`.

    Args:
        folder: Where to; by default `report/` in the run directory.

    Raises:
        RunDirectoryError: The run cannot be read, or the report not written.
    """
    target = Directory(folder if folder is not None else run.directory.url("report"))
    drawn = sheets.draw_sheets(run)
    data = report_data(run, target, _run_as_seen_from(target, run))
    data["plots"] = plots.plots(data)
    del data["curves"]  # the plot has what it shows of them
    files = {name: sheets.png(image) for name, image in drawn.items()}
    for name, specification in data["plots"].items():
        files |= {f"{name}.{suffix}": content for suffix, content in plots.drawn(specification).items()}
    for name, content in files.items():
        target.write(name, content)
    target.write("index.html", _page(data, drawn.get("reconstruction.png"), files).encode())
    _remove_staging(target)
    return target.url("index.html")


def _page(data: dict[str, Any], figure: Image.Image | None, files: Iterable[str]) -> str:
    """The HTML; whatever comes from the run is escaped, and only our scripts may run."""
    vega, script = plots.vega_javascript(), (_FILES / "report.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((_FILES / "template.html").read_text(encoding="utf-8"))
    return template.render(
        data=Markup(_embedded(data)),
        study=data["study"],
        failures=data["failures"],
        provenance=data["provenance"],
        plots=data["plots"],
        files=sorted(files),
        figure=_data_url(figure) if figure else None,
        vega=Markup(vega),
        script=Markup(script),
        hashes=[base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in (vega, script)],
        style=Markup((_FILES / "style.css").read_text(encoding="utf-8")),
    )


def _embedded(data: dict[str, Any]) -> str:
    """JSON that can stand in a script element: nothing in it can end the element."""
    text = json.dumps(finite(data), ensure_ascii=False, allow_nan=False, default=str, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _data_url(image: Image.Image) -> str:
    copy = image.copy()
    copy.thumbnail((_FIGURE_WIDTH, 10 * _FIGURE_WIDTH), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    copy.save(file, "webp", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


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
