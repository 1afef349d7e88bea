"""HTML pages that need nothing else: no network, no files, and no script but ours may run."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from nst_batch.records import storable
from nst_batch.store.files import STAGING, Directory
from nst_batch.store.run_directory import RunDirectory

_FILES = Path(__file__).parent / "web"


def render(name: str, data: dict[str, Any], libraries: Sequence[str] = (), **more: Any) -> str:
    """A page from `NAME.html`, `NAME.css` and `NAME.js`, and JavaScript `libraries` that come first.

    The page's script reads `data` as JSON, in which NaN is null; the template also knows `more`.
    """
    html, style, own = (
        _FILES.joinpath(f"{name}.{suffix}").read_text(encoding="utf-8") for suffix in ("html", "css", "js")
    )
    scripts = [*libraries, own]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "default": str}
    return environment.from_string(html).render(
        **more,
        data=storable(data),
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        hashes=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
    )


def write_page(
    run: RunDirectory, folder: Path | None, name: str, page: str, files: Mapping[str, bytes] | None = None
) -> str:
    """Writes a page, and files beside it, to `folder` or the run's `report/`, and returns where the page is."""
    target = Directory(folder or run.directory.url("report"))
    for path, content in {**(files or {}), name: page.encode()}.items():
        target.write(path, content)
    if target.is_local:
        with suppress(OSError):  # files are written by way of it; it is not empty while another process writes
            Path(target.root, STAGING).rmdir()
    return target.url(name)


def data_url(image: Image.Image, quality: int = 80) -> str:
    """An address that holds the picture itself, as WebP."""
    file = io.BytesIO()
    image.save(file, "webp", quality=quality, method=2)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
