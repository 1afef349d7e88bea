"""The report: one HTML file that needs nothing else and asks no network, and PNG files of its sheets and plots."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from nst_batch.records import finite
from nst_batch.results import charts, contact
from nst_batch.results.report_data import relative, report_data
from nst_batch.store.files import Directory
from nst_batch.store.run_directory import RunDirectory

_FILES = Path(__file__).parent / "web"
_SCRIPTS = ("charts.js", "report.js", "answers.js")
_FIGURE_WIDTH = 1_600
"""Pixels of a figure within the page, at most."""


def write_report(run: RunDirectory, folder: Path | None = None) -> str:
    """Writes the report of a run, finished or in progress, and returns where `index.html` is.

    Beside it: `sheet.png`, `reconstruction.png` for reconstruction studies, `ranking.png`, `pareto.png` and
    `curves.png`, each once there is something to draw; and with more than 1,000 trials, `thumbnails/`.

    Args:
        folder: Where to; by default `report/` in the run directory.

    Raises:
        RunDirectoryError: The run cannot be read, or the report not written.
    """
    target = Directory(folder if folder is not None else run.directory.url("report"))
    files = contact.draw_sheets(run)
    data = report_data(run, target, _run_as_seen_from(target, run))
    files |= charts.draw(data)
    for name, image in files.items():
        target.write(name, contact.png(image))
    target.write("index.html", _page(data, files).encode())
    _remove_staging(target)
    return target.url("index.html")


def _page(data: dict[str, Any], files: dict[str, Image.Image]) -> str:
    """The HTML; whatever comes from the run is escaped, and only our script may run."""
    script = "".join((_FILES / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((_FILES / "template.html").read_text(encoding="utf-8"))
    return template.render(
        data=Markup(_embedded(data)),
        study=data["study"],
        provenance=data["provenance"],
        files=sorted(files),
        figure=_figure(files.get("reconstruction.png")),
        script=Markup(script),
        script_hash=digest,
        style=Markup((_FILES / "style.css").read_text(encoding="utf-8")),
    )


def _embedded(data: dict[str, Any]) -> str:
    """JSON that can stand in a script element: nothing in it can end the element."""
    text = json.dumps(finite(data), ensure_ascii=False, allow_nan=False, default=str, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _figure(image: Image.Image | None) -> str | None:
    """A figure as a data URL."""
    if image is None:
        return None
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
        return relative(run.directory.root, target.root)
    return None


def _remove_staging(target: Directory) -> None:
    """Files are written by way of `staging/`; a report has no use for it."""
    if target.is_local:
        staging = Path(target.root, "staging")
        if staging.is_dir() and not any(staging.iterdir()):
            staging.rmdir()
