"""Decide which annotations are objects: for training and for COCO's AP. Free of torch.

Training, scoring and verification use these definitions.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

MAX_AREA = 1e10  # pixels; COCO's AP ignores larger objects
ROUNDING = 0.01  # pixels by which a box may reach out of its image, because coordinates are rounded
Unused = Literal["crowds", "of area 0", "below a pixel", "outside the image", "with an empty mask"]
UNUSED: tuple[Unused, ...] = get_args(Unused)


def is_scored(iscrowd: bool | int, area: float) -> bool:
    """Return whether COCO's AP counts an annotation as an object."""
    return not iscrowd and 0 <= area <= MAX_AREA


def reaches_out(bbox: Sequence[float], size: tuple[int, int]) -> bool:
    """Return whether a box reaches out of its image of (height, width); training clips it."""
    x, y, width, height = bbox
    return min(x, y) < -ROUNDING or x + width > size[1] + ROUNDING or y + height > size[0] + ROUNDING


@dataclass
class ObjectCounts:
    """Counts of the annotations of a split: ``unused`` ones by reason, and those that AP counts.

    ``used`` are the class indices of the annotations that training uses. Training clips the boxes that are
    ``reaching_out`` of their images, given as path of the image and id of the annotation.
    """

    images: int
    annotations: int = 0
    crowds: int = 0
    unused: Counter[Unused] = field(default_factory=Counter)
    used: set[int] = field(default_factory=set)
    scored: int = 0
    reaching_out: list[tuple[str, int]] = field(default_factory=list)

    def describe_unused(self) -> str | None:
        """Describe what training leaves out: ``3 of 9 annotations unused: 2 crowds, 1 of area 0``."""
        if not self.unused:
            return None
        parts = ", ".join(f"{self.unused[why]:,} {why}" for why in UNUSED if self.unused[why])
        return f"{self.unused.total():,} of {self.annotations:,} annotations unused: {parts}"

    def describe_unscored(self) -> str | None:
        """Describe what AP ignores: ``2 of 9 annotations unused: 2 crowds``."""
        unscored = self.annotations - self.scored
        if not unscored:
            return None
        other = unscored - self.crowds
        impossible = f", {other:,} of impossible area" if other else ""
        return f"{unscored:,} of {self.annotations:,} annotations unused: {self.crowds:,} crowds{impossible}"


def nothing_to_score(images: int, annotations: int, crowds: int) -> str:
    """Describe why no object can be scored, as the object of a sentence about a file."""
    if not annotations:
        return f"no annotation in {images:,} images"
    if crowds == annotations:
        return f"only crowds in {images:,} images ({crowds:,} annotations with iscrowd 1), which AP ignores"
    return f"no object with an area of 0 to {MAX_AREA:g} pixels in {images:,} images"
