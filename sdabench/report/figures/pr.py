"""Precision over recall of detectors, at IoU thresholds of COCO."""

from collections.abc import Iterable
from typing import Any, get_args

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sdabench.report.columns import Column, Columns
from sdabench.report.figures import predicted
from sdabench.report.figures.names import File, one_of
from sdabench.report.figures.predicted import Evaluated, evaluated
from sdabench.report.figures.style import LIGHT, Theme, caption, grid, legend
from sdabench.report.frames import Names, Paths, make
from sdabench.scoring import IOU_TYPES, IouType
from sdabench.scoring.average_precision import RECALLS

THRESHOLDS = {"0.50": [0], "0.75": [5], "0.50:0.95": [*range(10)]}  # indices of COCO's ten
STYLES = dict(zip(THRESHOLDS, ("-", "--", ":"), strict=True))
COLUMNS: Columns = {
    **predicted.COLUMNS,
    "iou": Column("str", "IoU threshold, or the range over which precision is averaged"),
    "recall_pct": Column("float64", "one of COCO's 101 recall points, in percent"),
    "precision_pct": Column("float64", "best precision from this recall on, averaged over categories"),
    "ap_pct": Column("float64", "mean of this precision: AP50, AP75 or AP"),
}


def frame(
    runs: Paths,
    models: Names = "*",
    iou_type: IouType = "bbox",
    annotations: File | None = None,
) -> pd.DataFrame:
    """List the precision at recall points, whose mean is COCO's AP.

    The records are those of :func:`predicted.evaluated`.

    Args:
        iou_type: boxes or masks.
        annotations: COCO annotations file; by default that of the record's dataset.

    Returns:
        One row for each record, IoU threshold and recall point: see :data:`COLUMNS`.

    Raises:
        UsageError: there are no annotations.
        DataError: the annotations belong to other images.
    """
    found = evaluated(runs, tasks_of(iou_type), models)
    return make((row for one in found for row in _curves(one, annotations)), COLUMNS)


def tasks_of(iou_type: IouType) -> list[str]:
    """List the tasks whose records are scored by this IoU."""
    one_of("IoU type", iou_type, get_args(IouType))
    return [task for task, own in IOU_TYPES.items() if own == iou_type]


def draw(data: pd.DataFrame, theme: Theme = LIGHT) -> Figure:
    """Draw a line for each record and threshold of :func:`frame`."""
    with theme.applied():
        figure = theme.figure(2.4)
        axes = figure.subplots()
        grid(axes)
        for place, (label, of_label) in enumerate(data.groupby("label", sort=False)):
            color, marker, *_ = theme.series(place)
            for iou, rows in of_label.groupby("iou", sort=False):
                words = f"{label}, IoU {iou}: AP {rows['ap_pct'].iloc[0]:.1f}"
                marks = {"marker": marker, "markersize": 3, "markevery": (3 * place % 20, 20)}
                style: dict[str, Any] = {"color": color, "linestyle": STYLES[str(iou)], **marks}
                axes.plot(rows["recall_pct"], rows["precision_pct"], label=words, **style)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 102)
        axes.set_xlabel("recall (%)")
        axes.set_ylabel("precision (%)")
        legend(figure, axes.get_legend_handles_labels()[0], theme)
        caption(figure, "Interpolated as COCO does, averaged over categories.", theme=theme)
    return figure


def _curves(one: Evaluated, annotations: File | None) -> Iterable[dict[str, object]]:
    matches = one.detections(annotations).matches()
    of_categories = [each.precision(matches.image_count) for each in matches.categories if each.area == 0]
    mean = np.mean(of_categories, axis=0)  # (10, 101)
    for iou, indices in THRESHOLDS.items():
        precision = mean[indices].mean(axis=0)
        for recall, value in zip(RECALLS.tolist(), precision.tolist(), strict=True):
            yield one.columns | {
                "iou": iou,
                "recall_pct": 100 * recall,
                "precision_pct": 100 * value,
                "ap_pct": 100 * float(precision.mean()),
            }
