"""Measures of pictures that no network takes part in: scikit-image and SciPy.

- `ssim`: the structural similarity of the finished picture to its content, 1 for equal pictures (Wang, Bovik,
  Sheikh, Simoncelli, "Image quality assessment", IEEE Transactions on Image Processing 2004).
- `color_distance`: how far its colours are from the style's: the Wasserstein distance between their distributions
  along CIELAB's L, a and b, averaged; about 2 is what an eye just sees (CIE76).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from nst_batch.errors import ImageError
from nst_batch.records import Configuration, Picture
from nst_batch.results.overview import PLAN_COLUMNS, Pair
from nst_batch.results.pictures import finished_picture, input_picture
from nst_batch.results.query import Session
from nst_batch.store.run_directory import RunDirectory

_COLOR_SAMPLES = 20_000
"""Pixels of a picture whose colours are compared, evenly spread."""
_SSIM_WINDOW = 7

Levels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Measures:
    """None where a picture is missing."""

    ssim: float | None
    color_distance: float | None


def measure(run: RunDirectory, trials: pa.Table) -> pa.Table:
    """`trials` with the columns `ssim` and `color_distance`.

    Args:
        trials: With `trial_index`.
    """
    measures = _Measured(run)
    sql = (
        "SELECT p.*, t.image_path FROM chosen c JOIN trials t USING (trial_index) JOIN plan p USING (trial_index)"
        "ORDER BY trial_index"
    )
    trials = trials.sort_by("trial_index")
    with Session(run, plan=run.plan(PLAN_COLUMNS), chosen=trials.select(["trial_index"])) as session:
        found = [measures.of(row) for batch in session.batches(sql) for row in batch.to_pylist()]
    table = trials.append_column("ssim", pa.array([each.ssim for each in found], pa.float64()))
    return table.append_column("color_distance", pa.array([each.color_distance for each in found], pa.float64()))


def ssim(image: Image.Image, content: Image.Image) -> float | None:
    """Structural similarity of two pictures, -1 to 1; None if their sizes differ or are below 7 pixels."""
    from skimage.metrics import structural_similarity

    if image.size != content.size or min(image.size) < _SSIM_WINDOW:
        return None
    one, other = _levels(image), _levels(content)
    similarity: Any = structural_similarity  # typed incompletely
    return float(similarity(one, other, channel_axis=2, win_size=_SSIM_WINDOW))


def color_distance(image: Image.Image, *styles: Image.Image) -> float:
    """Mean Wasserstein distance of the CIELAB channels; several styles are taken together."""
    from scipy.stats import wasserstein_distance

    colors = _lab(image)
    style = np.concatenate([_lab(each) for each in styles])
    return float(np.mean([wasserstein_distance(colors[:, channel], style[:, channel]) for channel in range(3)]))


class _Measured:
    """The measures of a run's trials; inputs are read once."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._input = functools.lru_cache(maxsize=64)(self._read_input)

    def of(self, trial: Mapping[str, Any]) -> Measures:
        """The measures of a trial; None for those that cannot be had."""
        configuration, pair = self._run.configurations[trial["configuration"]], Pair.planned(trial)
        if trial["image_path"] is None:
            return Measures(None, None)
        try:
            image = finished_picture(self._run, trial["image_path"])
        except ImageError:
            return Measures(None, None)
        original = self._input(pair.content, configuration) if pair.content else None
        styles = [self._input(style, configuration) for style in pair.styles]
        known = [style for style in styles if style is not None]
        return Measures(
            ssim(image, original) if original else None,
            color_distance(image, *known) if known and len(known) == len(styles) else None,
        )

    def _read_input(self, picture: Picture, configuration: Configuration) -> Image.Image | None:
        try:
            return input_picture(picture, configuration, fetch=True)
        except ImageError:
            return None


def _levels(image: Image.Image) -> Levels:
    return np.asarray(image.convert("RGB"))


def _lab(image: Image.Image) -> npt.NDArray[np.float64]:
    """Nx3: the colours of evenly spread pixels."""
    from skimage.color import rgb2lab

    colors = _levels(image).reshape(-1, 3)
    step = -(-len(colors) // _COLOR_SAMPLES)
    lab: Any = rgb2lab(colors[None, ::step])
    return np.asarray(lab[0], np.float64)
