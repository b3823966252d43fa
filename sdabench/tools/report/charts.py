"""Charts that show values under the pointer, from the frames of the figures, in Vega-Lite.

Each chart has a static figure for print and for browsers without JavaScript.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import altair as alt
import pandas as pd
from matplotlib.figure import Figure

import sdabench
from sdabench.cache import read_entry, write_entry
from sdabench.errors import NothingMeasuredError, UsageError
from sdabench.hashing import digests_of_files
from sdabench.packages import installed_version
from sdabench.registry import load_registry
from sdabench.report.cells import bounds_text, signed
from sdabench.report.figures import claims as claims_figure
from sdabench.report.figures import curves as curves_figure
from sdabench.report.figures import pareto as pareto_figure
from sdabench.report.figures import style
from sdabench.report.figures.names import detector, keep_rows, row_dicts, short_title
from sdabench.report.summary import metric_name
from sdabench.terminal import printable
from sdabench.tools.report.answer import OUTCOMES

THEME = style.Theme(columns="two")
MAX_STEPS, MAX_VALUES = 200, 8000  # of a curve, and of all of a chart: more are thinned out
NOT_PRINTED = "not printed"
JUDGED = [*OUTCOMES[:-1], NOT_PRINTED]  # what is drawn as measured is not unknown
COLORS = [THEME.outcomes[outcome] for outcome in OUTCOMES]
SHAPES = ["circle", "square", "cross", "triangle"]
SNIPPET = "window.vegaEmbed = vegaEmbed;"  # what the bundle makes available to scripts of the page
KINDS = ("with depth attention", "other")
PARETO_HEIGHT, CURVES_HEIGHT, ROW_HEIGHT, THICK = 340, 240, 40, 4  # pixels
BELOW = 0.25  # rows, from the paper's mark to the measured one
PACKAGES = ("matplotlib", "numpy", "pandas", "scipy")  # that figures are computed with


@dataclass(frozen=True)
class Chart:
    """A titled figure: Vega-Lite specifications, drawn below each other, and the static SVG as a data URL.

    Without specifications, it is static. ``command`` draws it.
    """

    id: str
    title: str
    text: str
    specs: Sequence[dict[str, Any]]
    static: str
    command: str = ""

    @property
    def size(self) -> int:
        """Bytes on the page."""
        return len(self.static) + len(json.dumps(self.specs))


def themes() -> dict[str, dict[str, Any]]:
    """Return the colors of interactive charts, the same as in static figures."""
    return {
        name: {
            "text": theme.text,
            "secondary": theme.secondary,
            "grid": theme.grid,
            "pair": [theme.accent, theme.secondary],
            "series": theme.cycle,
        }
        for name, theme in (("light", style.Theme()), ("dark", style.Theme(dark=True)))
    }


def library() -> str:
    """Return the JavaScript of Vega, Vega-Lite and vega-embed; bundling it takes seconds, so it is cached."""
    import vl_convert

    key = [SNIPPET, installed_version("vl-convert-python") or ""]
    if (stored := read_entry("javascript", key)) is not None:
        return bytes(stored).decode()
    bundle = vl_convert.javascript_bundle(SNIPPET).replace("</script", r"<\/script")
    write_entry("javascript", key, [bundle.encode()])
    return bundle


def paper_charts(runs: Sequence[Path], comparisons: pd.DataFrame) -> list[Chart]:
    """Draw accuracy or AP over FLOPs for each table, and the improvements that the tables imply."""
    charts = []
    for table in load_registry().tables.values():
        try:
            data = pareto_figure.frame(table.name, runs)
        except NothingMeasuredError:
            continue
        marks = "Hollow: paper, filled: measured. " if data["source"].nunique() > 1 else ""
        text = marks + pareto_figure.describe(data)
        charts.append(_chart(f"pareto-{table.name}", table.title, text, [_pareto(data)], pareto_figure, data))
    with_differences = _claims_chart(comparisons)
    return [*charts, with_differences] if with_differences else charts


def curves_chart(run: Path, name: str) -> Chart | None:
    """Draw the training curves of a run; None if it has none."""
    try:
        data = curves_figure.frame(run)
    except (UsageError, NothingMeasuredError):
        return None
    specs = [_curve(part, str(quantity)) for quantity, part in data.groupby("quantity", sort=False)]
    text = f"Losses and validation metrics, with at most {_steps(data)} values of each training."
    return _chart(name, "Training curves", text, specs, curves_figure, data, captions=True)


def _chart(
    name: str,
    title: str,
    text: str,
    charts: Sequence[Any],
    module: ModuleType,
    data: pd.DataFrame,
    captions: bool = False,
) -> Chart:
    specs = [chart.to_dict(validate=False) for chart in charts]  # validation takes a second
    for number, spec in enumerate(specs):
        del spec["$schema"], spec["config"]
        spec["description"] = f"{title}{f', part {number + 1}' if len(specs) > 1 else ''}"
    theme = replace(THEME, captions=captions)  # what the static figure says below is the text otherwise
    static = drawn_once([module.__name__, data.to_json()], lambda: module.draw(data, theme))
    return Chart(name, title, text, specs, static)


def drawn_once(key: Sequence[str], draw: Callable[[], Figure]) -> str:
    """Draw a figure as SVG in a data URL, or return the one that was drawn for ``key`` by the same code."""
    key = [*key, *_code()]
    svg = read_entry("figures", key)
    if svg is None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "figure.svg"
            style.save(draw(), path, THEME)
            svg = memoryview(path.read_bytes())
        write_entry("figures", key, [bytes(svg)])
    return f"data:image/svg+xml;base64,{b64encode(svg).decode()}"


@cache
def _code() -> list[str]:
    """List the versions of packages, and the digests of all sources: a figure scores predictions, too."""
    versions = (f"{name} {installed_version(name)}" for name in PACKAGES)
    return [*versions, *digests_of_files(Path(sdabench.__file__).parent, "*.py")]


def _values(rows: Sequence[dict[str, Any]]) -> alt.InlineData:
    """Return inline data without what is missing, whose texts have no control characters."""
    return alt.InlineData(
        values=[
            {
                key: printable(value) if isinstance(value, str) else value
                for key, value in row.items()
                if value is not None
            }
            for row in rows
        ]
    )


def _pareto(data: pd.DataFrame) -> Any:
    """Draw what the static figure draws, with the names of networks with depth attention."""
    rows = row_dicts(data)
    front = set(pareto_figure.pareto_front(data)["model"])
    places = {(row["source"], row["model"]): row for row in rows}
    for row in rows:
        row["kind"] = KINDS[not row["sda"]]
        partner = places.get((row["source"], row["partner"]))
        if partner:
            row |= {"x2": partner["x"], "y2": partner["y"]}
        measured = places.get(("measured", row["model"]))
        if row["source"] == "paper" and measured:
            row |= {"measured_x": measured["x"], "measured_y": measured["y"]}
        row["front"] = row["source"] == "paper" and row["model"] in front
        row["compared"] = f"{partner['label']} ({row['partner_role']})" if partner else "–"
        row["name"] = f"{row['detector']}, {row['label']}" if row["detector"] else row["label"]
        row["spoken"] = (
            f"{row['name']} ({row['source']}): {row['x']:.2f} {row['x_name']}, {row['y']:.2f} {row['y_name']}"
        )
    _choose_labels(rows)
    axis = alt.Axis(labelFlush=False, tickCount=8)
    x = alt.X("x:Q", title=rows[0]["x_name"], scale=alt.Scale(zero=False, padding=24), axis=axis)
    y = alt.Y("y:Q", title=rows[0]["y_name"], scale=alt.Scale(zero=False, padding=20))
    legend = alt.Legend(orient="top", symbolType="circle", title=None)
    color = alt.Color("kind:N", scale=alt.Scale(domain=KINDS, range="ordinal"), legend=legend)
    tooltip = [
        alt.Tooltip("name:N", title="network"),
        alt.Tooltip("source:N"),
        alt.Tooltip("x:Q", title=rows[0]["x_name"], format=".2f"),
        alt.Tooltip("y:Q", title=rows[0]["y_name"], format=".2f"),
        alt.Tooltip("compared:N", title="compared with"),
    ]
    base = alt.Chart(_values(rows)).encode(x=x, y=y)
    line = (
        base.transform_filter("datum.front")
        .mark_line(aria=False, interpolate="step-after", strokeWidth=3, opacity=0.3, color="gray")
        .encode(order="x:Q")
    )
    arrows = (
        base.transform_filter("isValid(datum.x2)")
        .mark_rule(aria=False, opacity=0.8)
        .encode(x2="x2", y2="y2", color=color)
    )
    layers = [line, arrows]
    if any("measured_x" in row for row in rows):
        pairs = base.transform_filter("isValid(datum.measured_x)").mark_rule(aria=False, strokeDash=[2, 2])
        layers.append(pairs.encode(x2="measured_x", y2="measured_y"))
    if any(row["low"] is not None for row in rows):
        bars = base.transform_filter("isValid(datum.low)").mark_rule(aria=False, strokeWidth=1.5)
        low = alt.Y("low:Q", title=rows[0]["y_name"])
        layers.append(bars.encode(y=low, y2="high", color=color))
    points = []
    for source in data["source"].unique():
        marks = base.transform_filter(f"datum.source == '{source}'")
        marks = marks.mark_point(size=90, strokeWidth=2, filled=source == "measured")
        points.append(marks.encode(color=color, tooltip=tooltip, description="spoken:N"))
    if data["detector"].nunique() > 1:
        legend = alt.Legend(orient="bottom", title=None)
        points = [marks.encode(shape=alt.Shape("detector:N", legend=legend)) for marks in points]
    names = base.transform_filter("datum.labelled").mark_text(aria=False, dy=-12, fontSize=11)
    names = names.encode(
        text="label:N", color=color, opacity=alt.condition("width < 480", alt.value(0), alt.value(1))
    )
    return alt.layer(*layers, *points, names).properties(width="container", height=PARETO_HEIGHT)


def _choose_labels(rows: list[dict[str, Any]]) -> None:
    """Mark the networks with depth attention whose label does not overlap that of a better one."""
    width, height = (max(row[axis] for row in rows) - min(row[axis] for row in rows) for axis in "xy")
    labelled: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: -row["y"]):
        row["labelled"] = row["sda"] and not any(
            abs(row["x"] - other["x"]) < 0.14 * width and abs(row["y"] - other["y"]) < 0.06 * height
            for other in labelled
        )
        labelled += [row] if row["labelled"] else []


def _claims_chart(comparisons: pd.DataFrame) -> Chart | None:
    try:
        data = claims_figure.with_paper_intervals(keep_rows(comparisons, "metric", claims_figure.MAIN))
    except NothingMeasuredError:
        return None
    rows = row_dicts(data)
    for place, row in enumerate(rows):
        both = row["paper"] is not None and row["measured"] is not None
        row |= {"place": place, "below": place + BELOW * both}
        within = f" in {kind}" if (kind := detector(row["model"])) else ""
        metric = metric_name(row["metric"], row["task"])
        row["name"] = f"{short_title(row['model'])} vs. {short_title(row['partner'])}{within}, {metric}"
        row["paper_text"] = _with_interval(row["paper"], row["paper_low"], row["paper_high"])
        row["measured_text"] = _with_interval(row["measured"], row["own_low"], row["own_high"])
        row["spoken"] = f"{row['name']}: paper {row['paper_text']}, measured {row['measured_text']}"
        row["outcome"], row["verdict"] = row["outcome"] or NOT_PRINTED, row["verdict"] or NOT_PRINTED
        row["single_text"] = bounds_text(row["low"], row["high"]) if row["trainings"] else "–"
    title = "Improvements that the tables imply"
    text = claims_figure.describe(data)
    return _chart("forest", title, text, [_forest(rows)], claims_figure, data)


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "–"
    interval = "" if low is None or high is None else f" ({bounds_text(low, high)})"
    return signed(value, 2) + interval


def _forest(rows: list[dict[str, Any]]) -> Any:
    scale = alt.Scale(domain=[len(rows) - 0.5, -0.5], nice=False, zero=False)
    base = alt.Chart(_values(rows)).encode(y=alt.Y("place:Q", scale=scale, axis=None))
    tooltip = [
        alt.Tooltip("name:N", title="difference"),
        alt.Tooltip("paper_text:N", title="paper (95 % CI)"),
        alt.Tooltip("measured_text:N", title="measured (95 % CI)"),
        alt.Tooltip("single_text:N", title="95 % PI"),
        alt.Tooltip("verdict:N"),
    ]
    x = alt.X("paper:Q", title="Δ (percentage points)")
    zero = alt.Chart(_values([{"zero": 0}])).mark_rule(strokeDash=[4, 3]).encode(x="zero:Q")
    names = base.mark_text(aria=False, align="left", dy=-13, fontSize=11).encode(
        text="name:N", x=alt.value(2)
    )
    spread = base.mark_rule(aria=False, strokeWidth=THICK).encode(
        x=alt.X("paper_low:Q"), x2="paper_high", tooltip=tooltip
    )
    paper = base.mark_point(shape="diamond", size=110, strokeWidth=2, fillOpacity=0).encode(
        x=x, tooltip=tooltip, description="spoken:N"
    )
    layers = [zero, names, spread, paper]
    if any(row["measured"] is not None for row in rows):
        legend = alt.Legend(orient="top", title=None)
        measured = base.transform_filter("isValid(datum.measured)").encode(
            y=alt.Y("below:Q", scale=scale, axis=None),
            color=alt.Color("outcome:N", scale=alt.Scale(domain=JUDGED, range=COLORS), legend=legend),
        )
        trained = measured.transform_filter("datum.trainings > 0")
        given = measured.transform_filter("datum.trainings == 0")
        kinds = {bool(row["trainings"]) for row in rows if row["measured"] is not None}
        if True in kinds:  # a layer without data has no extent, of which Vega warns
            layers += [
                trained.mark_rule(aria=False, strokeWidth=1.5).encode(x="low:Q", x2="high"),
                trained.mark_rule(aria=False, strokeWidth=THICK).encode(x="own_low:Q", x2="own_high"),
            ]
        if False in kinds:
            dotted = given.mark_rule(aria=False, strokeWidth=2, strokeDash=[2, 2])
            layers.append(dotted.encode(x="low:Q", x2="high"))
        shape = alt.Shape("outcome:N", scale=alt.Scale(domain=JUDGED, range=SHAPES), legend=legend)
        marks = measured.mark_point(filled=True, size=90, opacity=1)
        layers.append(marks.encode(x="measured:Q", shape=shape, tooltip=tooltip, description="spoken:N"))
    return alt.layer(*layers).properties(width="container", height=ROW_HEIGHT * len(rows))


def _curve(data: pd.DataFrame, quantity: str) -> Any:
    x = "epoch" if data["epoch"].notna().all() else "step"
    rows = [
        line for _, run in data.groupby("run", sort=False) for line in _thinned(row_dicts(run), _steps(data))
    ]
    scale = alt.Scale(type="log") if curves_figure.needs_logarithm(data) else alt.Scale(zero=False)
    title = metric_name(quantity).replace("_", " ")
    tooltip = [
        "group:N",
        "seed:N",
        alt.Tooltip(f"{x}:Q", format=".4~g"),
        alt.Tooltip("value:Q", title=title, format=".5~g"),
    ]
    legend = alt.Legend(orient="bottom", columns=2, title=None, labelLimit=170, symbolOpacity=1)
    base = alt.Chart(_values(rows)).encode(
        x=alt.X(f"{x}:Q", title=x),
        y=alt.Y("value:Q", title=title, scale=scale),
        color=alt.Color("group:N", legend=legend),
        detail="run:N",
    )
    alone = len(rows) == data["run"].nunique()  # no line is drawn through single values
    points = base.mark_point(filled=True, size=60, opacity=1 if alone else 0.01).encode(tooltip=tooltip)
    return (base.mark_line() + points).properties(width="container", height=CURVES_HEIGHT)


def _steps(data: pd.DataFrame) -> int:
    """Return the most values of one training that are drawn."""
    return max(2, min(MAX_STEPS, MAX_VALUES // data["run"].nunique()))


def _thinned(rows: list[dict[str, Any]], most: int) -> Iterator[dict[str, Any]]:
    """Yield at most so many rows of one training, always the last, with what the chart needs."""
    stride = -(-len(rows) // most)
    for row in rows[::-stride][::-1]:
        yield {key: row[key] for key in ("run", "group", "seed", "step", "epoch", "value")}
