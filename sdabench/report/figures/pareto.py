"""Accuracy or AP of the networks of a table over their parameters, FLOPs or latency."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdabench.claims.tables import ComparedRow
from sdabench.claims.verdicts import in_unit
from sdabench.errors import NothingMeasuredError, UsageError
from sdabench.json_files import read_json
from sdabench.records.counts import counts_of
from sdabench.registry import Registry, Table, load_registry, schema
from sdabench.report.columns import Column, Columns
from sdabench.report.figures.labels import Label, Segment, place
from sdabench.report.figures.names import File, detector, one_of, row_objects, short_title
from sdabench.report.figures.style import (
    LIGHT,
    MARKERS,
    SMALL,
    Theme,
    caption,
    fix_layout,
    grid,
    legend,
    legend_mark,
)
from sdabench.report.frames import Names, Paths, compare, make, names_of
from sdabench.report.summary import METRICS, metric_name

X = Literal["params", "flops", "latency"]
FAR = 18.0  # points between a printed and a measured value from which both are labelled
COLUMNS: Columns = {
    "table": Column("str", "name of the table"),
    "model": Column("str", "name of the network"),
    "label": Column("str", "its short title"),
    "detector": Column("str", "its detector; missing for classifiers"),
    "sda": Column("bool", "whether it has depth attention"),
    "source": Column("str", "paper, or measured: where y comes from"),
    "x": Column("float64", "parameters in M, FLOPs in G, or latency in ms: as x_name says"),
    "x_name": Column("str", "what x is, with its unit"),
    "x_source": Column("str", "paper, counted or bench: where x comes from"),
    "convention": Column("str", "convention of a counted x, if it is not the table's: that of its verdict"),
    "y": Column("float64", "accuracy or AP in percent; of measured ones the mean over trainings"),
    "y_name": Column("str", "what y is"),
    "low": Column("float64", "lower bound of the 95 % interval of another training; missing for the paper"),
    "high": Column("float64", "upper bound of it"),
    "partner": Column("str", "network from which the arrow to this one starts"),
    "partner_role": Column("str", "control or baseline"),
    "front": Column("bool", "whether no point of the same source has higher y at lower or equal x"),
}


def frame(
    table_name: str = "classification-multiscale",
    records: Paths = (),
    x: X = "flops",
    y: str | None = None,
    models: Names = "*",
    bench: File | None = None,
) -> pd.DataFrame:
    """List the printed and the measured points.

    Args:
        records: runs with accuracies or APs; those that cannot be compared with the paper are left out.
        y: a metric of the table, by default its first.
        models: names or wildcards, also of networks that the table lacks; by default all of the table, and
            the controls of these that were measured.
        bench: output of ``sdabench bench --json``, for latency.

    Returns:
        The points in the order of the table: see :data:`COLUMNS`.

    Raises:
        UsageError: the table has no such metric, or no network was timed.
        NothingMeasuredError: no network has both values.
    """
    registry = load_registry()
    one_of("x", x, get_args(X))
    declared = registry.table(table_name)
    metric = _metric(declared, y)
    y_name = f"{metric_name(metric, declared.task)} (%)"
    patterns = names_of(models)
    every = patterns == ["*"]
    chosen = [] if every else registry.select_for(declared.task, patterns)
    controls = [registry.model(row.model).like_for_like for row in declared.rows]
    extra = chosen or list(filter(None, controls))
    [compared] = compare([registry.extended(declared, extra)], records)
    latencies = _latencies(bench, declared) if x == "latency" else None
    size = None if latencies else _size(declared, x)
    x_name = latencies.name if latencies else _x_name(x, size)
    places = latencies.values if latencies else {}
    if size is not None:
        places = _counted([row.row.model for row in compared.rows], size)
    shown = [row for row in compared.rows if every or row.row.model in chosen]
    points = [
        point | {"table": table_name, "x_name": x_name, "y_name": y_name}
        for source in ("paper", "measured")
        for row in shown
        for point in _points(row, source, None if size is None else size.key, places, metric)
    ]
    if not points:
        raise NothingMeasuredError(
            f"no network of {table_name} has both {x_name} and {metric}; "
            "name others with --models, or another --y"
        )
    for point in points:
        point["partner"], point["partner_role"] = _partner(registry, point, points)
        point["front"] = not any(
            one["source"] == point["source"] and one["x"] <= point["x"] and one["y"] > point["y"]
            for one in points
        )
    return make(points, COLUMNS)


def draw(data: pd.DataFrame, theme: Theme = LIGHT) -> Figure:
    """Draw the points of :func:`frame`: hollow ones of the paper, filled measured ones."""
    with theme.applied():
        count = data["model"].nunique()
        height = min(2.4 + 0.055 * max(count - 6, 0) * (theme.columns == "one"), 4.2)
        figure = theme.figure(height if theme.columns == "one" else 3.4)
        axes = figure.subplots()
        grid(axes)
        axes.margins(0.16, 0.1)
        axes.set_xlabel(data["x_name"].iloc[0])
        axes.set_ylabel(data["y_name"].iloc[0])
        detectors = list(data["detector"].dropna().unique())
        front = pareto_front(data)
        axes.step(front["x"], front["y"], where="post", color=theme.grid, linewidth=2.5, zorder=1)
        for row in row_objects(data):
            color = theme.accent if row.sda else theme.secondary
            marker = MARKERS[detectors.index(row.detector)] if row.detector in detectors else MARKERS[0]
            if row.low is not None:
                axes.plot([row.x, row.x], [row.low, row.high], color=color, linewidth=0.8, zorder=2.5)
            face = color if row.source == "measured" else theme.background
            axes.plot(row.x, row.y, marker, color=color, markerfacecolor=face, markeredgewidth=1, zorder=4)
        pairs, arrows = _pairs(data), _arrows(data)
        for start, end in pairs:
            axes.plot(*zip(start, end, strict=True), ":", color=theme.secondary, linewidth=0.8, zorder=2)
        for start, end in arrows:
            style = {"arrowstyle": "-|>,head_width=0.18,head_length=0.35", "color": theme.accent}
            style |= {"linewidth": 0.8, "shrinkA": 3.0, "shrinkB": 3.0}  # type: ignore[dict-item]
            axes.annotate("", end, start, arrowprops=style, zorder=3)
        _legend(figure, data, detectors, theme)
        caption(figure, describe(data), theme=theme)
        renderer = fix_layout(figure)
        labels = [
            Label(row.label, row.x, row.y, theme.accent if row.sda else theme.text, bool(row.sda))
            for row in row_objects(_named(axes, data).sort_values(["sda", "y"], ascending=False))
        ]
        bars = [((row.x, row.low), (row.x, row.high)) for row in row_objects(data) if row.low is not None]
        points = list(zip(data["x"], data["y"], strict=True))
        place(axes, labels, renderer, SMALL, points, [*arrows, *pairs], bars)
    return figure


def describe(data: pd.DataFrame) -> str:
    """Explain the marks and lines of a figure of :func:`frame`, as far as it has them."""
    sources, costs = set(data["source"]), set(data.loc[data["source"] == "paper", "x_source"])
    values = "Printed values."
    if costs == {"bench"}:
        values = "Printed accuracies, latencies measured by bench."
    elif "counted" in costs:
        values = "Printed values, or counted where no cost is printed."
    front = pareto_front(data)
    of_source = " of the printed values" if len(sources) > 1 else ""
    others = data.dropna(subset="convention").groupby("convention", sort=False)["label"].unique()
    roles = " or ".join(sorted(data["partner_role"].dropna().unique(), reverse=True))
    sentences = [
        values if sources == {"paper"} else "",
        f"Thin lines lead from the {roles} to the network with depth attention." if roles else "",
        f"Gray line: Pareto front{of_source}." if len(front) else "",
        "Dotted lines: from printed to measured values of a network." if _pairs(data) else "",
        "Bars: 95 % interval of another training." if data["low"].notna().any() else "",
        *(
            f"Measured {', '.join(names)}: counted under {convention}."
            for convention, names in others.items()
        ),
    ]
    return " ".join(filter(None, sentences))


def _metric(declared: Table, wanted: str | None) -> str:
    metrics = [column.key for column in declared.columns if column.convention is None]
    if wanted in METRICS and wanted not in metrics:
        raise UsageError(f"{declared.name} has no {wanted}; use {', '.join(metrics)}")
    return one_of("metric", wanted or metrics[0], metrics)


@dataclass(frozen=True)
class _Latencies:
    """Latencies in ms by network; the name states under what conditions they were measured."""

    values: dict[str, float]
    name: str


def _latencies(path: File | None, declared: Table) -> _Latencies:
    if declared.task != "classification":
        raise UsageError(
            f"the networks of {declared.name} have no latency, because bench times classifiers only"
        )
    if path is None:
        raise UsageError(
            "latency needs --bench FILE; 'sdabench bench PATTERN --mode inference --json > FILE' writes one"
        )
    path = Path(path)
    read, _ = read_json(path, "timings")
    wrong = f"{path} is not the output of 'sdabench bench --json'; write it again"
    try:
        steps = [each for each in read if each["mode"] == "inference"]
        values = {str(each["model"]): float(each["latency_ms"]["median"]) for each in steps}
        conditions = {(each["batch_size"], str(each["environment"]["device"])) for each in steps}
    except (TypeError, KeyError, ValueError):
        raise UsageError(wrong) from None
    if not steps:
        raise UsageError(f"{path} has no inference steps; time them with 'sdabench bench --mode inference'")
    if len(conditions) > 1:
        raise UsageError(f"{path} mixes batch sizes or devices; time all networks in one run of bench")
    [(batch, device)] = conditions
    return _Latencies(values, f"latency (ms), batch of {batch} on {device}")


def _size(declared: Table, x: X) -> schema.Column:
    for column in declared.counted:
        if column.quantity == x:
            return column
    known = ", ".join(dict.fromkeys(str(column.quantity) for column in declared.counted))
    raise NothingMeasuredError(f"{declared.name} has no column of {x}; use {known or 'latency'}")


def _x_name(x: X, size: schema.Column | None) -> str:
    names: dict[str, str] = {"params": "parameters", "flops": "FLOPs"}
    return f"{names[x]} ({size.unit if size else ''})"


def _counted(models: Iterable[str], size: schema.Column) -> dict[str, float]:
    """Return sizes or costs by network, all under the convention of the table, so that they share an axis."""
    assert size.convention is not None
    return {name: in_unit(each.value(size.convention), size) for name, each in counts_of(models).items()}


def _points(
    row: ComparedRow, source: str, size: str | None, places: Mapping[str, float], metric: str
) -> Iterable[dict[str, Any]]:
    """Yield the point of a network, if both values are known. A ``size`` that is not printed is counted."""
    model, measured = row.row.model, source == "measured"
    values = row.measured if measured else row.row.reported
    place = None if size is None else values[size]
    x_source = "bench" if size is None else "counted" if measured or place is None else "paper"
    place = places.get(model) if place is None else place
    if place is None or values[metric] is None:
        return
    judged = row.judged.get(metric) if measured else None
    interval = judged and judged.interval
    yield {
        "model": model,
        "label": short_title(model),
        "detector": detector(model) or None,
        "sda": load_registry().model(model).depth_attention,
        "source": source,
        "x": place,
        "x_source": x_source,
        "convention": row.other_convention(size) if measured and size is not None else None,
        "y": values[metric],
        "low": interval and interval.low,
        "high": interval and interval.high,
    }


def _partner(
    registry: Registry, point: dict[str, Any], points: Sequence[dict[str, Any]]
) -> tuple[str | None, str | None]:
    """Return the control of a network with depth attention, or else its baseline, if it has a point."""
    model = registry.model(point["model"])
    if model.depth_attention:
        present = {one["model"] for one in points if one["source"] == point["source"]}
        for partner, role in ((model.like_for_like, "control"), (model.baseline, "baseline")):
            if partner in present:
                return partner, role
    return None, None


def _arrows(data: pd.DataFrame) -> list[Segment]:
    points = {(row.source, row.model): (row.x, row.y) for row in row_objects(data)}
    return [
        (points[row.source, row.partner], (row.x, row.y))
        for row in row_objects(data)
        if (row.source, row.partner) in points
    ]


def _pairs(data: pd.DataFrame) -> list[Segment]:
    """Return the lines from the paper's to the measured point of each network that has both."""
    measured = {row.model: (row.x, row.y) for row in row_objects(data) if row.source == "measured"}
    return [
        ((row.x, row.y), measured[row.model])
        for row in row_objects(data)
        if row.source == "paper" and row.model in measured
    ]


def _named(axes: Axes, data: pd.DataFrame) -> pd.DataFrame:
    """Choose the points with a label: of each network the measured one, or both if they are far apart."""
    points = axes.transData.transform(data[["x", "y"]].to_numpy()) * 72 / axes.figure.dpi
    placed = data.assign(right=points[:, 0], up=points[:, 1]).sort_values(
        "source", kind="stable"
    )  # measured first
    first = placed.groupby("model")[["right", "up"]].transform("first")
    distance = np.hypot(placed["right"] - first["right"], placed["up"] - first["up"])
    return placed[~placed.duplicated("model") | (distance > FAR)]


def pareto_front(data: pd.DataFrame) -> pd.DataFrame:
    """Return the points of the Pareto front of the paper, which is drawn; none if it is a single point."""
    front = data[data["front"] & (data["source"] == "paper")].sort_values("x")
    return front if len(front) > 1 else front.head(0)


def _legend(figure: Figure, data: pd.DataFrame, detectors: Sequence[str], theme: Theme) -> None:
    color = theme.secondary
    handles = []
    face = None if (data["source"] == "measured").all() else theme.background
    if len(detectors) > 1:
        handles += [legend_mark(name, MARKERS[place], color, face) for place, name in enumerate(detectors)]
    if data["source"].nunique() > 1:
        handles += [
            legend_mark("paper", "o", color, theme.background),
            legend_mark("measured", "o", color),
        ]
    if handles:
        legend(figure, handles, theme)
