"""The study behind docs/which-layer.md: its pictures, in two halves that have none in common, and its commands.

    python -m benchmarks.which_layer FOLDER --weights FILE.pth           # writes the pictures, prints the commands
    python -m benchmarks.which_layer FOLDER --weights FILE.pth --run     # … and runs them, one after the other

Photos are scikit-image's and scikit-learn's, which may be used freely; paintings are this repository's examples,
and stained tissue from scikit-image as a fourth. Each run resumes where it was interrupted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import skimage.data
import sklearn.datasets
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
HALVES = {
    "first": (("rocket", "coffee", "astronaut", "flower"), ("swirl", "woodcut")),
    "second": (("china", "chelsea", "motorcycle", "scene"), ("mosaic", "tissue")),
}
"""Contents and styles; every content is paired with every style of its half."""
RATIOS = {"first": ("rocket", "swirl"), "second": ("china", "mosaic")}
"""The pair of each half on which layers and strengths are varied together."""


def main() -> None:
    """Writes the pictures, prints the commands and, if asked, runs them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--run", action="store_true")
    chosen = parser.parse_args()
    for half, (contents, styles) in HALVES.items():
        for side, names in (("content", contents), ("style", styles)):
            _write(chosen.folder / half / side, names)
    for command in commands(chosen.folder, chosen.weights, chosen.size, chosen.steps):
        print("nst-batch", *command, flush=True)
        if chosen.run:
            subprocess.run([sys.executable, "-m", "nst_batch", *command], check=True)


def commands(folder: Path, weights: str, size: int, steps: int) -> list[list[str]]:
    """The seven experiments on both halves, then layers and ratios on a pair of each."""
    network = ["--weights", weights, "--set", "network.normalization=caffe"]
    found = []
    for half in HALVES:
        pictures = ["--content", str(folder / half / "content"), "--style", str(folder / half / "style")]
        edge = ["--size", str(size), "--steps", str(steps)]
        out = ["--out", str(folder / f"{half}-week7")]
        found.append(["run", "week7_content_layers", *pictures, *edge, *network, *out])
    for half, (content, style) in RATIOS.items():
        pair = ["--content", str(folder / half / "content" / f"{content}.png")]
        pair += ["--style", str(folder / half / "style" / f"{style}.png")]
        edge = ["--size", str(size * 4 // 5), "--steps", str(steps * 3 // 4)]
        out = ["--out", str(folder / f"{half}-ratios")]
        found.append(["run", "layers_and_ratios", *pair, *edge, *network, *out])
    return found


def _write(folder: Path, names: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / f"{name}.png"
        if not path.exists():
            _picture(name).convert("RGB").save(path)


def _picture(name: str) -> Image.Image:
    bundled: Any = skimage.data
    for kind in ("content", "style"):
        if (EXAMPLES / kind / f"{name}.jpg").is_file():
            return Image.open(EXAMPLES / kind / f"{name}.jpg")
    if name in ("china", "flower"):
        return Image.fromarray(sklearn.datasets.load_sample_image(f"{name}.jpg"))
    if name == "motorcycle":
        return Image.open(Path(bundled.__file__).parent / "motorcycle_left.png")
    return Image.fromarray(getattr(bundled, {"tissue": "immunohistochemistry"}.get(name, name))())


if __name__ == "__main__":
    main()
