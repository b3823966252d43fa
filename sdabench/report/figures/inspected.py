"""Series of the figures of inspections: a network, untrained or trained."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.lines import Line2D

from sdabench.analysis.inspection import Inspection
from sdabench.errors import NothingMeasuredError
from sdabench.registry import matching
from sdabench.report.figures.names import one_line, short_title
from sdabench.report.figures.style import Series, Theme
from sdabench.report.frames import Names, names_of
from sdabench.report.inspection import Inspected, networks_of

Key = tuple[str, str]  # model and state


def selected(inspected: Inspected, models: Names) -> Inspection:
    """Return the networks of an inspection, or of folders with one, whose names match.

    Raises:
        UsageError: there is no inspection, or a name or wildcard matches none.
    """
    networks = networks_of(inspected)
    names = list(dict.fromkeys(each.model for each in networks))
    chosen = matching(names_of(models), names, names, "the inspected networks")
    return Inspection(networks=tuple(each for each in networks if each.model in chosen))


def series_of(data: pd.DataFrame, theme: Theme) -> dict[Key, Series]:
    """Assign a series to each network and state: one color for a network, dashed if untrained.

    Raises:
        NothingMeasuredError: there are no data.
    """
    if data.empty:
        raise NothingMeasuredError("there is nothing to draw; inspect a network with these data")
    models = list(dict.fromkeys(data["model"]))
    keys = dict.fromkeys(zip(data["model"], data["state"], strict=True))
    found = {}
    for model, state in keys:
        both = (model, "trained") in keys and (model, "untrained") in keys
        series = theme.series(models.index(model))
        dashed = both and state == "untrained"
        found[model, state] = series._replace(line=(0, (4, 1.5)) if dashed else "-")
    return found


def handles(series: Mapping[Key, Series], theme: Theme) -> list[Line2D]:
    """Return the entries of a legend; titles that two networks share are replaced by their names."""
    titles = {model: short_title(model) for model, _ in series}
    shared = [title for title in titles.values() if list(titles.values()).count(title) > 1]
    return [
        Line2D(
            [],
            [],
            color=each.color,
            linestyle=each.line,
            marker=each.marker,
            markersize=3,
            markerfacecolor=face(each, theme),
            label=one_line(f"{model if titles[model] in shared else titles[model]}, {state}"),
        )
        for (model, state), each in series.items()
    ]


def face(series: Series, theme: Theme) -> str:
    """Return the color inside the marks of a series: those of dashed lines are hollow."""
    return series.color if series.line == "-" else theme.background
