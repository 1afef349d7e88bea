"""The example pictures: those in the repository are usable, and the script that draws them is deterministic."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = (
    "content/scene",
    "content/still_life",
    "content/abstract",
    "style/swirl",
    "style/mosaic",
    "style/woodcut",
)


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, imported as it imports its own parts: from its folder."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("draw")


@pytest.mark.parametrize("name", NAMES)
def test_stored_picture_is_whole_and_textured(name: str) -> None:
    path = EXAMPLES / f"{name}.jpg"
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (640, 480))
        pixels = np.asarray(image, np.float64)
    assert pixels.std(axis=(0, 1)).min() > 20
    assert path.stat().st_size < 150_000


def test_script_draws_exactly_the_stored_pictures(draw: ModuleType) -> None:
    assert tuple(draw.PICTURES) == NAMES
    stored = {str(path.relative_to(EXAMPLES).with_suffix("")) for path in EXAMPLES.glob("*/*.jpg")}
    assert stored == set(NAMES)


@pytest.mark.parametrize("name", ["content/abstract", "style/mosaic", "style/woodcut"])
def test_drawing_twice_gives_the_same_pixels(draw: ModuleType, name: str) -> None:
    first, second = draw.draw(name, height=60), draw.draw(name, height=60)
    assert first.size == (80, 60)
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_stored_picture_is_what_the_script_draws(draw: ModuleType, name: str) -> None:
    """At an eighth of the size the random detail differs, the composition does not: broad areas correlate."""
    with Image.open(EXAMPLES / f"{name}.jpg") as image:
        stored = np.asarray(image.resize((16, 12), Image.Resampling.BOX), np.float64)
    drawn = np.asarray(draw.draw(name, height=60).resize((16, 12), Image.Resampling.BOX), np.float64)
    assert np.corrcoef(stored.ravel(), drawn.ravel())[0, 1] > 0.8
