"""COCO's AP as sheets: a line for each IoU type, and the categories one by one."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sdabench.report.table import Cell, Heading, Sheet
from sdabench.scoring import IouType
from sdabench.scoring.coco import METRICS, CocoScore

HEADERS = ("AP", "AP$_{50}$", "AP$_{75}$", "AP$_S$", "AP$_M$", "AP$_L$")
NONE: Mapping[IouType, Mapping[str, float]] = MappingProxyType({})
WAYS = {"bbox": "boxes", "segm": "masks"}


def score_sheet(
    scores: Sequence[CocoScore], title: str, errors: Mapping[IouType, Mapping[str, float]] = NONE
) -> Sheet:
    """The six numbers of each IoU type; a dash where there is no object to find.

    Args:
        errors: their standard errors by IoU type, where they are known; they stand below.
    """
    headings = [Heading("by"), *(Heading(header, numeric=True) for header in HEADERS)]
    rows = []
    for score in scores:
        rows.append([Cell(WAYS[score.iou_type]), *(_number(score.metrics.get(metric)) for metric in METRICS)])
        if of_score := errors.get(score.iou_type):
            rows.append([Cell("± s.e."), *(_number(of_score.get(metric)) for metric in METRICS)])
    return Sheet(title, headings, [rows])


def class_sheet(score: CocoScore) -> Sheet:
    """One line a category: how many objects there are and how many were claimed, and AP."""
    headings = [
        Heading("category"),
        *(Heading(text, numeric=True) for text in ("objects", "detections", *HEADERS[:2])),
    ]
    rows = [
        [
            Cell(one.name),
            Cell(f"{one.ground_truth:,}"),
            Cell(f"{one.detections:,}"),
            _number(one.ap_pct),
            _number(one.ap50_pct),
        ]
        for one in score.classes
    ]
    return Sheet(f"AP of each category, by {WAYS[score.iou_type]}", headings, [rows])


def _number(value: float | None) -> Cell:
    return Cell("-" if value is None else f"{value:.2f}")
