"""Check masks of COCO, polygons or RLE, before native code receives them. Free of torch."""

from itertools import pairwise
from math import isfinite
from typing import Any

from pycocotools import mask as coco_mask

from sdabench.data.rle import is_rle

MAX_PIXELS = 2**31 - 1  # of an image; pycocotools counts pixels in 32 bits
# Distance of a point from its image, in longer sides of the image. pycocotools computes all pixels of an
# outline, also outside of the image, so that a far point takes minutes or crashes the process.
MAX_DISTANCE = 10
POINTS = 6  # numbers of a polygon with three points


def is_absent(region: Any) -> bool:
    """Return whether a mask or box is a placeholder: null, empty, a list of empty lists, or without runs."""
    if isinstance(region, dict):
        return not region or not region.get("counts", True)
    if isinstance(region, list):
        return all(part is None or part == [] for part in region)
    return region is None or region == ""


def mask_problem(segmentation: Any, size: tuple[int, int]) -> str | None:
    """Describe why a segmentation is not a mask in an image of (height, width); None if it is one.

    Native code must not receive any other segmentation. The words continue a sentence that begins with the
    name of the annotation.
    """
    if is_absent(segmentation):
        return "has no mask"
    height, width = size
    if isinstance(segmentation, list):
        return _polygons_problem(segmentation, size)
    if not is_rle(segmentation, height, width):
        return (
            f"has a mask that is neither polygons nor an RLE of {height} x {width} pixels (height x width), "
            "the size of its image"
        )
    return None


def _polygons_problem(polygons: list[Any], size: tuple[int, int]) -> str | None:
    limit = MAX_DISTANCE * max(size)
    for polygon in polygons:
        if not isinstance(polygon, list):
            return "has a mask that is neither an RLE nor a list of polygons"
        try:
            finite = isfinite(sum(polygon))
        except (TypeError, OverflowError):
            finite = False
        if not finite:
            return "has a polygon with a value that is not a finite number"
        if len(polygon) % 2:
            return f"has a polygon of {len(polygon)} numbers, which are not points"
        if polygon and (min(polygon) < -limit or max(polygon) > limit + max(size)):
            far = max(polygon, key=abs)
            return f"has a polygon with coordinate {far:g}, far outside its {size[1]} x {size[0]} pixels"
    if max(map(len, polygons)) < POINTS:
        return "has no polygon of at least three points"
    return None


def compressed_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Convert a valid mask to a compressed RLE, without polygons of one or two points."""
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if len(polygon) >= POINTS]
        merged: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        return merged
    rle = {"size": [height, width], "counts": segmentation["counts"]}
    return coco_mask.frPyObjects(rle, height, width) if isinstance(rle["counts"], list) else rle


def is_empty(segmentation: Any, size: tuple[int, int]) -> bool:
    """Return whether a mask has no area; False if it is no mask at all."""
    if mask_problem(segmentation, size):
        return False
    if isinstance(segmentation, list):
        return not any(map(_has_area, segmentation))
    counts = segmentation["counts"]
    return not (any(counts[1::2]) if isinstance(counts, list) else coco_mask.area(segmentation))


def _has_area(polygon: list[float]) -> bool:
    """Compute twice the area by the shoelace formula, and compare it with rounding errors."""
    points = [(x - polygon[0], y - polygon[1]) for x, y in zip(polygon[::2], polygon[1::2], strict=True)]
    twice = sum(a * d - b * c for (a, b), (c, d) in pairwise(points))
    return abs(twice) > 1e-9 * max(1.0, *map(abs, polygon)) if points else False
