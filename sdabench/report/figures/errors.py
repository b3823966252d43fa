"""Types of errors of detectors, and what each costs: TIDE."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from sdabench.report.columns import Column, Columns
from sdabench.report.figures import predicted
from sdabench.report.figures.names import File, row_objects
from sdabench.report.figures.pr import tasks_of
from sdabench.report.figures.predicted import Evaluated, evaluated
from sdabench.report.figures.style import LIGHT, SMALL, Theme, caption, grid, legend
from sdabench.report.frames import Names, Paths, make
from sdabench.scoring import IouType
from sdabench.scoring.error_types import error_types

SPECIAL = ("all false positives", "all false negatives")
COLUMNS: Columns = {
    **predicted.COLUMNS,
    "type": Column(
        "str",
        "classification, localization, both, duplicate, background or missed, as TIDE defines them; or all "
        "false positives, all false negatives",
    ),
    "errors": Column("Int64", "number of errors: of detections, or of missed objects"),
    "gain": Column("float64", "by how many percentage points AP50 rises if they are fixed"),
    "ap50_pct": Column("float64", "AP50 of the record"),
}


def frame(
    runs: Paths,
    models: Names = "*",
    iou_type: IouType = "bbox",
    annotations: File | None = None,
) -> pd.DataFrame:
    """List how much AP50 each type of error costs; see :mod:`sdabench.scoring.error_types`.

    The arguments and errors are those of :func:`sdabench.report.figures.pr.frame`.

    Returns:
        One row for each record and type of error: see :data:`COLUMNS`.
    """
    found = evaluated(runs, tasks_of(iou_type), models)
    return make((row for one in found for row in _types(one, annotations)), COLUMNS)


def draw(data: pd.DataFrame, theme: Theme = LIGHT) -> Figure:
    """Draw a bar for each type and record of :func:`frame`."""
    types, labels = list(data["type"].unique()), list(data["label"].unique())
    with theme.applied():
        height = 0.8 / len(labels)
        figure = theme.figure(0.7 + len(types) * max(0.2, 0.13 * len(labels)))
        axes = figure.subplots()
        grid(axes, "x")
        for place, label in enumerate(labels):
            of_label = row_objects(data[data["label"] == label])
            ys = [types.index(row.type) + (place - (len(labels) - 1) / 2) * height for row in of_label]
            gains = [row.gain for row in of_label]
            words = f"{label}: AP50 {of_label[0].ap50_pct:.1f}"
            color, _, _, hatch = theme.series(place)
            style: dict[str, Any] = {
                "color": color,
                "hatch": hatch,
                "edgecolor": theme.background,
                "linewidth": 0,
            }
            axes.barh(ys, gains, height * 0.9, label=words, **style)
            for y, row in zip(ys, of_label, strict=True):
                text = f"{row.gain:.1f}" + ("" if row.errors is None else f" ({row.errors:,})")
                axes.annotate(
                    text,
                    (max(row.gain, 0), y),
                    (3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=SMALL,
                )
        axes.set_yticks(range(len(types)), types)
        axes.set_ylim(len(types) - 0.4, -0.6)
        axes.set_xlim(min(data["gain"].min() * 1.1, 0), max(data["gain"].max(), 1) * 1.25)
        axes.set_xlabel("ΔAP50 if fixed (percentage points)")
        legend(figure, axes.get_legend_handles_labels()[0], theme)
        caption(figure, "TIDE: each type is fixed on its own. In brackets: number of errors.", theme=theme)
    return figure


def _types(one: Evaluated, annotations: File | None) -> Iterable[dict[str, object]]:
    found = error_types(one.detections(annotations).matches())
    special = zip(SPECIAL, (found.false_positives, found.false_negatives), strict=True)
    for kind, gain in [*found.gains.items(), *special]:
        yield one.columns | {
            "type": kind,
            "errors": found.counts.get(kind),
            "gain": gain,
            "ap50_pct": found.ap50_pct,
        }
