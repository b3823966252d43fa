"""COCO AP as sheets: the six numbers of each IoU type, and AP per category."""

from collections.abc import Mapping

from sdabench.report.cells import number
from sdabench.report.sheet import Cell, Heading, Sheet
from sdabench.scoring.coco import METRICS, CocoScore

HEADERS = ("AP", "AP$_{50}$", "AP$_{75}$", "AP$_S$", "AP$_M$", "AP$_L$")
IOU_TYPE_NAMES = {"bbox": "boxes", "segm": "masks"}


def score_sheet(score: CocoScore, title: str, errors: Mapping[str, float]) -> Sheet:
    """Show the six AP numbers and their standard errors; a dash: there is no object of that size."""
    headings = [Heading("scored by"), *(Heading(header, numeric=True) for header in HEADERS)]
    rows = [[Cell(IOU_TYPE_NAMES[score.iou_type]), *_numbers(score.metrics)]]
    if errors:
        rows.append([Cell("± s.e."), *_numbers(errors)])
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
