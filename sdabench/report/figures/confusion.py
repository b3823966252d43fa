"""Confusion matrix of a classifier."""

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from sdabench.report.columns import Column, Columns
from sdabench.report.figures import predicted
from sdabench.report.figures.classified import class_names
from sdabench.report.figures.names import row_objects, shortened
from sdabench.report.figures.predicted import evaluated, single_record
from sdabench.report.figures.style import LIGHT, SMALL, Theme, caption
from sdabench.report.frames import Names, Paths, make

NUMBERED, NAMED = 12, 40  # most classes whose cells have numbers, and whose rows have names
COLUMNS: Columns = {
    **predicted.COLUMNS,
    "true": Column("int64", "index of the label"),
    "true_name": Column("str", "its folder, or the index"),
    "predicted": Column("int64", "index of the first predicted class"),
    "predicted_name": Column("str", "its folder, or the index"),
    "images": Column("int64", "number of images with this label and prediction"),
    "share_pct": Column("float64", "share of the images with this label, in percent"),
}


def frame(runs: Paths, models: Names = "*") -> pd.DataFrame:
    """Count how often each class is predicted for each label, in the record of :func:`predicted.evaluated`.

    Returns:
        One row for each pair of label and predicted class that occurs: see :data:`COLUMNS`.

    Raises:
        UsageError: the runs have several classifiers.
    """
    one = single_record(evaluated(runs, ("classification",), models))
    predictions = one.classes()
    names = class_names(predictions)
    first = predictions.top5[:, 0]
    totals = dict(
        zip(*(each.tolist() for each in np.unique(predictions.labels, return_counts=True)), strict=True)
    )
    pairs, counts = np.unique(np.stack([predictions.labels, first]), axis=1, return_counts=True)
    return make(
        (
            one.columns
            | {
                "true": label,
                "true_name": names[label],
                "predicted": best,
                "predicted_name": names[best],
                "images": count,
                "share_pct": 100 * count / totals[label],
            }
            for label, best, count in zip(*pairs.tolist(), counts.tolist(), strict=True)
        ),
        COLUMNS,
    )


def draw(data: pd.DataFrame, theme: Theme = LIGHT) -> Figure:
    """Draw the shares of :func:`frame`, with a row for each label."""
    named = dict(zip(data["true"], data["true_name"], strict=True))
    named |= dict(zip(data["predicted"], data["predicted_name"], strict=True))
    classes = sorted(named)
    place = {label: index for index, label in enumerate(classes)}
    shares = np.zeros((len(classes), len(classes)))
    for row in row_objects(data):
        shares[place[row.true], place[row.predicted]] = row.share_pct
    with theme.applied():
        side = theme.width if theme.columns == "one" else 5.0
        figure = theme.figure(side)
        axes = figure.subplots()
        colors = LinearSegmentedColormap.from_list("shares", [theme.background, theme.accent])
        image = axes.imshow(shares, cmap=colors, vmin=0, vmax=100, interpolation="nearest")
        axes.tick_params(length=0)
        if len(classes) <= NAMED:
            edges = np.arange(len(classes) + 1) - 0.5
            axes.hlines(edges, edges[0], edges[-1], color=theme.grid, linewidth=0.4)
            axes.vlines(edges, edges[0], edges[-1], color=theme.grid, linewidth=0.4)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if len(classes) <= NAMED:
            size = min(SMALL, 160 / len(classes))
            names = [shortened(named[label]) for label in classes]
            axes.set_xticks(range(len(classes)), names, rotation=90, fontsize=size)
            axes.set_yticks(range(len(classes)), names, fontsize=size)
        if len(classes) <= NUMBERED:
            for (y, x), share in np.ndenumerate(shares):
                if share >= 0.5:
                    color = theme.background if share > 60 else theme.text
                    axes.text(x, y, f"{share:.0f}", ha="center", va="center", fontsize=SMALL, color=color)
        else:
            bar = figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02)
            bar.outline.set_visible(False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("label")
        right = data.loc[data["true"] == data["predicted"], "images"].sum() / data["images"].sum()
        words = f"{data['label'].iloc[0]}: {right:.1%} of {data['images'].sum():,} images are right."
        caption(figure, words, "Percent of the images with each label.", theme=theme)
    return figure
