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
    "first": (("rocket", "swirl"), ("coffee", "woodcut"), ("astronaut", "swirl"), ("flower", "woodcut")),
    "second": (("china", "mosaic"), ("chelsea", "tissue"), ("motorcycle", "mosaic"), ("scene", "tissue")),
}
"""Pairs of content and style; no picture is in both halves."""
SIX = (
    ("rocket", "swirl"), ("china", "mosaic"), ("coffee", "woodcut"), ("chelsea", "swirl"), ("astronaut", "mosaic"),
    ("china", "woodcut"),
)  # fmt: skip
"""Pairs of both halves' pictures and one more, for a larger size."""
SIX_SIZE = 200
LAYERS = "[block1_conv2, block2_conv2, block3_conv3, block4_conv1, block4_conv2, block5_conv3]"
ALPHAS = "[0.005, 0.05, 0.5, 5.0, 50.0]"
"""What is varied together, on the first pair of each half."""


def main() -> None:
    """Writes the pictures, prints the commands and, if asked, runs them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--run", action="store_true")
    chosen = parser.parse_args()
    for half, pairs in (*HALVES.items(), ("six", SIX)):
        _write(chosen.folder / half, pairs)
    for command in commands(chosen.folder, chosen.weights, chosen.size, chosen.steps):
        print("nst-batch", *command, flush=True)
        if chosen.run:
            subprocess.run([sys.executable, "-m", "nst_batch", *command], check=True)


def commands(folder: Path, weights: str, size: int, steps: int) -> list[list[str]]:
    """The seven experiments on both halves and on six pairs, then layers and ratios on a pair of each."""
    network = ["--weights", weights, "--set", "network.normalization=caffe"]
    found = []
    for half, pixels in (*dict.fromkeys(HALVES, size).items(), ("six", SIX_SIZE)):
        pairs = ["--set", f"pairs={folder.absolute() / half / 'pairs.csv'}"]
        edge = ["--size", str(pixels), "--steps", str(steps)]
        found.append(
            ["run", "week7_content_layers", *pairs, *edge, *network, "--out", str(folder / f"{half}-week7")]
        )
    for half, ((content, style), *_) in HALVES.items():
        pair = ["--content", str(folder / half / f"{content}.png"), "--style", str(folder / half / f"{style}.png")]
        axes = ["--set", f"grid.content_layers={LAYERS}", "--set", f"grid.alpha={ALPHAS}"]
        edge = ["--size", str(size * 3 // 4), "--steps", str(steps * 3 // 4)]
        out = ["--out", str(folder / f"{half}-ratios")]
        found.append(["run", "layers_and_ratios", *pair, *axes, *edge, *network, *out])
    return found


def _write(folder: Path, pairs: tuple[tuple[str, str], ...]) -> None:
    """The pictures of a half and the list of its pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        if not (folder / f"{name}.png").exists():
            _picture(name).convert("RGB").save(folder / f"{name}.png")
    rows = [",".join(f"{folder.absolute() / name}.png" for name in pair) for pair in pairs]
    (folder / "pairs.csv").write_text("\n".join(["content,style", *rows]) + "\n")


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
