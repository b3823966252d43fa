"""Effective receptive fields along the depth of a network."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sdabench.report.columns import RECEPTIVE_FIELDS
from sdabench.report.figures.inspected import face, handles, selected, series_of
from sdabench.report.figures.style import LIGHT, Series, Theme, caption, grid, legend, logarithmic
from sdabench.report.frames import Names
from sdabench.report.inspection import Inspected
from sdabench.report.inspection import receptive_fields as frame_of

COLUMNS = RECEPTIVE_FIELDS


def frame(runs: Inspected, models: Names = "*") -> pd.DataFrame:
    """List the receptive fields of inspected networks.

    Args:
        runs: output folders of ``sdabench inspect``, or an inspection.
        models: names or wildcards.

    Returns:
        The frame of :func:`sdabench.receptive_fields`.

    Raises:
        UsageError: there is no inspection, or a name or wildcard matches none.
    """
    return frame_of(selected(runs, models))


def draw(data: pd.DataFrame, theme: Theme = LIGHT) -> Figure:
    """Draw the radius over the position in the network; points are blocks, and large marks are stages.

    Networks with depth attention have a second, thin line, with the gradient through their depth weights.

    Raises:
        NothingMeasuredError: no receptive fields were measured.
    """
    series = series_of(data, theme)
    stages = sorted(data["stage"].unique())
    fused = data["constant_weights"].any()
    with theme.applied():
        figure = theme.figure(2.8)
        axes = figure.subplots()
        grid(axes, "y")
        logarithmic(axes)
        for key, each in series.items():
            own = data[(data["model"] == key[0]) & (data["state"] == key[1])]
            has_weights = own["constant_weights"].any()
            _draw_network(axes, own[own["constant_weights"] == has_weights], stages, each, theme)
            if has_weights:
                _draw_network(axes, own[~own["constant_weights"]], stages, each, theme, thin=True)
        axes.set_xlim(0, len(stages) + 0.06)
        axes.set_xticks([place + 0.5 for place in range(len(stages))], stages)
        for place in range(1, len(stages)):
            axes.axvline(place, color=theme.grid, linewidth=0.5)
        axes.set_ylabel("radius of the field (pixels)")
        entries = handles(series, theme)
        if fused:
            words = "through depth weights, too"
            entries.append(Line2D([], [], color=theme.secondary, linestyle=":", linewidth=0.8, label=words))
        legend(figure, entries, theme)
        sides = "/".join(map(str, sorted(data["side"].unique())))
        caption(
            figure,
            f"Root mean square distance, weighted by the gradient; images of {sides} pixels.",
            "Small marks: blocks. Large marks: outputs of stages.",
            theme=theme,
        )
    return figure


def _draw_network(
    axes: Axes, data: pd.DataFrame, stages: list[str], series: Series, theme: Theme, thin: bool = False
) -> None:
    """Draw the mean over runs."""
    data = data.assign(block=data["block"].fillna(""))
    means = data.groupby(["stage", "block"], sort=False)["radius_px"].mean().reset_index()
    xs, outputs = [], []
    for place, stage in enumerate(stages):
        own = means[means["stage"] == stage]
        blocks = max((own["block"] != "").sum(), 1)
        for number, block in enumerate(own["block"]):
            xs.append(place + (number + 1) / (blocks + 1) if block else place + 0.98)
            outputs.append(not block)
    means = means.assign(x=xs, output=outputs)
    shown = means if thin or means["output"].all() else means[~means["output"]]
    line = {"linestyle": ":", "linewidth": 0.8} if thin else {"linestyle": series.line, "linewidth": 1.0}
    axes.plot(shown["x"], shown["radius_px"], color=series.color, **line)
    if not thin:
        small, large = means[~means["output"]], means[means["output"]]
        marks: dict[str, Any] = {"color": series.color, "linestyle": "none", "marker": series.marker}
        axes.plot(
            small["x"], small["radius_px"], markersize=2.5, markerfacecolor=face(series, theme), **marks
        )
        axes.plot(large["x"], large["radius_px"], markersize=5, markerfacecolor="none", **marks)
