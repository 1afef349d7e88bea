"""Real photos for the measurements, from scikit-image's and scikit-learn's bundled ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import skimage.data
import sklearn.datasets
import torch
from PIL import Image

from nst_batch.inputs.images import resize, to_array
from nst_batch.transfer import TargetImage


def photo_pairs(size: int) -> list[tuple[TargetImage, TargetImage]]:
    """Two pairs of photos, cropped to size × size: a cat with coffee, a portrait with a flower."""
    bundled: Any = skimage.data
    photos = {name: getattr(bundled, name)() for name in ("chelsea", "coffee", "astronaut")}
    photos["flower"] = sklearn.datasets.load_sample_image("flower.jpg")
    pictures = {name: _picture(name, array, size) for name, array in photos.items()}
    return [(pictures["chelsea"], pictures["coffee"]), (pictures["astronaut"], pictures["flower"])]


def _picture(name: str, array: Any, size: int) -> TargetImage:
    image = Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
    return TargetImage(key=name, pixels=torch.from_numpy(to_array(resize(image, size, "crop"))))
