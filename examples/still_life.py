"""The content picture `still_life` of `draw.py`: fruit, a bowl and a bottle on a cloth, ray-marched.

A solid is a function of x (right), y (up) and z (away), each N float32, that returns the signed distance to its
surface, N. Rays walk by that distance until they touch (J. C. Hart, "Sphere tracing", 1996).
"""

# mypy: disable-error-code="no-any-return"
# (NumPy types what its universal functions return as Any, and a solid is little else.)

from collections.abc import Callable

import numpy as np
from canvas import ASPECT, Array, Rng, blend, grid, noise, ramp, rgb, smoothstep
from numpy.typing import NDArray

Solid = Callable[[Array, Array, Array], Array]

GRAPES = ((0.52, 0.09, -0.75), (0.68, 0.09, -0.86), (0.70, 0.09, -0.66), (0.86, 0.09, -0.76), (0.61, 0.22, -0.76),
          (0.77, 0.22, -0.75), (0.99, 0.09, -0.62), (0.87, 0.09, -0.56), (0.84, 0.22, -0.65),
          (1.04, 0.09, -0.80))  # fmt: skip
STEMS = ((-1.38, 0.26, -0.15, 0.5), (0.30, 0.26, -0.34, -0.4), (-0.09, 0.70, -0.53, 0.6))  # foot, and lean
SUN = np.array((-0.76, 0.59, -0.28), np.float32)  # where the light comes from
WINDOW = (-0.62, 0.60)  # where its reflection is seen: x and y of the mirrored ray
WARM, COOL, EARTH = (np.array(light) for light in ((1.22, 1.10, 0.90), (0.30, 0.35, 0.45), (0.20, 0.13, 0.09)))


def _ball(cx: float, cy: float, cz: float, radius: float, dent: float = 0.0) -> Solid:
    """A sphere, or with `dent` the apple-like surface of a circle spun about an axis that it crosses."""

    def distance(x: Array, y: Array, z: Array) -> Array:
        if dent == 0:
            return np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) - radius
        return np.hypot(np.hypot(x - cx, z - cz) - dent, y - cy) - radius

    return distance


def _melt(a: Array, b: Array, width: float) -> Array:
    """Union of two solids whose seam is rounded over `width`."""
    h = np.clip(0.5 + 0.5 * (b - a) / width, 0, 1)
    return b + (a - b) * h - width * h * (1 - h)


def _column(x: Array, y: Array, z: Array, low: float, high: float, radius: float) -> Array:
    """A vertical cylinder with rounded ends about the origin."""
    side, end = np.hypot(x, z) - radius + 0.04, np.abs(y - (low + high) / 2) - (high - low) / 2 + 0.04
    return np.hypot(np.maximum(side, 0), np.maximum(end, 0)) + np.minimum(np.maximum(side, end), 0) - 0.04


def _bottle(x: Array, y: Array, z: Array) -> Array:
    x, y, z = x + 0.78, y + 0.02, z - 0.55
    glass = _melt(_column(x, y, z, 0.0, 1.05, 0.29), _column(x, y, z, 0.9, 1.82, 0.10), 0.22)
    return np.minimum(glass, _column(x, y, z, 1.72, 1.80, 0.125))


def _pear(x: Array, y: Array, z: Array) -> Array:
    return _melt(_ball(-0.12, 0.24, -0.55, 0.27)(x, y, z), _ball(-0.09, 0.62, -0.53, 0.13)(x, y, z), 0.26)


def _bowl(x: Array, y: Array, z: Array) -> Array:
    x, z = x - 0.55, z - 0.45
    shell = np.abs(np.sqrt(x**2 + (y - 0.62) ** 2 + z**2) - 0.60) - 0.025
    return np.minimum(np.maximum(shell, y - 0.48), _column(x, y, z, 0.0, 0.09, 0.26))


def _lemon(x: Array, y: Array, z: Array) -> Array:
    u, w = (x + 0.72) * 0.85 + (z + 0.62) * 0.53, (z + 0.62) * 0.85 - (x + 0.72) * 0.53
    waist = 0.19 * np.clip(1 - (u / 0.33) ** 2, 0, 1) ** 0.6
    return 0.7 * (np.sqrt(np.maximum(np.abs(u) - 0.26, 0) ** 2 + (y - 0.165) ** 2 + w**2) - np.maximum(waist, 0.03))


def _grapes(x: Array, y: Array, z: Array) -> Array:
    return np.minimum.reduce([_ball(*place, 0.105)(x, y, z) for place in GRAPES])


def _cloth_height(x: Array, z: Array) -> Array:
    ridge = np.sin(5 * x + 2.5 * z + 0.8 * np.sin(3 * z)) * np.sin(2.1 * z - 1.2 * x + 0.5)
    return 0.020 * ridge


def _table(x: Array, y: Array, z: Array) -> Array:
    return 0.85 * (y - np.where(_on_cloth(x, z), _cloth_height(x, z), -0.03))


def _wall(_x: Array, _y: Array, z: Array) -> Array:
    return 2.1 - z


def _on_cloth(x: Array, z: Array) -> NDArray[np.bool_]:
    u, w = 0.9 * x + 0.43 * z, 0.9 * z - 0.43 * x
    return (np.abs(u - 0.1) < 1.35 + 0.03 * np.sin(9 * w)) & (np.abs(w + 0.15) < 0.95 + 0.03 * np.sin(8 * u))


def _stems(x: Array, y: Array, z: Array) -> Array:
    stems = []
    for foot_x, foot_y, foot_z, lean in STEMS:
        rise = y - foot_y
        across = np.hypot(x - foot_x - 3 * lean * rise**2, z - foot_z) - 0.014
        stems.append(np.maximum(0.7 * across, np.abs(rise - 0.08) - 0.1))
    return np.minimum.reduce(stems)


SOLIDS: tuple[Solid, ...] = (
    _table, _wall, _bottle, _bowl, _pear, _lemon, _grapes,
    _ball(0.36, 0.55, 0.30, 0.25), _ball(0.80, 0.56, 0.34, 0.25), _ball(0.57, 0.58, 0.72, 0.25),
    _ball(-1.38, 0.16, -0.15, 0.19, 0.09), _ball(0.30, 0.17, -0.34, 0.17, 0.08), _stems,
)  # fmt: skip
# of each of SOLIDS: how much it mirrors, and how rough its skin is
GLOSS = np.array((0.04, 0.02, 1.0, 0.8, 0.25, 0.35, 0.5, 0.35, 0.35, 0.35, 0.7, 0.7, 0.1))
PORES = np.array((0.05, 0.05, 0.02, 0.02, 0.02, 0.07, 0.02, 0.07, 0.07, 0.07, 0.02, 0.02, 0.02))


def _nearest(x: Array, y: Array, z: Array) -> Array:
    return np.minimum.reduce([solid(x, y, z) for solid in SOLIDS])


def _march(start: Array, ray: Array, reach: float, num_steps: int, stride: float = 0) -> tuple[Array, Array]:
    """Distance along each ray (Nx3 from Nx3) to what it touches, at most `reach`; and its narrowest clearance, the
    least of distance to surface over distance walked, which makes soft shadows. Steps are `stride` or longer."""
    walked, clearance = np.full(len(ray), 0.02, np.float32), np.ones(len(ray), np.float32)
    active = np.arange(len(ray))
    for _ in range(num_steps):
        point = start[active] + ray[active] * walked[active, None]
        gap = _nearest(*point.T)
        clearance[active] = np.minimum(clearance[active], 9 * gap / walked[active])
        walked[active] += np.maximum(gap, stride)
        active = active[(gap > 0.0015) & (walked[active] < reach)]
        if len(active) == 0:
            break
    return np.minimum(walked, reach), np.clip(clearance, 0, 1)


def _normal(point: Array) -> Array:
    """Unit normals, Nx3, by differences over the corners of a tetrahedron."""
    total = np.zeros_like(point)
    for corner in np.array([(1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)], np.float32):
        total += corner * _nearest(*(point + 0.002 * corner).T)[:, None]
    return (total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-9)).astype(np.float32)


def _grid_line(along: Array) -> Array:
    """1 on the stripes of the cloth, 0.42 apart, else 0."""
    return smoothstep(0.06, 0.05, np.abs((along / 0.42) % 1 - 0.5) * 0.42)


def _furniture(point: Array, grain: Array) -> tuple[Array, ...]:
    """What colour table (with cloth), wall, bottle and bowl would be at each point, Nx3 each."""
    x, y, z = point.T
    rings = 0.22 * np.sin(24 * z + 1.3 * grain + 2 * np.sin(1.3 * x)) + 0.12 * np.sin(90 * z + 3 * grain)
    wood = ramp(np.clip(0.5 + rings + 0.16 * grain, 0, 1), ["#4a2a18", "#7d4a26", "#a06a38"])
    stripe = np.maximum(_grid_line(0.9 * x + 0.43 * z), _grid_line(0.9 * z - 0.43 * x))
    linen = blend(ramp(0.9 + 0.1 * grain, ["#d8cdb8", "#f3ecdd"]), rgb("#2f5d9a"), 0.72 * stripe)
    wall = ramp(np.clip(0.45 + 0.09 * grain + 0.12 * x - 0.1 * (y - 1), 0, 1), ["#3c4a45", "#6d7562", "#a89a72"])
    band = (np.abs(y - 0.40) < 0.025) | (np.abs(y - 0.68) < 0.012)
    label = np.where(band[:, None], rgb("#b5342a"), rgb("#efe2bd"))
    bottle = np.where((np.abs(y - 0.53) < 0.25)[:, None], label, rgb("#1c3d22"))
    bottle = np.where((y > 1.55)[:, None], rgb("#8f1d20"), bottle)
    rim = (np.abs(y - 0.40) < 0.035) | (np.abs(y - 0.20) < 0.012)
    bowl = np.where(rim[:, None], rgb("#f4f1e6"), rgb("#2b6f9c"))
    return np.where(_on_cloth(x, z)[:, None], linen, wood), wall, bottle, bowl


def _fruit(point: Array, grain: Array) -> tuple[Array, ...]:
    """What colour pear, lemon, grapes, oranges, apples and stems would be at each point, Nx3 each."""
    x, y, z = point.T
    pear = ramp(np.clip(0.35 + 0.9 * x + 0.4 * y + 0.25 * grain, 0, 1), ["#7f9a2c", "#c4bb3c", "#e0b445"])
    turn = np.arctan2(z - np.where(x < 0, -0.15, -0.34), x - np.where(x < 0, -1.38, 0.30))
    streak = 0.62 + 0.22 * np.sin(13 * turn + grain) + 0.16 * np.sin(31 * turn) + 0.5 * np.sin(turn + 1)
    apple = ramp(np.clip(streak, 0, 1), ["#d8b83e", "#cf4a2a", "#a3161f"])
    grape = ramp(np.clip(0.5 + 0.6 * grain, 0, 1), ["#3b1c4f", "#5f2f78"])
    orange, lemon = ramp(0.5 + 0.4 * grain, ["#e87512", "#f79a1e"]), ramp(0.5 + 0.4 * grain, ["#efc92c", "#f8e05a"])
    stem = np.broadcast_to(rgb("#4a3220"), point.shape)
    return pear, lemon, grape, orange, orange, orange, apple, apple, stem


def _view(height: int) -> tuple[Array, Array]:
    """Where the eye is (3) and the ray through each pixel (Nx3)."""
    x, y = grid(height)
    eye, target = np.array((0.0, 1.75, -4.6), np.float32), np.array((-0.06, 0.60, 0.0), np.float32)
    ahead = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross((0, 1, 0), ahead)
    right = right / np.linalg.norm(right)
    up = np.cross(ahead, right)
    ray = 1.82 * ahead + (x - ASPECT / 2).reshape(-1, 1) * right + (0.5 - y).reshape(-1, 1) * up
    return eye, (ray / np.linalg.norm(ray, axis=1, keepdims=True)).astype(np.float32)


def _shine(ray: Array, normal: Array, solid: NDArray[np.intp], lit: Array) -> Array:
    """Brightness, N, of what a glossy surface mirrors: the glow of the light, the panes of a window, the room."""
    mirror = ray - 2 * np.sum(ray * normal, 1, keepdims=True) * normal
    aside, above = np.abs(mirror[:, 0] - WINDOW[0]), mirror[:, 1]
    sill = np.where(solid == 2, -0.45, 0.38)  # the window looks taller in the upright bottle
    window = (aside < 0.17) & (above > sill) & (above < 0.84) & (mirror[:, 2] < 0)
    panes = window & (aside > 0.025) & (np.abs(above - WINDOW[1]) > 0.03)
    fresnel = (1 - np.clip(-np.sum(ray * normal, 1), 0, 1)) ** 4
    glow = np.clip(mirror @ SUN, 0, 1) ** 28 * lit
    return 0.35 * glow + 0.75 * panes * np.clip(lit + 0.3, 0, 1) + 0.35 * fresnel


def still_life(height: int, rng: Rng) -> Array:
    """Oranges in a bowl, apples, a pear, a lemon, grapes and a bottle on a chequered cloth, lit from a window."""
    eye, ray = _view(height)
    walked, _clearance = _march(np.broadcast_to(eye, ray.shape), ray, 9.0, 130)
    point = eye + ray * walked[:, None]
    solid = np.argmin([distance(*point.T) for distance in SOLIDS], axis=0)
    grain = noise(height, 30, rng, 4).ravel()
    smooth = _normal(point)
    normal = smooth + PORES[solid][:, None] * np.stack([noise(height, 110, rng).ravel() for _ in range(3)], -1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    _reach, lit = _march(point + 0.01 * smooth, np.broadcast_to(SUN, ray.shape), 4.0, 60, 0.015)
    open_sky = np.clip(0.35 + 3.2 * _nearest(*(point + 0.2 * smooth).T), 0, 1)
    light = (np.clip(normal @ SUN, 0, 1) * lit)[:, None] * WARM
    light += (open_sky * (0.65 + 0.35 * normal[:, 1]))[:, None] * COOL
    light += (open_sky * np.clip(0.5 - 0.5 * normal[:, 1], 0, 1))[:, None] * EARTH
    paint = np.choose(solid[:, None], (*_furniture(point, grain), *_fruit(point, grain)))
    colour = 1.15 * paint**1.5 * light + (GLOSS[solid] * _shine(ray, normal, solid, lit))[:, None]
    return (np.clip(colour, 0, 1) ** (1 / 1.5)).reshape(height, -1, 3).astype(np.float32)
