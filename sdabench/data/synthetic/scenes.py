"""Draw textured objects of controlled size on textured backgrounds, from random numbers only.

A class is a shape with a texture (``star_rings``). Neither determines the class alone, and both scale with
the object, so that a model has to recognize them at every size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.float64]
Canvas = NDArray[np.float32]
SUPERSAMPLING = 4  # subpixels along each side, for smooth outlines


def _star(points: int, inner: float) -> Array:
    radius = np.where(np.arange(2 * points) % 2, inner, 1.0)
    angle = np.pi * np.arange(2 * points) / points
    outline: Array = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return outline


def _cross(arm: float) -> Array:
    quarter = np.array([[arm, arm], [arm, 1.0], [-arm, 1.0]])
    turns = [np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) for t in np.pi / 2 * np.arange(4)]
    outline: Array = np.concatenate([quarter @ turn.T for turn in turns]) / np.hypot(1.0, arm)
    return outline


def _square_wave(phase: Array) -> NDArray[np.bool_]:
    return np.sin(2 * np.pi * phase) > 0


# Outlines as polygons (K, 2) within the unit circle.
SHAPES: dict[str, Array] = {
    "disc": _star(24, 1.0),
    "square": _star(2, 1.0),
    "triangle": np.array([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]),
    "star": _star(5, 0.45),
    "cross": _cross(0.35),
}
# Pattern of two colors at (u, v) in units of the radius of the object; ``f`` is periods per radius.
TEXTURES: dict[str, Callable[[Array, Array, float], NDArray[np.bool_]]] = {
    "stripes": lambda u, v, f: _square_wave(f * u),
    "checks": lambda u, v, f: _square_wave(f * u) ^ _square_wave(f * v),
    "rings": lambda u, v, f: _square_wave(f * np.hypot(u, v)),
    "dots": lambda u, v, f: (f * u % 1 - 0.5) ** 2 + (f * v % 1 - 0.5) ** 2 < 0.12,
}
CLASSES = tuple(f"{shape}_{texture}" for texture, shape in product(TEXTURES, SHAPES))


@dataclass(frozen=True)
class TexturedObject:
    """One object in pixels; ``size`` is the diameter of its circumscribed circle."""

    category: str
    size: float
    x: float
    y: float
    angle: float  # radians

    @property
    def outline(self) -> Array:
        """Polygon (K, 2) in the image."""
        shape = SHAPES[self.category.split("_")[0]]
        turn = np.array([[np.cos(self.angle), np.sin(self.angle)], [-np.sin(self.angle), np.cos(self.angle)]])
        outline: Array = shape @ turn * (self.size / 2) + [self.x, self.y]
        return outline


def place_object(rng: Generator, category: str, width: int, height: int, size: float) -> TexturedObject:
    """Place an object of a given size at random within the image, at a random angle."""
    margin = size / 2
    return TexturedObject(
        category=category,
        size=size,
        x=rng.uniform(margin, width - margin),
        y=rng.uniform(margin, height - margin),
        angle=rng.uniform(0, 2 * np.pi),
    )


def paint_background(rng: Generator, width: int, height: int) -> Canvas:
    """Paint noise of several octaves between two colors: (H, W, 3), from 0 to 1."""
    noise = np.zeros((height, width), dtype=np.float32)
    for octave in range(1, 7):
        cells = rng.random((2**octave + 1, 2**octave + 1), dtype=np.float32)
        layer = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        noise += np.asarray(layer) / octave**0.5
    noise = (noise - noise.min()) / np.ptp(noise)
    colors = rng.random((2, 3), dtype=np.float32)
    canvas: Canvas = colors[0] + noise[..., None] * (colors[1] - colors[0])
    return canvas


def paint_object(rng: Generator, canvas: Canvas, item: TexturedObject) -> None:
    """Draw an object into the canvas (H, W, 3) in a light and a dark color."""
    height, width = canvas.shape[:2]
    left, top = np.maximum(np.floor(item.outline.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(item.outline.max(axis=0)).astype(int) + 1, [width, height])
    fine = Image.new("L", (SUPERSAMPLING * int(right - left), SUPERSAMPLING * int(bottom - top)))
    vertices = (item.outline - [left, top]) * SUPERSAMPLING
    ImageDraw.Draw(fine).polygon([(float(x), float(y)) for x, y in vertices], fill=255)
    alpha = np.asarray(fine.reduce(SUPERSAMPLING), dtype=np.float32)[..., None] / 255

    y, x = np.mgrid[top:bottom, left:right] + 0.5
    across, down = (x - item.x) / (item.size / 2), (y - item.y) / (item.size / 2)
    u = across * np.cos(item.angle) + down * np.sin(item.angle)
    v = down * np.cos(item.angle) - across * np.sin(item.angle)
    pattern = TEXTURES[item.category.split("_")[1]](u, v, rng.uniform(1.5, 3))
    light, dark = rng.uniform(0.6, 1.0, 3), rng.uniform(0.0, 0.4, 3)
    region = canvas[top:bottom, left:right]
    region += alpha * (np.where(pattern[..., None], light, dark) - region)


def to_image(canvas: Canvas) -> Image.Image:
    return Image.fromarray((canvas * 255 + 0.5).astype(np.uint8))
