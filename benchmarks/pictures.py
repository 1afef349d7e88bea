"""Real photos for the measurements, from scikit-image's and scikit-learn's bundled ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import sklearn.datasets
import torch
from PIL import Image

from nst_batch.inputs.images import resize, to_array
from nst_batch.transfer import TargetImage

EXAMPLES = Path(__file__).parents[1] / "examples"


def named_picture(name: str, size: int) -> TargetImage:
    """A photo of scikit-image or scikit-learn, or a style under `examples`, cropped to size × size."""
    if name in ("china", "flower"):
        return _picture(name, sklearn.datasets.load_sample_image(f"{name}.jpg"), size)
    if (path := EXAMPLES / "style" / f"{name}.jpg").exists():
        return _picture(name, Image.open(path), size)
    return _picture(name, getattr(skimage.data, name)(), size)


def photo_pairs(size: int) -> list[tuple[TargetImage, TargetImage]]:
    """Two pairs of photos, cropped to size × size: a cat with coffee, a portrait with a flower."""
    pairs = (("chelsea", "coffee"), ("astronaut", "flower"))
    return [(named_picture(content, size), named_picture(style, size)) for content, style in pairs]


def _picture(name: str, array: Any, size: int) -> TargetImage:
    image = Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
    return TargetImage(key=name, pixels=torch.from_numpy(to_array(resize(image, size, "crop"))))
