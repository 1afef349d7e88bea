"""HTML pages that need nothing else: no network, no files, and no script but ours may run."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from nst_batch.store.files import STAGING, Directory
from nst_batch.store.run_directory import RunDirectory
from nst_batch.vocabulary import finite

_FILES = Path(__file__).parent / "web"


def render(name: str, data: dict[str, Any], context: dict[str, Any], libraries: Sequence[str] = ()) -> str:
    """A page from `NAME.html`, `NAME.css` and `NAME.js`.

    Args:
        data: What the page's script reads, as JSON; NaN becomes null.
        context: What the template names beside `data`, `style`, `scripts` and `hashes`.
        libraries: JavaScript that comes before the page's own.
    """
    style, own = (_FILES.joinpath(f"{name}.{suffix}").read_text(encoding="utf-8") for suffix in ("css", "js"))
    scripts = [*libraries, own]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_FILES.joinpath(f"{name}.html").read_text(encoding="utf-8")).render(
        **context,
        data=Markup(_embedded(data)),
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        hashes=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
    )


@contextmanager
def page_folder(run: RunDirectory, folder: Path | None) -> Iterator[Directory]:
    """`folder`, or `report/` in the run directory; without the `staging/` by way of which files are written."""
    target = Directory(folder if folder is not None else run.directory.url("report"))
    yield target
    if target.is_local:
        with suppress(OSError):  # it is not empty: another process writes there
            Path(target.root, STAGING).rmdir()


def webp(image: Image.Image, quality: int = 80) -> bytes:
    """A picture as a WebP file."""
    file = io.BytesIO()
    image.save(file, "webp", quality=quality, method=2)
    return file.getvalue()


def data_url(image: Image.Image, quality: int = 80) -> str:
    """`webp` as an address that holds the picture itself."""
    return f"data:image/webp;base64,{base64.b64encode(webp(image, quality)).decode()}"


def _embedded(data: dict[str, Any]) -> str:
    """JSON that can stand in a script element: nothing in it can end the element."""
    text = json.dumps(finite(data), ensure_ascii=False, allow_nan=False, default=str, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)
