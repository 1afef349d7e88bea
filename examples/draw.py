"""Draws the example pictures: three to use as content, three to use as style (see `textures.py`).

    python examples/draw.py [OUT]

writes OUT/content/{scene,still_life,abstract}.jpg and OUT/style/{swirl,mosaic,woodcut}.jpg, 640x480, and masks for
the scene (OUT/masks/content) in two styles (OUT/masks/style): black above the shore takes the swirls, red below it
the mosaic, and the white house keeps its own look. Everything is computed from fixed seeds, so the pictures are
nobody's but this project's, and a second run draws the same ones.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from canvas import ASPECT, Array, Rng, blend, blur, grid, inside, noise, ramp, rgb, smoothstep
from PIL import Image, ImageDraw
from still_life import still_life
from textures import mosaic, swirl, woodcut

HEIGHT = 480
SUPERSAMPLING = 2
QUALITY = 84

# ---- scene: mountains, a lake that mirrors them, a house, trees ----------------------------------------------

SHORE = 0.62
CLUMPS = ((0.02, 0.32, 0.12), (0.12, 0.20, 0.14), (0.26, 0.30, 0.11), (0.22, 0.14, 0.11), (0.00, 0.12, 0.12),
          (0.14, 0.36, 0.09), (0.34, 0.22, 0.07))  # of leaves: x, y, radius  # fmt: skip


def _sky(height: int, rng: Rng) -> Array:
    """Evening sky with lit clouds."""
    x, y = grid(height)
    sky = ramp(np.clip(y / SHORE, 0, 1), ["#2a5ea8", "#5c9ad0", "#a9cde0", "#f7dcae", "#f4b06c"])
    sky = blend(sky, rgb("#fff1c4"), np.exp(-((np.hypot(x - 0.92, y - 0.43) / 0.16) ** 2)))
    billows = noise(height, 5, rng, 6)
    stretched = billows[:, (np.arange(x.shape[1]) * 0.6).astype(int)]
    density = smoothstep(0.0, 0.75, stretched + 0.25 - 1.6 * np.abs(y - 0.17))
    step = height // 60
    behind = np.pad(density, ((0, step), (0, step)), mode="edge")[step:, step:]
    lit = np.clip(0.55 + 1.6 * (density - behind) - 0.25 * density, 0, 1)
    return blend(sky, ramp(lit, ["#8b86a8", "#e6b79b", "#fff6e2"]), 0.92 * density)


def _mountains(picture: Array, rng: Rng) -> Array:
    """Four ranges, each nearer, darker and greener; the first is capped with snow."""
    height = len(picture)
    x, y = grid(height)
    layers = (
        (0.31, 0.11, ["#56699a", "#94a3c6", "#f7dfc6"], 4),
        (0.43, 0.10, ["#3f5f86", "#6d8ba6", "#c5b6a6"], 6),
        (0.51, 0.06, ["#2d5560", "#4f7f74", "#a8b27c"], 8),
        (0.575, 0.035, ["#1d4038", "#3f6e3d", "#98a653"], 10),
    )
    for base, relief, colours, cells in layers:
        profile = noise(height, cells, rng, 6)[height // 3]
        ridge = base - relief * (profile + 0.6 * np.cos(4.5 * (x[0] - 0.45 - 4 * (base - 0.3))))
        folds = 1 - np.abs(noise(height, cells, rng, 5))
        down, right = np.gradient(folds, 1 / height)
        light = np.clip(0.42 + 0.016 * (right - 0.35 * down) + 0.5 * (folds - 0.65) + 0.25 * profile, 0, 1)
        rock = ramp(light, colours)
        if cells == 4:
            snow = smoothstep(0.02, -0.03, y - ridge - 0.09 + 0.09 * folds)
            rock = blend(rock, ramp(light, ["#8fa3cf", "#f2f0f4", "#fff8ea"]), snow)
        rock = blend(rock, rgb("#f0c79c"), np.clip((y - ridge) * 1.5, 0, 0.45))
        picture = blend(picture, rock, inside(ridge - y, height))
    return picture


def _ink(colour: Array) -> tuple[int, int, int]:
    """A colour (3) in the form Pillow wants."""
    red, green, blue = (int(value) for value in np.clip(colour, 0, 1) * 255)
    return red, green, blue


def _image(picture: Array) -> Image.Image:
    """A picture (HxWx3) as an 8-bit image."""
    return Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))


def _pine(pen: ImageDraw.ImageDraw, x: float, y: float, size: float, rng: Rng) -> None:
    """A conifer `size` pixels high that stands at (x, y): tiers, each with a lit right side."""
    shade = rng.uniform(0.75, 1.25)
    for tier in range(6):
        top, low = y - size * (1 - tier * 0.14), y - size * (0.68 - tier * 0.125)
        reach = size * (0.07 + 0.035 * tier) * rng.uniform(0.85, 1.15)
        pen.polygon([(x, top), (x - reach, low), (x + reach, low)], fill=_ink(rgb("#10322a") * shade))
        pen.polygon([(x, top), (x + 0.25 * reach, low), (x + reach, low)], fill=_ink(rgb("#406230") * shade))


def _house(pen: ImageDraw.ImageDraw, x: float, y: float, size: float) -> None:
    """A house with a lit gable, a long shaded wall, a roof, a chimney and windows."""

    def quad(colour: str, *corners: tuple[float, float]) -> None:
        pen.polygon([(x + size * right, y - size * up) for right, up in corners], fill=colour)

    quad("#8a4a36", (-0.72, 0.82), (-0.72, 1.32), (-0.56, 1.32), (-0.56, 0.82))
    quad("#c9a98c", (-1.0, 0), (-1.0, 0.6), (0.2, 0.6), (0.2, 0))
    quad("#f8e6c4", (0.2, 0), (0.2, 0.6), (0.6, 1.12), (1.0, 0.6), (1.0, 0))
    quad("#a8402c", (-1.08, 0.56), (-0.62, 1.14), (0.6, 1.16), (0.14, 0.54))
    quad("#7c2c22", (0.6, 1.2), (0.54, 1.12), (1.04, 0.5), (1.1, 0.54))
    for left in (-0.86, -0.5, -0.14):
        quad("#3a4a5c", (left, 0.2), (left, 0.46), (left + 0.18, 0.46), (left + 0.18, 0.2))
    quad("#5c3a28", (0.48, 0), (0.48, 0.36), (0.72, 0.36), (0.72, 0))
    quad("#f9c95c", (0.5, 0.56), (0.5, 0.8), (0.7, 0.8), (0.7, 0.56))


def _boat(pen: ImageDraw.ImageDraw, x: float, y: float, size: float) -> None:
    """A sailing boat whose mast meets the water at (x, y)."""
    parts = (
        ("#fff4dc", (0.0, 0.13), (0.0, 0.02), (0.06, 0.02)),
        ("#d8533a", (-0.004, 0.11), (-0.004, 0.02), (-0.035, 0.02)),
        ("#5a2f22", (-0.05, 0.015), (0.065, 0.015), (0.045, 0.0), (-0.035, 0.0)),
    )
    for colour, *corners in parts:
        pen.polygon([(x + size * right, y - size * up) for right, up in corners], fill=colour)


def _far_shore(picture: Array, rng: Rng) -> Array:
    """Meadow, forest, house and a sailing boat at the water's edge."""
    height = len(picture)
    x, y = grid(height)
    meadow = SHORE - 0.03 - 0.012 * np.sin(6 * x)
    tone = np.clip((y - meadow) / 0.05 + 0.2 * noise(height, 60, rng, 2), 0, 1)
    grass = ramp(tone, ["#b9bf5a", "#6f9440", "#37602f"])
    image = _image(blend(picture, grass, inside(meadow - y, height)))
    pen = ImageDraw.Draw(image)
    for _ in range(130):
        place = rng.uniform(0, ASPECT)
        size = rng.uniform(0.05, 0.10) * (0.55 if 0.72 < place < 1.1 else 1.25)
        _pine(pen, place * height, (SHORE - rng.uniform(0.012, 0.035)) * height, size * height, rng)
    _house(pen, 0.90 * height, (SHORE - 0.008) * height, 0.075 * height)
    for place, size in ((0.755, 0.15), (1.03, 0.17), (1.075, 0.13)):
        _pine(pen, place * height, (SHORE - 0.006) * height, size * height, rng)
    _boat(pen, 0.56 * height, SHORE * height, height)
    return np.asarray(image, np.float32) / 255


def _lake(picture: Array, rng: Rng) -> Array:
    """Everything above the shore mirrored below it, broken by ripples that grow towards us."""
    height, width = picture.shape[:2]
    x, y = grid(height)
    depth = np.clip((y - SHORE) / (1 - SHORE), 0, 1)
    ripple = noise(height, 90, rng, 2)[:, (np.arange(width) * 0.12).astype(int)]
    ripple = ripple * (0.15 + depth)
    row = np.clip(((2 * SHORE - y) + 0.025 * ripple) * height, 0, height - 1).astype(int)
    column = np.clip((x + 0.018 * ripple) * height, 0, width - 1).astype(int)
    water = blend(picture[row, column], rgb("#16405e"), 0.18 + 0.38 * depth)
    water = blend(water, rgb("#fbe3bd"), 0.4 * smoothstep(0.45, 0.9, ripple))
    water = blend(water, rgb("#fff0d0"), 0.7 * smoothstep(0.006, 0.0, np.abs(y - SHORE - 0.003)))
    return blend(picture, water, inside(SHORE - y, height))


def _foreground(picture: Array, rng: Rng) -> Array:
    """The near bank, its grass and flowers, and a broad-leaved tree."""
    height = len(picture)
    image = _image(picture)
    pen = ImageDraw.Draw(image)
    _tree(pen, height, rng)
    for _ in range(9000):
        x = rng.uniform(0, ASPECT)
        bank = 0.93 - 0.13 * np.exp(-((x / 0.45) ** 2)) + 0.03 * np.sin(5 * x)
        y = bank + rng.uniform(0, 1) ** 1.4 * 0.25
        tone = 0.35 + 2.2 * (y - bank) * rng.uniform(0, 1) + 0.22 * np.sin(17 * x + 9 * y) + rng.normal(0, 0.17)
        colour = ramp(np.clip(tone, 0, 1), ["#1c3b22", "#41702e", "#8aa644", "#d7cf6a"])
        tip = (x + rng.normal(0, 0.012)) * height, (y - rng.uniform(0.015, 0.05)) * height
        pen.line([(x * height, y * height), tip], fill=_ink(colour), width=4)
        if rng.random() < 0.03 and y > bank + 0.02:
            dot = height * rng.uniform(0.003, 0.006)
            petal = ("#f6e9f2", "#e2573f", "#f4c542", "#b48bd8")[rng.integers(4)]
            pen.ellipse([tip[0] - dot, tip[1] - dot, tip[0] + dot, tip[1] + dot], fill=petal)
    return np.asarray(image, np.float32) / 255


def _tree(pen: ImageDraw.ImageDraw, height: int, rng: Rng) -> None:
    """Trunk, limbs and clumps of leaves, lit from the right."""
    for end_x, end_y, width in ((0.10, 0.40, 0.034), (0.27, 0.36, 0.024), (0.02, 0.30, 0.024), (0.17, 0.22, 0.040)):
        for shift, bark in ((0.0, "#2f1d17"), (0.004, "#6b4530"), (0.010, "#a87a50")):
            joints = ((0.15, 0.95), (0.145, 0.58), (end_x, end_y))
            points = [((right + shift) * height, down * height) for right, down in joints]
            pen.line(points, fill=bark, width=round((width - 3 * shift) * height), joint="curve")
    for _ in range(3200):
        x, y, radius = CLUMPS[rng.integers(len(CLUMPS))]
        turn, reach = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random())
        right, down = reach * np.cos(turn), reach * np.sin(turn)
        tone = np.clip(0.42 + 0.3 * right - 0.38 * down + rng.normal(0, 0.14), 0, 1)
        colour = ramp(tone, ["#142b1a", "#2c5526", "#6b8f31", "#d8c85a"])
        across, size = (x + radius * right) * height, height * rng.uniform(0.005, 0.010)
        up = (y + radius * 0.8 * down) * height
        pen.ellipse([across - size, up - 0.7 * size, across + size, up + 0.7 * size], fill=_ink(colour))


def scene(height: int, rng: Rng) -> Array:
    """A landscape: mountains at evening, mirrored in a lake with a house and a boat, under a tree."""
    picture = _mountains(_sky(height, rng), rng)
    return _foreground(_lake(_far_shore(picture, rng), rng), rng)


# ---- abstract: translucent geometry --------------------------------------------------------------------------

# kind, colour, opacity, then x, y, radius (disc); x, y, radius, thickness (ring); x, y, radius, degrees from,
# degrees to (pie), and thickness (arc); the corners (area); the ends and a thickness (line).
SHAPES: tuple[tuple[str, str, float, tuple[float, ...]], ...] = (
    ("area", "#e9b44c", 0.55, (0.00, 1.00, 0.62, 0.00, 0.86, 0.00, 0.36, 1.00)),
    ("area", "#7fb7be", 0.60, (0.62, 0.30, 1.334, 0.52, 1.334, 0.80, 0.50, 0.62)),
    ("disc", "#16213e", 0.93, (0.36, 0.36, 0.235)),
    ("disc", "#5b3a8c", 0.85, (0.33, 0.33, 0.150)),
    ("disc", "#e4572e", 0.90, (0.39, 0.38, 0.075)),
    ("ring", "#e8a0a8", 0.75, (0.36, 0.36, 0.285, 0.020)),
    ("disc", "#e4572e", 0.80, (0.98, 0.30, 0.170)),
    ("disc", "#f2c14e", 0.85, (1.10, 0.42, 0.130)),
    ("disc", "#2a9d8f", 0.75, (0.90, 0.46, 0.115)),
    ("ring", "#16213e", 0.90, (0.98, 0.30, 0.205, 0.008)),
    ("area", "#274690", 0.75, (0.50, 0.93, 0.70, 0.44, 0.90, 0.93)),
    ("area", "#d7263d", 0.70, (0.66, 0.97, 0.94, 0.56, 1.06, 0.97)),
    ("area", "#f2c14e", 0.75, (0.58, 0.80, 1.02, 0.72, 0.84, 0.90)),
    ("pie", "#d7263d", 0.85, (0.16, 0.80, 0.115, 180, 360)),
    ("pie", "#274690", 0.85, (0.28, 0.80, 0.115, 0, 180)),
    ("pie", "#16213e", 0.90, (0.40, 0.80, 0.070, 180, 360)),
    ("arc", "#16213e", 0.95, (1.16, 0.82, 0.150, 150, 380, 0.016)),
    ("arc", "#e4572e", 0.90, (1.16, 0.82, 0.115, 130, 350, 0.020)),
    ("arc", "#2a9d8f", 0.90, (1.16, 0.82, 0.075, 160, 420, 0.024)),
    ("disc", "#16213e", 0.95, (1.16, 0.82, 0.026)),
    ("line", "#16213e", 0.95, (0.04, 0.95, 1.04, 0.05, 0.007)),
    ("line", "#16213e", 0.95, (0.20, 0.06, 1.28, 0.66, 0.005)),
    ("line", "#d7263d", 0.95, (0.56, 0.05, 0.74, 0.98, 0.010)),
    ("disc", "#f7efdc", 0.95, (0.255, 0.265, 0.030)),
    ("disc", "#f2c14e", 0.95, (0.70, 0.14, 0.042)),
    ("ring", "#16213e", 0.95, (0.70, 0.14, 0.058, 0.005)),
    ("disc", "#274690", 0.90, (0.10, 0.12, 0.050)),
    ("ring", "#2a9d8f", 0.90, (0.10, 0.12, 0.078, 0.010)),
    ("disc", "#d7263d", 0.90, (1.25, 0.10, 0.034)),
    ("disc", "#16213e", 0.95, (0.08, 0.58, 0.020)),
    ("area", "#2a9d8f", 0.70, (0.50, 0.08, 0.64, 0.27, 0.47, 0.31)),
    ("area", "#f2c14e", 0.80, (0.55, 0.20, 0.68, 0.32, 0.56, 0.36)),
    ("arc", "#274690", 0.90, (0.36, 0.36, 0.340, 20, 100, 0.012)),
    ("arc", "#d7263d", 0.90, (0.36, 0.36, 0.375, 30, 80, 0.007)),
    ("line", "#2a9d8f", 0.95, (0.83, 0.06, 1.30, 0.22, 0.012)),
)


def _stencil(height: int, kind: str, at: tuple[float, ...]) -> Array:
    """Mask, HxW in {0, 1}, of one entry of `SHAPES`."""
    plate = Image.new("L", (round(height * ASPECT), height), 0)
    pen = ImageDraw.Draw(plate)
    if kind == "area":
        pen.polygon([value * height for value in at], fill=255)
    elif kind == "line":
        pen.line([value * height for value in at[:4]], fill=255, width=round(at[4] * height))
    else:
        centre_x, centre_y, radius = (value * height for value in at[:3])
        box = (centre_x - radius, centre_y - radius, centre_x + radius, centre_y + radius)
        if kind == "disc":
            pen.ellipse(box, fill=255)
        elif kind == "pie":
            pen.pieslice(box, at[3], at[4], fill=255)
        elif kind == "ring":
            pen.ellipse(box, outline=255, width=round(at[3] * height))
        else:
            pen.arc(box, at[3], at[4], fill=255, width=round(at[5] * height))
    return np.asarray(plate, np.float32) / 255


def _board(height: int) -> Array:
    """Mask of a chequered, sheared panel and of a sheaf of parallel lines, the finer rhythms of the picture."""
    x, y = grid(height)
    u, v = (x - 1.02 + 0.25 * (y - 0.6)) / 0.042, (y - 0.575 - 0.18 * (x - 1.02)) / 0.034
    panel = (np.floor(u) + np.floor(v)) % 2 * ((u > 0) & (u < 6) & (v > 0) & (v < 4))
    across, along = x * 0.6 + y * 0.8 - 0.76, x * 0.8 - y * 0.6 + 0.28
    sheaf = (np.abs((across / 0.022) % 1 - 0.5) < 0.16) & (np.abs(across) < 0.09) & (np.abs(along + 0.065) < 0.185)
    return np.asarray(np.maximum(panel, sheaf), np.float32)


def abstract(height: int, rng: Rng) -> Array:
    """Overlapping translucent discs, triangles, arcs and lines on tinted paper, sprayed unevenly."""
    x, y = grid(height)
    cloud = noise(height, 2, rng, 2)
    picture = ramp(np.clip(0.5 + 0.4 * cloud, 0, 1), ["#e3cfae", "#f3e7cf", "#e9dcc8", "#d6dcd6"])
    for number, (kind, name, opacity, at) in enumerate(SHAPES):
        mask = _stencil(height, kind, at)
        turn = 2.4 * number
        spray = 0.9 * ((x - at[0]) * np.cos(turn) + (y - at[1]) * np.sin(turn)) * (kind in {"disc", "area"})
        glow = blur(mask, height / 40) * (1 - mask) * (0.35 if kind == "disc" else 0.12)
        picture = blend(picture, rgb(name) * picture, glow)
        colour = rgb(name) * (0.78 + 0.22 * picture) + 0.26 * np.clip(spray, -0.6, 0.6)[..., None]
        picture = blend(picture, colour, opacity * mask)
    picture = blend(picture, rgb("#16213e"), 0.9 * _board(height))
    return np.clip(picture * (1 + 0.025 * noise(height, 160, rng, 2)[..., None]), 0, 1).astype(np.float32)


# ---- all of them ---------------------------------------------------------------------------------------------

PICTURES: dict[str, Callable[[int, Rng], Array]] = {
    "content/scene": scene,
    "content/still_life": still_life,
    "content/abstract": abstract,
    "style/swirl": swirl,
    "style/mosaic": mosaic,
    "style/woodcut": woodcut,
}


def draw(name: str, height: int = HEIGHT) -> Image.Image:
    """The picture `name`, one of `PICTURES`, `height` pixels high and 4/3 as wide: the same at every call."""
    values = PICTURES[name](SUPERSAMPLING * height, np.random.default_rng(7))
    return _image(values).resize((round(height * ASPECT), height), Image.Resampling.LANCZOS)


HOUSE = ((0.615, 0.575), (0.635, 0.515), (0.7, 0.515), (0.725, 0.575), (0.725, 0.632), (0.615, 0.632))  # x, y


def masks(height: int = HEIGHT) -> dict[str, Image.Image]:
    """Of the scene and of two styles: what is above the shore in black, below it in red, the house in white."""
    width = round(height * ASPECT)
    found = {name: Image.new("RGB", (width, height)) for name in ("content/scene", "style/swirl", "style/mosaic")}
    drawing = ImageDraw.Draw(found["content/scene"])
    drawing.rectangle((0, round(SHORE * height), width, height), fill="red")
    drawing.polygon([(x * width, y * height) for x, y in HOUSE], fill="white")
    found["style/mosaic"].paste("red", (0, 0, width, height))
    return found


def main() -> None:
    """Draws every picture under OUT and says what was written."""
    parser = argparse.ArgumentParser(description="Draw the example content and style pictures.")
    parser.add_argument("out", nargs="?", type=Path, default=Path(__file__).parent, help="folder (default: here)")
    out: Path = parser.parse_args().out
    for name in PICTURES:
        start = time.perf_counter()
        path = out / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(name).save(path, quality=QUALITY, optimize=True, progressive=True)
        print(f"{path}: {path.stat().st_size // 1000} kB, {time.perf_counter() - start:.1f} s")
    for name, mask in masks().items():
        path = out / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        mask.save(path)


if __name__ == "__main__":
    main()
