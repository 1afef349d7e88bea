"""The three style pictures of `draw.py`: `swirl`, `mosaic` and `woodcut`. Coordinates are those of `canvas.py`."""

import numpy as np
from canvas import ASPECT, Array, Rng, blend, blur, grid, inside, noise, ramp, rgb, smoothstep
from numpy.typing import NDArray
from PIL import Image, ImageDraw

# ---- swirl: brush strokes along a vector field -------------------------------------------------------------

VORTICES = ((0.40, 0.30, 0.24, 1.0), (0.93, 0.24, 0.17, -1.0), (0.70, 0.52, 0.13, 0.9), (0.08, 0.12, 0.13, -0.8),
            (1.25, 0.50, 0.11, 0.8))  # x, y, radius, sense of rotation  # fmt: skip


def _swirl_field(x: Array, y: Array, wobble: Array) -> Array:
    """Direction of the strokes in radians, HxW: around the vortices above the horizon, along furrows below."""
    ground = smoothstep(-0.02, 0.05, y - _horizon(x))
    u, v = np.ones_like(x), 0.35 * np.sin(5 * x + 3 * y) + 0.25 * wobble
    for centre_x, centre_y, radius, sense in VORTICES:
        dx, dy = x - centre_x, y - centre_y
        distance = np.hypot(dx, dy) / radius
        pull = 4 * np.exp(-(distance**2)) * (1 - ground)
        u = u + sense * pull * (-dy - 0.15 * dx) / (distance * radius + 1e-3)
        v = v + sense * pull * (dx - 0.15 * dy) / (distance * radius + 1e-3)
    slope = 0.9 * np.sin(4.2 * x + 9 * (y - 0.7)) + 0.3 * wobble
    return np.arctan2(v * (1 - ground) + slope * ground, u * (1 - ground) + ground).astype(np.float32)


def _horizon(x: Array) -> Array:
    height: Array = 0.69 + 0.05 * np.sin(4.2 * x + 0.6) + 0.02 * np.sin(11 * x)
    return height


def _swirl_colour(x: Array, y: Array, wobble: Array) -> Array:
    """The underpainting that strokes take their colour from, HxWx3: night sky, stars, wheat."""
    sky = ramp(
        np.clip(0.42 + 0.3 * wobble + 0.24 * np.sin(26 * y + 7 * wobble) + 0.18 * y, 0, 1),
        ["#0b1440", "#14286e", "#1f4fa8", "#3f86cf", "#8fc3df"],
    )
    for centre_x, centre_y, radius, sense in VORTICES:
        dx, dy = x - centre_x, y - centre_y
        distance = np.hypot(dx, dy) / radius
        arms = 0.5 + 0.5 * np.sin(11 * distance - 2 * sense * np.arctan2(dy, dx))
        glow = np.exp(-((distance / 0.75) ** 2)).astype(np.float32)
        gold = ramp(np.clip(glow, 0, 1), ["#5aa0cf", "#c9d9a0", "#f4cf3f", "#f9b91c", "#fff3a6"])
        sky = blend(sky, gold, np.clip(glow * (0.45 + 0.8 * arms), 0, 1))
    below = (y - _horizon(x)) / 0.3
    furrow = 0.5 + 0.5 * np.sin(60 * (y - _horizon(x)) * (1.2 - 0.5 * below) + 5 * wobble + 3 * x)
    wheat = ramp(np.clip(0.25 + 0.55 * furrow + 0.15 * wobble, 0, 1), ["#1d3b6e", "#7a6a24", "#d99a17", "#f6cf45"])
    wheat = blend(wheat, rgb("#173a7a"), 0.8 * smoothstep(0.2, 0.0, np.abs(below - 0.02)))
    return blend(sky, wheat, smoothstep(-0.004, 0.004, y - _horizon(x)))


def _trace(start: Array, angle: Array, step: float, num_steps: int) -> Array:
    """Paths (NxTx2, pixels) that follow the direction field `angle` (HxW) from the `start` points (Nx2)."""
    height, width = angle.shape
    points = [start]
    for _ in range(num_steps):
        column = np.clip(points[-1][:, 0], 0, width - 1).astype(int)
        row = np.clip(points[-1][:, 1], 0, height - 1).astype(int)
        heading = angle[row, column]
        points.append(points[-1] + np.float32(step) * np.stack([np.cos(heading), np.sin(heading)], -1))
    return np.stack(points, 1)


def _brush(
    paint: ImageDraw.ImageDraw, relief: ImageDraw.ImageDraw, path: Array, colour: Array, breadth: float, rng: Rng
) -> None:
    """One stroke `breadth` pixels wide: bristles side by side, each with its own shade, height and ragged ends."""
    tangent = np.gradient(path, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], -1) / (np.hypot(*tangent.T)[:, None] + 1e-6)
    num_bristles = max(3, round(breadth / 2.8))
    for bristle in range(num_bristles):
        side = bristle / (num_bristles - 1) - 0.5  # -0.5 and 0.5 are the edges of the stroke
        blunt = 2 * (2 * side) ** 2  # the edges of a stroke are shorter
        head, tail = int(blunt + 1.5 * rng.random()), len(path) - int(blunt + 2 * rng.random())
        line = (path + normal * side * breadth * rng.uniform(0.9, 1.1))[head:tail]
        shade = np.clip(colour * rng.uniform(0.9, 1.09) + rng.normal(0, 0.012, 3), 0, 1) * 255
        points = [(float(px), float(py)) for px, py in line]
        paint.line(points, fill=(int(shade[0]), int(shade[1]), int(shade[2])), width=4)
        relief.line(points, fill=int(rng.uniform(80, 135) + 230 * abs(side)), width=3)


def swirl(height: int, rng: Rng) -> Array:
    """Thousands of impasto strokes that follow whirlpools in a night sky and furrows in a field."""
    x, y = grid(height)
    wobble = noise(height, 4, rng, 3)
    angle = _swirl_field(x, y, wobble)
    colours = _swirl_colour(x, y, wobble)
    canvas = Image.fromarray((colours * 200).astype(np.uint8))
    bumps = Image.new("L", canvas.size, 100)
    paint, relief = ImageDraw.Draw(canvas), ImageDraw.Draw(bumps)
    unit = height / 480
    for num_strokes, breadth, length in ((1800, 15, 64), (2600, 11, 48), (1900, 7.5, 32)):
        margin = length * unit
        corner, far = (-margin, -margin), (canvas.width + margin, canvas.height + margin)
        start = rng.uniform(corner, far, (num_strokes, 2)).astype(np.float32)
        paths = _trace(start, angle, length * unit / 10, 10)
        for path in paths:
            column, row = np.clip(path[5], 0, (canvas.width - 1, canvas.height - 1)).astype(int)
            colour = np.clip(colours[row, column] * rng.uniform(0.72, 1.28) + rng.normal(0, 0.035, 3), 0, 1)
            _brush(paint, relief, path, colour.astype(np.float32), breadth * unit, rng)
    down, right = np.gradient(blur(np.asarray(bumps, np.float32) / 255, 0.9 * unit))
    light = np.clip(4.6 * np.asarray(right + down), -0.5, 0.6)[..., None]
    painted = np.asarray(canvas, np.float32) / 255
    lit = painted * (1 - 0.8 * np.maximum(-light, 0)) + 0.45 * np.maximum(light, 0)
    return np.asarray(np.clip(lit, 0, 1), np.float32)


# ---- mosaic: tesserae laid along contours ------------------------------------------------------------------

SUN = (0.96, 0.25)
FISH = (0.46, 0.73)


def _fish(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Signed "distance" of the fish (negative within), and its own axes: along in [-1, 1], across."""
    along, across = (x - FISH[0]) / 0.32, (y - FISH[1] + 0.05 * np.sin(7 * (x - FISH[0]))) / 0.32
    body = np.hypot(along * 0.85, across / 0.47) - 0.72
    tail = np.maximum(np.abs(across) - 1.0 * (along - 0.55), along - 1.0 - 0.3 * np.abs(across))
    fin = np.maximum(np.abs(along + 0.05 - 0.5 * (np.abs(across) - 0.3)) - 0.22, np.abs(across) - 0.5)
    return np.minimum(np.minimum(body, tail), fin), along, across


def _mosaic_colour(x: Array, y: Array) -> Array:
    """What the mosaic shows, at any points: a rosette sun with rings of sky, wave bands and a fish."""
    dx, dy = x - SUN[0], y - SUN[1]
    radius, turn = np.hypot(dx, dy), np.arctan2(dy, dx) / (2 * np.pi)
    ring = np.floor((radius - 0.2) / 0.066) % 5
    sky = ramp((ring / 4).astype(np.float32), ["#f6ecd0", "#f0c465", "#8fcbc8", "#3f97b5", "#2a6f9e"])
    ray = (np.floor(turn * 20) % 2).astype(np.float32)
    sky = blend(sky, rgb("#f8efd8"), 0.3 * ray)
    petal = np.floor(turn * 24) % 2
    sun = ramp(np.where(radius < 0.085, 0, 0.5 + 0.5 * petal), ["#f7c531", "#f0e0b0", "#d1491f"])
    picture = blend(sky, rgb("#9c2f1b"), (radius < 0.20).astype(np.float32))
    picture = blend(picture, sun, (radius < 0.175).astype(np.float32))
    depth = y - 0.5 - 0.035 * np.sin(9 * x)
    band = np.floor(depth / 0.052) % 5
    sea = ramp((band / 4).astype(np.float32), ["#eef0df", "#5cb8b2", "#1f7f9c", "#174f86", "#122b5c"])
    picture = blend(picture, sea, (depth > 0).astype(np.float32))
    fish, along, across = _fish(x, y)
    scale = (np.floor(along * 9 + 2.2 * np.abs(across)) % 3 / 2).astype(np.float32)
    skin = ramp(scale, ["#e2571e", "#f4a321", "#f8dc7a"])
    skin = blend(skin, rgb("#f3ead2"), ((along < -0.42) & (along > -0.50)).astype(np.float32))
    eye = np.hypot(along + 0.62, across + 0.06)
    skin = blend(skin, rgb("#fbf6e6"), (eye < 0.13).astype(np.float32))
    skin = blend(skin, rgb("#101423"), (eye < 0.06).astype(np.float32))
    picture = blend(picture, rgb("#7a1c17"), (fish < 0.04).astype(np.float32))
    return blend(picture, skin, (fish < -0.03).astype(np.float32))


def _mosaic_angle(x: Array, y: Array) -> Array:
    """Direction along which the rows of tesserae run: the contours of whatever is there."""
    sky = np.arctan2(y - SUN[1], x - SUN[0]) + np.pi / 2
    wave = np.arctan(0.035 * 9 * np.cos(9 * x))
    fish, along, across = _fish(x, y)
    body = np.arctan2(across / 0.22, along * 0.72) + np.pi / 2
    angle = np.where(y - 0.5 - 0.035 * np.sin(9 * x) > 0, wave, sky)
    return np.where(fish < 0.1, body, angle).astype(np.float32)


def _tessellate(x: Array, y: Array, seeds: Array, angle: Array, pitch: float) -> tuple[NDArray[np.intp], Array]:
    """Nearest seed of every pixel in the metric of squares turned by `angle`, and the margin to the next nearest.

    `seeds` is a grid RxCx2 that reaches 3 cells beyond the frame; the 5x5 seeds about a pixel's cell are tried.
    """
    row, column = (y / pitch).astype(int) + 3, (x / pitch).astype(int) + 3
    first = np.full(x.shape, np.inf, np.float32)
    second, owner = first.copy(), np.zeros(x.shape, np.intp)
    cosine, sine = np.cos(angle), np.sin(angle)
    for down in range(-2, 3):
        for right in range(-2, 3):
            index = (row + down) * seeds.shape[1] + column + right
            dx, dy = x - seeds[..., 0].ravel()[index], y - seeds[..., 1].ravel()[index]
            c, s = cosine.ravel()[index], sine.ravel()[index]
            u, v = dx * c + dy * s, dy * c - dx * s
            distance = np.maximum(np.abs(u), np.abs(v)) + 0.25 * np.hypot(u, v)
            nearer = distance < first
            second = np.where(nearer, first, np.minimum(second, distance))
            owner, first = np.where(nearer, index, owner), np.where(nearer, distance, first)
    return owner, second - first


def _lay(height: int, pitch: float, rng: Rng) -> tuple[Array, Array]:
    """Seeds (RxCx2) of even tesserae and their angles: Lloyd's relaxation in the metric of `_tessellate`."""
    rows, columns = int(1 / pitch) + 8, int(ASPECT / pitch) + 8
    cell = np.stack(np.meshgrid(np.arange(columns) - 3, np.arange(rows) - 3), -1) + 0.5
    seeds = ((cell + rng.uniform(-0.35, 0.35, cell.shape)) * pitch).astype(np.float32)
    x, y = grid(height)
    for _ in range(6):
        owner, _margin = _tessellate(x, y, seeds, _mosaic_angle(seeds[..., 0], seeds[..., 1]), pitch)
        count = np.bincount(owner.ravel(), minlength=rows * columns).reshape(rows, columns)
        for axis, values in enumerate((x, y)):
            total = np.bincount(owner.ravel(), values.ravel(), rows * columns).reshape(rows, columns)
            inner = (count > 0) & (cell.min(-1) > 0)
            seeds[..., axis] = np.where(inner, total / np.maximum(count, 1), seeds[..., axis])
    return seeds, _mosaic_angle(seeds[..., 0], seeds[..., 1])


def mosaic(height: int, rng: Rng) -> Array:
    """Irregular tesserae in dark grout, each of its own shade and tilt, in rows that follow the drawing."""
    pitch = 0.0225
    seeds, angle = _lay(height // 2, pitch, rng)
    x, y = grid(height)
    owner, margin = _tessellate(x, y, seeds, angle, pitch)
    centre = seeds.reshape(-1, 2)
    tint = _mosaic_colour(centre[:, 0], centre[:, 1])
    tint = tint * rng.normal(1, 0.11, (len(tint), 1)) + rng.normal(0, 0.03, tint.shape)
    tilt = rng.normal(0, 0.09, centre.shape)
    dx, dy = (x - centre[owner, 0]) / pitch, (y - centre[owner, 1]) / pitch
    slope = dx * (tilt[owner, 0] - 0.08) + dy * (tilt[owner, 1] - 0.12)
    grain = 0.03 * noise(height, 60, rng)
    edge = margin / pitch + 0.05 * noise(height, 60, rng)
    bevel = np.where(dx + dy < 0, 0.16, -0.18) * smoothstep(0.34, 0.2, edge)
    tile = np.clip(tint[owner] * (1 + slope + bevel + grain)[..., None], 0, 1).astype(np.float32)
    grout = ramp(0.5 + 0.3 * noise(height, 60, rng), ["#2b2723", "#5b544b"])
    return blend(grout, tile, smoothstep(0.10, 0.17, edge))


# ---- woodcut: hatching whose width follows tone and whose direction follows form ---------------------------

INK, PAPER, ACCENT = "#15120f", "#f1e6cd", "#c2301c"


def _hatch(phase: Array, light: Array) -> Array:
    """Paper showing (HxW in [0, 1]) between inked lines one `phase` unit apart: wider as `light` goes 0 to 1."""
    return smoothstep(-0.09, 0.09, light - np.abs(2 * (phase % 1) - 1).astype(np.float32))


def _branch(
    pen: ImageDraw.ImageDraw, x: float, y: float, heading: float, length: float, width: float, order: int, rng: Rng
) -> None:
    """A limb of the tree (in pixels and radians) and, from its tip, `order` generations of branches."""
    for _ in range(6):
        heading += rng.normal(0, 0.13)
        tip_x, tip_y = x + length / 6 * np.cos(heading), y + length / 6 * np.sin(heading)
        pen.line([(x, y), (tip_x, tip_y)], fill=255, width=max(1, round(width)))
        pen.ellipse([tip_x - width / 2, tip_y - width / 2, tip_x + width / 2, tip_y + width / 2], fill=255)
        x, y, width = tip_x, tip_y, width * 0.955
    if order > 0:
        for turn in (-0.5, 0.15, 0.55):
            aim, reach = heading + turn + rng.normal(0, 0.12), length * rng.uniform(0.62, 0.82)
            _branch(pen, x, y, aim, reach, width * 0.66, order - 1, rng)


def _lay_form(paper: Array, accent: Array, distance: Array, phase: Array, light: Array) -> tuple[Array, Array]:
    """Prints one form over those behind it: hatching inside, and an inked contour with a cut rim."""
    height = len(paper)
    mask = inside(distance, height)
    cut = np.maximum(_hatch(phase, light), smoothstep(-0.012, -0.009, distance)) * inside(distance + 0.005, height)
    return paper + (cut - paper) * mask, accent * (1 - mask)


def woodcut(height: int, rng: Rng) -> Array:
    """A red sun behind peaks, hills, water and a bare tree, in inked lines on cream paper."""
    x, y = grid(height)
    wobble, rough = noise(height, 5, rng, 3), noise(height, 26, rng, 2)
    radius = np.hypot(x - 0.86, y - 0.30)
    breaks = 0.16 * rough
    paper = _hatch(radius / 0.019 + 0.7 * wobble, 0.98 - 0.95 * radius + breaks)
    accent = inside(radius - 0.15, height)
    paper = blend(paper[..., None], np.ones(1, np.float32), inside(radius - 0.165, height))[..., 0]

    ridge = 0.21 + 0.85 * np.abs(x - 0.47) + 0.06 * noise(height, 9, rng, 4)[len(x) // 2] - 0.02
    side = smoothstep(-0.02, 0.02, x - 0.47 + 0.16 * noise(height, 6, rng, 3) * (y > 0))
    lean = np.where(side > 0.5, x * 0.55 - y * 0.83, x * 0.55 + y * 0.83)
    light = 0.22 + 0.58 * side + 0.3 * wobble - 0.5 * (y - 0.5) + breaks
    paper, accent = _lay_form(paper, accent, ridge - y, lean / 0.019 + 0.8 * wobble, light)
    far = 0.60 - 0.22 * np.exp(-(((x - 1.22) / 0.2) ** 2)) - 0.03 * np.sin(7 * x) + 0.03 * wobble
    phase = (x * 0.8 + y * 0.5) / 0.018 + wobble
    paper, accent = _lay_form(paper, accent, far - y, phase, 0.75 - 2.4 * (y - far) + breaks)
    for crest, swell, pitch in ((0.63, 0.045, 0.019), (0.71, 0.05, 0.021)):
        roll = np.sin(5.3 * x + 40 * crest)
        fall = y - crest - swell * roll - 0.02 * np.sin(11 * x + 9 * crest)
        phase = (x * 0.55 + 1.6 * fall * (1 + roll)) / pitch + wobble
        paper, accent = _lay_form(paper, accent, -fall, phase, 0.95 - 6 * fall + breaks)
    shore = 0.82 + 0.015 * np.sin(6 * x) + 0.006 * rough
    gleam = np.exp(-(((x - 0.86) / (0.12 + 0.5 * (y - 0.82))) ** 2))
    ripple = (y + 0.008 * np.sin(22 * x + 9 * wobble)) / 0.022 + 0.5 * wobble
    paper, accent = _lay_form(paper, accent, shore - y, ripple, 0.25 + 0.55 * gleam + 0.5 * breaks + 0.2 * wobble)
    accent = np.maximum(accent, inside(shore - y + 0.01, height) * _hatch(ripple, 1.5 * gleam - 0.75))
    return _print(paper, accent, height, rng)


def _print(paper: Array, accent: Array, height: int, rng: Rng) -> Array:
    """Adds the tree in front, then presses ink and accent, both slightly worn, on the paper."""
    x, _y = grid(height)
    plate = Image.new("L", (paper.shape[1], height), 0)
    _branch(ImageDraw.Draw(plate), 0.20 * height, 1.02 * height, -1.5, 0.33 * height, 0.10 * height, 4, rng)
    tree = np.asarray(plate, np.float32) / 255
    halo = smoothstep(0.1, 0.25, blur(tree, height / 300))
    bark = tree * _hatch((x + 0.02 * noise(height, 5, rng, 2)) / 0.016, 0.1 + 0.25 * noise(height, 20, rng))
    paper = np.maximum(paper, halo) * (1 - tree) + bark
    accent = accent * (1 - halo)
    wear = noise(height, 120, rng, 2)
    ink = (1 - paper) * (1 - 0.8 * smoothstep(0.95, 1.2, wear))
    stain = accent * (1 - 0.7 * smoothstep(0.8, 1.2, -wear))
    sheet = rgb(PAPER) * (1 + 0.02 * noise(height, 200, rng) + 0.02 * noise(height, 6, rng))[..., None]
    return np.clip(blend(blend(sheet, rgb(ACCENT), stain), rgb(INK), ink * (1 - accent)), 0, 1).astype(np.float32)
