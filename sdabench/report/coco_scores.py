"""COCO AP as sheets: the six numbers of each IoU type, and AP per category."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sdabench.report.cells import number
from sdabench.report.sheet import Cell, Heading, Sheet
from sdabench.scoring import IouType
from sdabench.scoring.coco import METRICS, CocoScore

HEADERS = ("AP", "AP$_{50}$", "AP$_{75}$", "AP$_S$", "AP$_M$", "AP$_L$")
NO_ERRORS: Mapping[IouType, Mapping[str, float]] = MappingProxyType({})
IOU_TYPE_NAMES = {"bbox": "boxes", "segm": "masks"}


def score_sheet(
    scores: Sequence[CocoScore], title: str, errors: Mapping[IouType, Mapping[str, float]] = NO_ERRORS
) -> Sheet:
    """Show the six AP numbers of each IoU type; a dash means that there is no object of that size.

    Args:
        errors: standard errors by IoU type, where they are known; they are shown in a second row.
    """
    headings = [Heading("scored by"), *(Heading(header, numeric=True) for header in HEADERS)]
    rows = []
    for score in scores:
        rows.append([Cell(IOU_TYPE_NAMES[score.iou_type]), *_numbers(score.metrics)])
        if of_score := errors.get(score.iou_type):
            rows.append([Cell("± s.e."), *_numbers(of_score)])
    return Sheet(title, headings, [rows])


def class_sheet(score: CocoScore) -> Sheet:
    """Show the numbers of objects and detections and the AP of each category."""
    headings = [
        Heading("category"),
        *(Heading(text, numeric=True) for text in ("objects", "detections", *HEADERS[:2])),
    ]
    rows = [
        [
            Cell(each.name),
            Cell(f"{each.ground_truth:,}"),
            Cell(f"{each.detections:,}"),
            Cell(number(each.ap_pct, 2)),
            Cell(number(each.ap50_pct, 2)),
        ]
        for each in score.classes
    ]
    return Sheet(f"AP per category, scored by {IOU_TYPE_NAMES[score.iou_type]}", headings, [rows])


def _numbers(values: Mapping[str, float]) -> list[Cell]:
    return [Cell(number(values.get(metric), 2)) for metric in METRICS]
