"""The weight of each block that depth attention fuses."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sdabench.report.columns import DEPTH_WEIGHTS
from sdabench.report.figures.inspected import Key, face, handles, selected, series_of
from sdabench.report.figures.style import LIGHT, Series, Theme, caption, grid, legend
from sdabench.report.frames import Names
from sdabench.report.inspection import Inspected
from sdabench.report.inspection import depth_weights as frame_of

COLUMNS = DEPTH_WEIGHTS


def frame(runs: Inspected, models: Names = "*") -> pd.DataFrame:
    """List the depth weights of inspected networks.

    Args:
        runs: output folders of ``sdabench inspect``, or an inspection.
        models: names or wildcards.

    Returns:
        The frame of :func:`sdabench.depth_weights`.

    Raises:
        UsageError: there is no inspection, or a name or wildcard matches none.
    """
    return frame_of(selected(runs, models))


def draw(data: pd.DataFrame, theme: Theme = LIGHT) -> Figure:
    """Draw the mean weight and the middle half of the weights for each block, with a panel for each stage.

    Raises:
        NothingMeasuredError: no network has depth attention.
    """
    stages = sorted(data["stage"].unique())
    series = series_of(data, theme)
    per_row = 4 if theme.columns == "two" else 2
    rows = -(-len(stages) // per_row)
    with theme.applied():
        figure = theme.figure(0.5 + 1.5 * rows)
        panels = figure.subplots(rows, min(per_row, len(stages)), squeeze=False).ravel()
        for axes, stage in zip(panels, stages, strict=False):
            _draw_stage(axes, data[data["stage"] == stage], series, theme)
            axes.set_title(stage)
        for axes in panels[len(stages) :]:
            axes.set_visible(False)
        for axes in panels[::per_row]:
            axes.set_ylabel("depth weight")
        for axes in panels[per_row * (rows - 1) : len(stages)]:
            axes.set_xlabel("block")
        legend(figure, handles(series, theme), theme)
        caption(
            figure,
            "Marks: mean over images and channels. Bars: the middle half of the weights.",
            "Dotted: uniform weights.",
            theme=theme,
        )
    return figure


def _draw_stage(axes: Axes, data: pd.DataFrame, series: dict[Key, Series], theme: Theme) -> None:
    grid(axes, "y")
    for blocks in data["blocks"].unique():
        axes.plot([0, blocks - 1], [1 / blocks] * 2, color=theme.secondary, linewidth=0.8, linestyle=":")
    present = [key for key in series if ((data["model"] == key[0]) & (data["state"] == key[1])).any()]
    for place, key in enumerate(present):
        own = data[(data["model"] == key[0]) & (data["state"] == key[1])]
        means = own.groupby("block")[["mean", "q25", "q75"]].mean()
        color, marker, line, _ = series[key]
        xs = means.index + 0.12 * (place - (len(present) - 1) / 2)
        axes.vlines(xs, means["q25"], means["q75"], color=color, linewidth=0.8)
        axes.plot(
            xs,
            means["mean"],
            color=color,
            marker=marker,
            linestyle=line,
            markersize=3,
            markerfacecolor=face(series[key], theme),
        )
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
