"""Place the labels of points so that they overlap neither each other, nor points, nor the frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from numpy.typing import NDArray

from sdabench.report.figures.style import SMALL, Theme, fix_layout, legend, text_width

Floats = NDArray[np.float64]
Segment = tuple[tuple[float, float], tuple[float, float]]
_ANGLES = np.array([0, 8, 4, 12, 2, 6, 14, 10, 1, 7, 15, 9, 3, 5, 13, 11]) * np.pi / 8
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1).round(6)
_SLIDES = np.array([(slide, side) for slide in (-0.6, 0.6, -0.3, 0.3) for side in (1.0, -1.0)])
# Directions (D, 2) from a point to its label, best first, and by how many halves of its size it is moved.
DIRECTIONS = np.concatenate([_CIRCLE, _SLIDES * (0, 1)])
BESIDE = np.concatenate([np.clip(1.5 * _CIRCLE, -1, 1), _SLIDES])
RADII = (5.0, 8.0, 12.0, 17.0, 23.0, 30.0, 38.0, 48.0, 60.0, 75.0, 95.0)  # points
BESIDE_TEXT = 0.7  # of a distance: how far a point at the height of a label seems to be
LEADER = 9.0  # points: a label that is this far away, or near another point, is connected to its point
BESIDE_AXES = 1 / 3  # of the width of a figure: the longest names beside the axes
ROUNDS = 3  # of placing each label again among the others


@dataclass(frozen=True)
class Label:
    """A text beside the point at (x, y), in data coordinates."""

    text: str
    x: float
    y: float
    color: str
    bold: bool = False


def place(
    axes: Axes,
    labels: Sequence[Label],
    renderer: Any,
    size: float,
    marks: Sequence[tuple[float, float]] = (),
    lines: Sequence[Segment] = (),
    bars: Sequence[Segment] = (),
    mark_size: float = 4.0,
) -> list[Annotation]:
    """Write labels into axes whose layout is fixed; labels of earlier points choose first.

    Args:
        size: of the text, in points.
        marks: further points that no label may cover.
        lines: segments that labels avoid where they can.
        bars: segments that they avoid where it costs little.
        mark_size: width of a mark in points.
    """
    if not labels:
        return []
    pixels = axes.figure.dpi / 72
    texts = [
        axes.annotate(
            label.text,
            (label.x, label.y),
            (0, 0),
            textcoords="offset points",
            fontsize=size,
            color=label.color,
            fontweight="bold" if label.bold else "normal",
            ha="center",
            va="center",
            zorder=5,
            bbox={
                "facecolor": axes.get_facecolor(),
                "alpha": 0.7,
                "linewidth": 0,
                "boxstyle": "square,pad=0.05",
            },
        )
        for label in labels
    ]
    sizes = [text.get_window_extent(renderer) for text in texts]
    halves = np.array([(box.width / 2 + pixels, box.height / 2 + 0.5 * pixels) for box in sizes])
    points = axes.transData.transform([(label.x, label.y) for label in labels])
    covered = axes.transData.transform([*((label.x, label.y) for label in labels), *marks])
    avoided = [
        (weight, np.array([axes.transData.transform(line) for line in segments]).reshape(-1, 2, 2))
        for weight, segments in ((400, lines), (20, bars))
    ]
    frame = axes.get_window_extent(renderer)
    limits = np.array([[frame.x0, frame.y0], [frame.x1, frame.y1]])
    centers = np.full_like(points, np.nan)
    for _ in range(ROUNDS):
        for index in range(len(labels)):
            others = np.arange(len(labels)) != index
            placed = others & ~np.isnan(centers[:, 0])
            candidates, distances = _candidates(points[index], halves[index], pixels)
            cost = distances + _cost(
                candidates,
                halves[index],
                points[index],
                centers[placed],
                halves[placed],
                points[placed],
                covered,
                avoided,
                limits,
                mark_size * pixels / 2,
            )
            centers[index] = candidates[np.argmin(cost)]
    for text, center, point, half, label in zip(texts, centers, points, halves, labels, strict=True):
        offset = (center - point) / pixels
        text.set_position((float(offset[0]), float(offset[1])))
        foreign = covered[(covered != point).any(axis=1)]
        gap = _gap(center, half, point) / pixels
        nearest = _gap(center, half, foreign).min(initial=np.inf) / pixels
        if gap > LEADER or gap > 0.8 * nearest:
            _connect(axes, point, center, half, label.color)
    return texts


def _candidates(point: Floats, half: Floats, pixels: float) -> tuple[Floats, Floats]:
    """Return centers (C, 2) of a label around its point, and their cost (C,) by distance."""
    radii = np.array(RADII)[:, None]
    centers = point + radii[..., None] * pixels * DIRECTIONS + BESIDE * half
    costs = radii + np.arange(len(DIRECTIONS)) / 8
    return centers.reshape(-1, 2), costs.ravel()


def _cost(
    centers: Floats,
    half: Floats,
    point: Floats,
    others: Floats,
    other_halves: Floats,
    other_points: Floats,
    covered: Floats,
    avoided: Sequence[tuple[float, Floats]],
    limits: Floats,
    mark: float,
) -> Floats:
    """Return the cost (C,) of what a label with each center would cover."""
    cost = np.zeros(len(centers))
    outside = np.maximum(limits[0] - (centers - half), 0) + np.maximum(centers + half - limits[1], 0)
    cost += 1e6 * (outside > 0).any(axis=1) + 1e3 * outside.sum(axis=1)
    own = _leaders(np.broadcast_to(point, centers.shape), centers, half)
    cost += 1e4 * _overlaps(centers, half, others, other_halves).sum(axis=1)
    cost += 150 * _crosses(_leaders(other_points, others, other_halves), centers, half).sum(axis=0)
    cost += 150 * _crosses(own, others, other_halves).sum(axis=1)
    cost += 2e3 * _overlaps(centers, half, covered, mark).sum(axis=1)
    foreign = np.unique(covered[(covered != point).any(axis=1)], axis=0)
    cost += 1e3 * _crosses(own, foreign, np.full(2, 1.4 * mark)).sum(axis=1)
    nearer = _gap(centers[:, None], half, foreign) < 1.3 * _gap(centers, half, point)[:, None]
    cost += 60 * nearer.sum(axis=1)  # points that seem to have this label
    for weight, segments in avoided:
        cost += weight * _crosses(segments, centers, half).sum(axis=0)
    return cost


def _overlaps(centers: Floats, half: Floats, others: Floats, other_half: Floats | float) -> NDArray[np.bool_]:
    """Return (C, O): whether each box overlaps each of the others."""
    overlaps: NDArray[np.bool_] = np.all(np.abs(centers[:, None] - others) < half + other_half, axis=2)
    return overlaps


def _gap(centers: Floats, half: Floats, points: Floats) -> Floats:
    """Return the distances from boxes to points; one at the height of the text seems nearer."""
    gaps = np.maximum(np.abs(centers - points) - half, 0)
    distance: Floats = np.linalg.norm(gaps, axis=-1) * np.where(gaps[..., 1] == 0, BESIDE_TEXT, 1.0)
    return distance


def _crosses(segments: Floats, centers: Floats, halves: Floats) -> NDArray[np.bool_]:
    """Return (S, C): whether each segment (S, 2, 2) crosses each box."""
    start, along = segments[:, None, 0], segments[:, None, 1] - segments[:, None, 0]
    along = np.where(along == 0, 1e-9, along)
    edges = np.stack([centers - halves, centers + halves])[:, None]
    shares = np.sort((edges - start) / along, axis=0)  # of the segment, at which it enters and leaves
    entered, left = shares[0].max(axis=-1), shares[1].min(axis=-1)
    crosses: NDArray[np.bool_] = np.maximum(entered, 0) < np.minimum(left, 1)
    return crosses


def _leaders(points: Floats, centers: Floats, halves: Floats) -> Floats:
    """Return the lines (C, 2, 2) from points to the nearest edges of their labels."""
    return np.stack([points, np.clip(points, centers - halves, centers + halves)], axis=1)


def _connect(axes: Axes, point: Floats, center: Floats, half: Floats, color: str) -> None:
    """Draw a thin line from a point to the nearest edge of its label."""
    [line] = _leaders(point[None], center[None], half)
    ends = axes.transData.inverted().transform(line)
    axes.plot(
        ends[:, 0], ends[:, 1], color=color, linewidth=0.4, alpha=0.7, zorder=2, scalex=False, scaley=False
    )


def label_ends(figure: Figure, axes: Axes, ends: Sequence[tuple[float, Line2D]], theme: Theme) -> None:
    """Write names beside the ends of lines at the right edge, apart from each other, and fix the layout.

    Long names, and more names than there are colors, are in a legend instead.

    Args:
        ends: the last y of each line, and its handle in a legend.
    """
    longest = max((text_width(figure, str(line.get_label()), SMALL) for _, line in ends), default=0)
    if len(ends) > len(theme.cycle) or longest > theme.width * BESIDE_AXES:
        legend(figure, [line for _, line in ends], theme)
        ends = []
    texts = [
        axes.annotate(
            str(line.get_label()),
            (1, y),
            (4, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            color=line.get_color(),
            fontsize=SMALL,
            va="center",
        )
        for y, line in ends
    ]
    renderer = fix_layout(figure)
    if not texts:
        return
    boxes = [text.get_window_extent(renderer) for text in texts]
    centers = np.array([(box.y0 + box.y1) / 2 for box in boxes])
    for text, moved, center in zip(texts, spread(centers, 1.15 * boxes[0].height), centers, strict=True):
        text.set_position((4, float(moved - center) * 72 / figure.dpi))


def spread(centers: Floats, gap: float) -> Floats:
    """Move centers (N,) as little as needed so that neighbors are at least a gap apart."""
    order = np.argsort(centers, kind="stable")
    blocks: list[tuple[float, int]] = []  # lowest position and number of centers that touch
    for center in centers[order].tolist():
        start, count = center, 1
        while blocks and blocks[-1][0] + gap * blocks[-1][1] > start:
            before, number = blocks.pop()
            start = (before * number + (start - gap * number) * count) / (number + count)
            count += number
        blocks.append((start, count))
    moved = np.empty(len(centers))
    moved[order] = [start + gap * step for start, count in blocks for step in range(count)]
    return moved
