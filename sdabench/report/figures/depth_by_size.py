"""Attention depth by the size of the objects."""

from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdabench.analysis.depth_weights import mean_of_runs
from sdabench.report.columns import DEPTH_BY_SIZE
from sdabench.report.figures.inspected import Key, face, handles, selected, series_of
from sdabench.report.figures.style import LIGHT, Series, Theme, caption, grid, legend
from sdabench.report.frames import Names
from sdabench.report.inspection import Inspected, size_text
from sdabench.report.inspection import depth_by_size as frame_of

COLUMNS = DEPTH_BY_SIZE


def frame(runs: Inspected, models: Names = "*") -> pd.DataFrame:
    """List attention depth by object size of inspected networks.

    Args:
        runs: output folders of ``sdabench inspect``, or an inspection.
        models: names or wildcards.

    Returns:
        The frame of :func:`sdabench.depth_by_size`.

    Raises:
        UsageError: there is no inspection, or a name or wildcard matches none.
    """
    return frame_of(selected(runs, models))


def draw(data: pd.DataFrame, theme: Theme = LIGHT) -> Figure:
    """Draw a line for each network, with thin lines for several runs; on two columns also for each stage.

    Raises:
        NothingMeasuredError: no network has depth attention and objects of known size.
    """
    series = series_of(data, theme)
    stages = sorted(data["stage"].unique())  # "all" comes first
    stages = stages if theme.columns == "two" else stages[:1]
    octaves = list(range(data["octave"].min(), data["octave"].max() + 1))
    with theme.applied():
        figure = theme.figure(2.3)
        panels = figure.subplots(1, len(stages), squeeze=False, sharey=True)[0]
        for axes, stage in zip(panels, stages, strict=True):
            _draw_stage(axes, data[data["stage"] == stage], series, theme)
            axes.set_title("mean of stages" if stage == "all" else stage)
            axes.set_xticks(octaves, [size_text(each) for each in octaves], rotation=45, ha="right")
        panels[0].set_ylabel("attention depth")
        legend(figure, handles(series, theme), theme)
        several = data.groupby(["model", "state"])["run"].nunique().max() > 1
        caption(
            figure,
            "Object size as a share of the short side. Depth 0: first block, 1: last block.",
            "Bars: 95 % interval over runs. Thin lines: runs."
            if several
            else "Bars: 95 % interval over images.",
            theme=theme,
        )
    return figure


def _draw_stage(axes: Axes, data: pd.DataFrame, series: dict[Key, Series], theme: Theme) -> None:
    grid(axes, "y")
    for place, ((model, state), one) in enumerate(series.items()):
        own = data[(data["model"] == model) & (data["state"] == state)]
        shift = 0.06 * (place - (len(series) - 1) / 2)
        runs = [run.sort_values("octave") for _, run in own.groupby("run")]
        color, marker, line, _ = one
        style: dict[str, Any] = {"color": color, "linestyle": line}
        marks: dict[str, Any] = {"marker": marker, "markersize": 3, "markerfacecolor": face(one, theme)}
        if len(runs) == 1:
            [run] = runs
            axes.vlines(run["octave"] + shift, run["low"], run["high"], color=color, linewidth=0.8)
            axes.plot(run["octave"] + shift, run["depth"], **marks, **style)
            continue
        for run in runs:
            axes.plot(run["octave"] + shift, run["depth"], linewidth=0.5, alpha=0.5, **style)
        octaves = sorted(own["octave"].unique().tolist())
        values = [own[own["octave"] == octave]["depth"].tolist() for octave in octaves]
        axes.plot([each + shift for each in octaves], list(map(fmean, values)), **marks, **style)
        for octave, depths in zip(octaves, values, strict=True):
            if interval := mean_of_runs(depths):
                axes.vlines(octave + shift, interval.low, interval.high, color=color, linewidth=0.8)
