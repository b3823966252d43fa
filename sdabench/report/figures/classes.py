"""Accuracy of classifiers for each class."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sdabench.report.columns import Column, Columns
from sdabench.report.figures import predicted
from sdabench.report.figures.classified import class_names
from sdabench.report.figures.names import row_objects, shortened
from sdabench.report.figures.predicted import Evaluated, evaluated
from sdabench.report.figures.style import LIGHT, SMALL, Theme, caption, grid, legend
from sdabench.report.frames import Names, Paths, make
from sdabench.scoring.intervals import accuracy_interval

NAMED = 40  # most classes that have a row each
COLUMNS: Columns = {
    **predicted.COLUMNS,
    "class": Column("int64", "index of the class"),
    "class_name": Column("str", "its folder, or the index"),
    "images": Column("int64", "number of images"),
    "top1_pct": Column("float64", "top-1 accuracy on them"),
    "low": Column("float64", "lower bound of its 95 % interval (Wilson)"),
    "high": Column("float64", "upper bound of it"),
}


def frame(runs: Paths, models: Names = "*") -> pd.DataFrame:
    """List the accuracy for each class, of the records of :func:`predicted.evaluated`.

    Returns:
        One row for each record and class: see :data:`COLUMNS`.
    """
    return make(
        (row for one in evaluated(runs, ("classification",), models) for row in _classes(one)), COLUMNS
    )


def draw(data: pd.DataFrame, theme: Theme = LIGHT) -> Figure:
    """Draw a row for each class of :func:`frame`, or the sorted accuracies if there are many classes."""
    first = data[data["label"] == data["label"].iloc[0]].sort_values(["top1_pct", "class"])
    order = {number: place for place, number in enumerate(first["class"])}
    labels = list(data["label"].unique())
    many = len(order) > NAMED
    with theme.applied():
        row = max(0.14, 0.06 * len(labels))
        figure = theme.figure(2.2 if many else 0.6 + row * len(order))
        axes = figure.subplots()
        grid(axes, "both" if many else "x")
        for place, label in enumerate(labels):
            color, marker, line, _ = theme.series(place)
            of_label = data[data["label"] == label]
            if many:
                values = np.sort(of_label["top1_pct"].to_numpy())
                axes.plot(np.linspace(0, 100, len(values)), values, color=color, linestyle=line, label=label)
                continue
            shift = 0.7 / max(len(labels), 4) * (place - (len(labels) - 1) / 2)
            for row in row_objects(of_label[of_label["class"].isin(order)]):
                y = order[getattr(row, "class")] + shift
                axes.plot([row.low, row.high], [y, y], color=color, linewidth=0.7)
                axes.plot(row.top1_pct, y, marker, color=color, markersize=3.5)
            axes.plot([], [], marker, color=color, label=label)
        if many:
            axes.set_xlabel("classes, from the worst to the best (%)")
            axes.set_ylabel("top-1 accuracy (%)")
        else:
            axes.set_yticks(range(len(order)), first["class_name"].map(shortened), fontsize=SMALL)
            axes.set_ylim(-0.7, len(order) - 0.3)
            axes.set_xlabel("top-1 accuracy (%)")
        legend(figure, axes.get_legend_handles_labels()[0], theme)
        caption(figure, "" if many else "Bars: 95 % interval over test images.", theme=theme)
    return figure


def _classes(one: Evaluated) -> Iterable[dict[str, object]]:
    predictions = one.classes()
    names, right = class_names(predictions), predictions.hits(1)
    for label in np.unique(predictions.labels).tolist():
        own = right[predictions.labels == label]
        interval = accuracy_interval(own)
        yield one.columns | {
            "class": label,
            "class_name": names[label],
            "images": len(own),
            "top1_pct": interval.estimate,
            "low": interval.low,
            "high": interval.high,
        }
