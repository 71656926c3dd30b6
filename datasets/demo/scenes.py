"""Draw one demo clip: a coloured object moves over a photographic-looking background.

Everything is procedural: a clip is a pure function of its words, its size and the state of its generator. The order of
COLOURS, SHAPES and MOTIONS is part of the demo's class table (see `render.py`): append, never reorder.

Shapes: H, W picture size in pixels; T frames; P, Q the patch of pixels around the object. Pictures are float32 RGB in
0..255 until they are encoded. Positions are fractions of the picture, x to the right and y down; `time` runs 0..1 over
the clip; object sizes are radii as fractions of the shorter side.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
COLOURS = {
    "red": (205, 32, 36), "white": (242, 242, 238), "blue": (35, 75, 205), "orange": (240, 130, 20),
    "green": (30, 155, 60), "black": (26, 26, 30), "yellow": (238, 215, 40), "purple": (125, 45, 160),
}
BACKDROPS = {
    "plaster": (190, 184, 170), "wood": (150, 108, 70), "grass": (92, 122, 62), "brick": (158, 92, 74),
    "sky": (140, 175, 205), "concrete": (128, 128, 126), "slate": (72, 80, 88), "sand": (206, 184, 142),
}
MIN_CONTRAST = 75.0  # least distance, in RGB levels, between the colours of object and backdrop
TWO_TONE = 20.0  # RGB levels by which an object's halves differ from its middle, so that a turning ball is seen
JITTER_PX = 3  # largest camera displacement from its rest position, in pixels


@dataclass(frozen=True, slots=True)
class Track:
    """Hold the pose of the object in each frame, in arrays of shape [T]."""

    x: Array
    y: Array
    scale: Array  # factor on the object's radius
    angle: Array  # radians, clockwise on screen
    opacity: Array  # 0 hidden .. 1 solid


def _track(time: Array, rng: np.random.Generator, **moving: Array) -> Track:
    """Return the track that stands still at a random place, except for what `moving` overrides."""
    still = {"x": rng.uniform(0.35, 0.65), "y": rng.uniform(0.35, 0.65), "scale": 1.0, "opacity": 1.0,
             "angle": rng.uniform(-0.2, 0.2)}
    return Track(**{name: np.broadcast_to(moving.get(name, value), time.shape) for name, value in still.items()})


def _line(time: Array, rng: np.random.Generator) -> Array:
    """Return a monotone path from -a to +a with a random reach a and random easing."""
    reach, ease = rng.uniform(0.22, 0.34), rng.uniform(0.75, 1.35)
    return reach * (2 * time**ease - 1) + rng.uniform(-0.05, 0.05)


def _bouncing(time: Array, rng: np.random.Generator) -> Track:
    hops, phase, height = rng.uniform(1.5, 3.0), rng.uniform(0, np.pi), rng.uniform(0.35, 0.55)
    y = rng.uniform(0.74, 0.82) - height * np.abs(np.sin(np.pi * hops * time + phase))
    return _track(time, rng, y=y, angle=np.zeros(1))


def _zigzagging(time: Array, rng: np.random.Generator) -> Track:
    corners = 2 * (rng.uniform(1.5, 2.5) * time + rng.uniform(0, 1))
    y = rng.uniform(0.45, 0.55) + rng.uniform(0.17, 0.27) * (2 * np.abs(corners % 2 - 1) - 1)
    return _track(time, rng, x=0.5 + rng.choice((-1, 1)) * _line(time, rng), y=y)


def _swinging(time: Array, rng: np.random.Generator) -> Track:
    swing = np.sin(2 * np.pi * rng.uniform(1.0, 2.0) * time + rng.uniform(0, 2 * np.pi)) * rng.uniform(0.6, 0.85)
    arm = rng.uniform(0.36, 0.46)
    return _track(time, rng, x=0.5 + arm * np.sin(swing), y=0.2 + arm * np.cos(swing), angle=-swing)


def _circling(time: Array, rng: np.random.Generator) -> Track:
    turn = 2 * np.pi * rng.uniform(1.0, 2.0) * rng.choice((-1, 1)) * time + rng.uniform(0, 2 * np.pi)
    radius = rng.uniform(0.22, 0.3)
    return _track(time, rng, x=0.5 + radius * np.cos(turn), y=0.5 + radius * np.sin(turn))


def _spinning(time: Array, rng: np.random.Generator) -> Track:
    turn = 2 * np.pi * rng.uniform(0.7, 1.8) * rng.choice((-1, 1)) * time + rng.uniform(0, 2 * np.pi)
    return _track(time, rng, angle=turn)


def _growing(time: Array, rng: np.random.Generator) -> Track:
    small, large = rng.uniform(0.35, 0.55), rng.uniform(1.35, 1.6)
    return _track(time, rng, scale=small * (large / small) ** time)


def _blinking(time: Array, rng: np.random.Generator) -> Track:
    wave = np.sin(2 * np.pi * rng.uniform(1.5, 3.5) * time + rng.uniform(0, 2 * np.pi))
    return _track(time, rng, opacity=np.clip(0.5 + 4 * wave, 0.0, 1.0))


MOTIONS: dict[str, Callable[[Array, np.random.Generator], Track]] = {
    "sliding left": lambda time, rng: _track(time, rng, x=0.5 - _line(time, rng)),
    "sliding right": lambda time, rng: _track(time, rng, x=0.5 + _line(time, rng)),
    "growing": _growing,
    "shrinking": lambda time, rng: _growing(1 - time, rng),
    "falling": lambda time, rng: _track(time, rng, y=0.5 + _line(time, rng)),
    "rising": lambda time, rng: _track(time, rng, y=0.5 - _line(time, rng)),
    "bouncing": _bouncing, "zigzagging": _zigzagging, "swinging": _swinging, "circling": _circling,
    "spinning": _spinning, "blinking": _blinking,
}

def _triangle(x: Array, y: Array) -> Array:
    slanted = 0.866 * np.abs(x) - 0.5 * y
    return np.maximum(slanted, y) - 0.56


def _cross(x: Array, y: Array) -> Array:
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 1.0, y - 0.32), np.maximum(x - 0.32, y - 1.0))


def _star(x: Array, y: Array) -> Array:
    """Draw five points: the sector between a tip and its neighbouring notch is folded ten times."""
    tip, notch, sector = 1.15, 0.48, np.pi / 5
    radius, turn = np.hypot(x, y), np.arctan2(x, -y) % (2 * sector)
    turn = np.minimum(turn, 2 * sector - turn)
    along, across = radius * np.cos(turn), radius * np.sin(turn)
    notch_along, notch_across = notch * np.cos(sector), notch * np.sin(sector)
    length = np.hypot(tip - notch_along, notch_across)
    return ((along - tip) * notch_across + across * (tip - notch_along)) / length


def _heart(x: Array, y: Array) -> Array:
    """Draw two round lobes, and below each a wedge whose side touches the lobe and ends in the tip at (0, 0.9)."""
    x = np.abs(x)
    lobe_x, lobe_y, lobe_radius, cos, sin = 0.42, -0.3, 0.52, 0.726, 0.6875
    wedge = np.maximum(cos * x + sin * y - 0.9 * sin, sin * (x - lobe_x) - cos * (y - lobe_y))
    lobe = np.hypot(x - lobe_x, y - lobe_y) - lobe_radius
    return np.minimum(lobe, np.maximum(wedge, lobe_y - y))


# Signed distance to the outline (negative inside) of [P, Q] points, in units of the object's radius.
SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "ball": lambda x, y: np.hypot(x, y) - 0.95, "star": _star,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.82, "heart": _heart,
    "triangle": _triangle, "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.75) - 0.24, "cross": _cross,
    "moon": lambda x, y: np.maximum(np.hypot(x, y) - 1.0, 0.82 - np.hypot(x - 0.5, y)),  # a disc less another one
}


def _upsample(grid: Array, height: int, width: int) -> Array:
    """Enlarge a [h, w] grid bilinearly to [H, W] (by indexing: a BLAS call would wake its own threads)."""
    for size in (height, width):
        place = np.linspace(0, grid.shape[0] - 1, size, dtype=np.float32)[:, None]
        low = np.minimum(place.astype(int)[:, 0], grid.shape[0] - 2)
        grid = (grid[low] + (place - low[:, None].astype(np.float32)) * (grid[low + 1] - grid[low])).T
    return grid


def _noise(rng: np.random.Generator, height: int, width: int, cells: tuple[int, int], octaves: int = 4) -> Array:
    """Return multi-octave value noise [H, W], about -1..1; `cells` (down, across) is the coarsest grid."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        down, across = cells[0] * 2**octave + 1, cells[1] * 2**octave + 1
        total += _upsample(rng.uniform(-1, 1, (down, across)).astype(np.float32), height, width) / 1.8**octave
    return total


def _joints(rng: np.random.Generator, height: int, width: int) -> Array:
    """Return the mortar lines [H, W] of a brick wall in 0..1, each second course shifted by half a brick."""
    course = rng.uniform(9, 16)
    rows = (np.arange(height)[:, None] + rng.uniform(0, course)) / course
    columns = np.arange(width)[None] / (course * 2.2) + 0.5 * (np.floor(rows) % 2)
    return np.maximum(rows % 1.0 < 0.13, columns % 1.0 < 0.06).astype(np.float32)


def _texture(kind: str, rng: np.random.Generator, height: int, width: int) -> Array:
    """Return the relief [H, W] in RGB levels that is added to the backdrop's base colour."""
    if kind == "wood":
        grain = _noise(rng, height, width, (10, 1), 3)
        return 9 * np.sin(6 * grain + 0.35 * np.arange(height, dtype=np.float32)[:, None]) + 8 * grain
    if kind == "grass":
        return 14 * _noise(rng, height, width, (20, 40), 3) + 10 * _noise(rng, height, width, (2, 2), 2)
    if kind == "brick":
        return 12 * _noise(rng, height, width, (6, 6)) + 32 * _joints(rng, height, width)
    if kind == "sky":
        return 26 * np.maximum(_noise(rng, height, width, (3, 2)), 0)
    return 11 * _noise(rng, height, width, (3, 3), 5)


def _lighting(rng: np.random.Generator, height: int, width: int) -> Array:
    """Return brightness factors [H, W, 1]: a sloped light, a soft cast shadow and a vignette."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    heading = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0.03, 0.18) * (np.cos(heading) * x + np.sin(heading) * y)
    heading = rng.uniform(0, 2 * np.pi)
    edge = (np.cos(heading) * x + np.sin(heading) * y - rng.uniform(0.1, 1.2)) / rng.uniform(0.15, 0.4)
    shade = rng.uniform(0, 0.3) / (1 + np.exp(-4 * edge))
    return (rng.uniform(0.85, 1.12) * (1 + slope - shade - 0.08 * (x * x + y * y)))[..., None]


def draw_background(rng: np.random.Generator, colour: Array, height: int, width: int) -> Array:
    """Draw a picture [H, W, 3] without the object, of a backdrop that contrasts with the object's `colour` [3]."""
    kinds = list(BACKDROPS)
    while True:
        kind = kinds[rng.integers(len(kinds))]
        base = np.asarray(BACKDROPS[kind]) * rng.uniform(0.75, 1.15) + rng.uniform(-12, 12, 3)
        if np.linalg.norm(base - colour) >= MIN_CONTRAST:
            break
    picture = base.astype(np.float32) + _texture(kind, rng, height, width)[..., None]
    return np.clip(picture * _lighting(rng, height, width), 0, 255).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Look:
    """Hold what stays the same about the object through a clip."""

    shape: Callable[[Array, Array], Array]
    colour: Array
    radius_px: float
    light: tuple[float, float]  # the direction it travels in on the picture; shadows fall that way


def _paint(frame: Array, look: _Look, centre_x: float, centre_y: float, pose: tuple[float, float, float]) -> None:
    """Blend the object and its soft shadow into `frame` [H, W, 3] in place; `pose` is scale, angle, opacity."""
    height, width = frame.shape[:2]
    scale, angle, opacity = pose
    radius = look.radius_px * scale
    reach = 1.7 * radius + 3
    left, right = max(int(centre_x - reach), 0), min(int(centre_x + reach) + 2, width)
    top, bottom = max(int(centre_y - reach), 0), min(int(centre_y + reach) + 2, height)
    if left >= right or top >= bottom or opacity <= 0:
        return
    x = ((np.arange(left, right, dtype=np.float32) - centre_x) / radius)[None]
    y = ((np.arange(top, bottom, dtype=np.float32) - centre_y) / radius)[:, None]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    away_x, away_y = x - 0.22 * look.light[0], y - 0.22 * look.light[1]
    shadow = look.shape(away_x * cos + away_y * sin, away_y * cos - away_x * sin)
    own_x, own_y = x * cos + y * sin, y * cos - x * sin
    outline = look.shape(own_x, own_y)
    patch = frame[top:bottom, left:right]
    patch *= 1 - (0.4 * opacity) * np.clip(0.5 - shadow * 2.5, 0, 1)[..., None]
    cover = (opacity * np.clip(0.5 - outline * radius, 0, 1))[..., None]
    shade = 1 - 0.16 * (x * look.light[0] + y * look.light[1])
    crease = TWO_TONE * np.tanh(6 * own_x)
    patch += cover * (look.colour * shade[..., None] + crease[..., None] - patch)


def _camera(rng: np.random.Generator, length: int) -> Array:
    """Return whole-pixel displacements [T, 2] (down, right) of a hand-held camera."""
    walk = np.cumsum(rng.normal(0, rng.uniform(0, 0.5), (length, 2)), axis=0)
    return np.clip(np.rint(walk), -JITTER_PX, JITTER_PX).astype(int)


def render_frames(colour: str, shape: str, motion: str, length: int, height: int, width: int,
                  rng: np.random.Generator) -> Array:
    """Draw one clip, uint8 [T, H, W, 3] RGB with T = `length`; the words are keys of the tables above."""
    heading = rng.uniform(0, 2 * np.pi)
    shade = np.asarray(COLOURS[colour]) * rng.uniform(0.85, 1.05) + rng.uniform(-12, 12, 3)
    look = _Look(SHAPES[shape], np.clip(shade, 8, 250).astype(np.float32),
                 rng.uniform(0.14, 0.22) * min(width, height), (np.cos(heading), np.sin(heading)))
    track = MOTIONS[motion](np.linspace(0, 1, length), rng)
    wide = draw_background(rng, look.colour, height + 2 * JITTER_PX, width + 2 * JITTER_PX)
    grain = rng.normal(0, rng.uniform(1.0, 4.0), (height + 16, width + 16, 1)).astype(np.float32)
    grain_at = rng.integers(0, 17, (length, 2))
    frames = np.empty((length, height, width, 3), np.uint8)
    for t, ((down, right), (top, left)) in enumerate(zip(_camera(rng, length), grain_at, strict=True)):
        frame = wide[JITTER_PX + down :, JITTER_PX + right :][:height, :width].copy()
        pose = (track.scale[t], track.angle[t], track.opacity[t])
        _paint(frame, look, track.x[t] * width - right, track.y[t] * height - down, pose)
        frame += grain[top : top + height, left : left + width]
        frames[t] = np.clip(frame, 0, 255)
    return frames
