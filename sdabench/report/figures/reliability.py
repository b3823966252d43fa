"""Reliability diagram of classifiers, with the expected calibration error."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sdabench.errors import UsageError
from sdabench.report.columns import Column, Columns
from sdabench.report.figures import predicted
from sdabench.report.figures.predicted import Evaluated, evaluated
from sdabench.report.figures.style import LIGHT, Theme, caption, grid, legend
from sdabench.report.frames import Names, Paths, make
from sdabench.scoring.calibration import BINS, calibrate

COLUMNS: Columns = {
    **predicted.COLUMNS,
    "low_pct": Column("float64", "lower edge of the bin of the top-1 probability, in percent"),
    "high_pct": Column("float64", "upper edge of it, which belongs to the bin"),
    "images": Column("int64", "number of images in the bin"),
    "confidence_pct": Column("float64", "mean top-1 probability in the bin"),
    "accuracy_pct": Column("float64", "top-1 accuracy in the bin"),
    "ece_pct": Column("float64", "expected calibration error of the record, in percentage points"),
}


def frame(runs: Paths, models: Names = "*", bins: int = BINS) -> pd.DataFrame:
    """List the bins of the top-1 probability that have images, of the records of :func:`predicted.evaluated`.

    Args:
        bins: number of bins of equal width from 0 to 100 %.

    Returns:
        One row for each record and bin: see :data:`COLUMNS`.

    Raises:
        UsageError: there are no bins, or predictions of an earlier version lack probabilities.
    """
    if bins < 1:
        raise UsageError(f"{bins} bins cannot hold the images; name 1 or more")
    found = evaluated(runs, ("classification",), models)
    return make((row for one in found for row in _bins(one, bins)), COLUMNS)


def draw(data: pd.DataFrame, theme: Theme = LIGHT) -> Figure:
    """Draw accuracy over confidence for each record of :func:`frame`, and below it the shares of images."""
    with theme.applied():
        figure = theme.figure(3.1)
        axes, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
        grid(axes)
        grid(below, "y")
        axes.plot([0, 100], [0, 100], color=theme.secondary, linewidth=0.8, linestyle="--")
        for place, (label, rows) in enumerate(data.groupby("label", sort=False)):
            color, marker, *_ = theme.series(place)
            words = f"{label}: ECE {rows['ece_pct'].iloc[0]:.1f}"
            axes.plot(rows["confidence_pct"], rows["accuracy_pct"], color=color, marker=marker, label=words)
            shares = 100 * rows["images"].to_numpy() / rows["images"].sum()
            for low, high, share in zip(rows["low_pct"], rows["high_pct"], shares, strict=True):
                below.fill_between([low, high], share, color=color, alpha=0.35, linewidth=0)
            below.plot((rows["low_pct"] + rows["high_pct"]) / 2, shares, marker, color=color, markersize=3)
        axes.set_ylim(0, 102)
        axes.set_xlim(0, 100)
        below.set_ylim(bottom=0)
        axes.set_ylabel("top-1 accuracy (%)")
        below.set_ylabel("images (%)")
        below.set_xlabel("top-1 probability (%)")
        legend(figure, axes.get_legend_handles_labels()[0], theme)
        width = f"{data['high_pct'].iloc[0] - data['low_pct'].iloc[0]:.3g}"
        caption(
            figure,
            f"ECE: expected calibration error in percentage points, with bins of {width} %.",
            "Dashed: perfect calibration.",
            theme=theme,
        )
    return figure


def _bins(one: Evaluated, bins: int) -> Iterable[dict[str, object]]:
    predictions = one.classes()
    if np.isnan(predictions.top1_probability).any():
        raise UsageError(
            f"{one.stored.predictions} has no top-1 probabilities, because an earlier version wrote it; "
            f"evaluate {one.stored.record.model} again"
        )
    found = calibrate(predictions.top1_probability, predictions.hits(1), bins)
    for index in np.flatnonzero(found.images).tolist():
        yield one.columns | {
            "low_pct": 100 * found.edges[index],
            "high_pct": 100 * found.edges[index + 1],
            "images": int(found.images[index]),
            "confidence_pct": 100 * found.confidence[index],
            "accuracy_pct": 100 * found.accuracy[index],
            "ece_pct": 100 * found.expected_error,
        }
