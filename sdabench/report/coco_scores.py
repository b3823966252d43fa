"""Show COCO AP as sheets: the six numbers of an IoU type, and AP per category."""

from collections.abc import Mapping

from sdabench.report.cells import number
from sdabench.report.sheet import Heading, Sheet, headings, row
from sdabench.scoring.coco import METRICS, CocoScore
from sdabench.tex import Tex

HEADERS = tuple(map(Tex, ("AP", "AP$_{50}$", "AP$_{75}$", "AP$_S$", "AP$_M$", "AP$_L$")))
IOU_TYPE_NAMES = {"bbox": "boxes", "segm": "masks"}


def score_sheet(score: CocoScore, title: str, errors: Mapping[str, float]) -> Sheet:
    """Show the six AP numbers and their standard errors; a dash means no object of that size."""
    rows = [row(IOU_TYPE_NAMES[score.iou_type], *_numbers(score.metrics))]
    if errors:
        rows.append(row("± s.e.", *_numbers(errors)))
    return Sheet(title, [Heading("scored by"), *headings(*HEADERS, numeric=True)], [rows])


def class_sheet(score: CocoScore) -> Sheet:
    """Show the numbers of objects and detections and the AP of each category."""
    numbers = headings("objects", "detections", *HEADERS[:2], numeric=True)
    rows = [
        row(
            each.name,
            f"{each.ground_truth:,}",
            f"{each.detections:,}",
            number(each.ap_pct, 2),
            number(each.ap50_pct, 2),
        )
        for each in score.classes
    ]
    title = f"AP per category, scored by {IOU_TYPE_NAMES[score.iou_type]}"
    return Sheet(title, [Heading("category"), *numbers], [rows])


def _numbers(values: Mapping[str, float]) -> list[str]:
    return [number(values.get(metric), 2) for metric in METRICS]
