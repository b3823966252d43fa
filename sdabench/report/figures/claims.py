"""A forest plot of the improvements of depth attention that the tables of the paper imply."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdabench.claims.trainings import PRIOR_SD, of_pairs
from sdabench.claims.verdicts import Outcome
from sdabench.errors import NothingMeasuredError
from sdabench.report.columns import COMPARISONS, Column, Columns
from sdabench.report.figures.names import detector, keep_rows, one_of, row_dicts, row_objects, short_title
from sdabench.report.figures.style import LIGHT, SMALL, Theme, caption, grid, legend, legend_mark
from sdabench.report.frames import Names, Paths, comparisons, make, names_of
from sdabench.report.summary import METRICS, metric_name

MAIN = ("top1_pct", "ap_pct")  # metrics that are drawn unless others are named
ROW, BOTH = 0.155, 1.5  # inches of a row, and rows of a difference that is printed and measured
THICK, THIN = 1.9, 0.7  # points, of intervals of the expected difference and of single trainings
MARKS = {"holds": "o", "open": "s", "fails": "X", "unknown": "^"}
MEASURED = ("measured", "low", "high", "own_low", "own_high", "trainings", "verdict", "outcome")
COLUMNS: Columns = {
    **{name: COMPARISONS[name] for name in ("table", "task", "model", "partner", "role", "metric", "paper")},
    "paper_low": Column(
        "float64",
        "lower bound of the 95 % confidence interval of the expected difference, from one training of each "
        "network and the published spread; missing if the paper does not print the difference",
    ),
    "paper_high": Column("float64", "upper bound of it"),
    **{name: COMPARISONS[name] for name in MEASURED},
}


def frame(
    records: Paths = (),
    table_name: str | None = None,
    models: Names = "*",
    metrics: Names = MAIN,
) -> pd.DataFrame:
    """List the differences that the paper prints or that runs measure, in percentage points.

    Args:
        records: runs to use besides the shipped results.
        table_name: by default all tables.
        models: names or wildcards of networks with depth attention.
        metrics: by default top-1 accuracy and AP.

    Returns:
        The differences in the order of the paper: see :data:`COLUMNS`.

    Raises:
        UsageError: there is no such table or metric.
        NothingMeasuredError: no difference is left.
    """
    wanted = [one_of("metric", metric, list(METRICS)) for metric in names_of(metrics)]
    return with_paper_intervals(keep_rows(comparisons(records, models, table_name), "metric", wanted))


def with_paper_intervals(found: pd.DataFrame) -> pd.DataFrame:
    """Keep the differences of a frame of comparisons that are printed or measured, as in :func:`frame`."""
    found = found[found["paper"].notna() | found["measured"].notna()]
    if found.empty:
        raise NothingMeasuredError(
            "no table prints any of these differences, and no run has measured one; name other --models, "
            "--metric or --table, or runs"
        )
    differences = row_dicts(found)
    for row in differences:
        if row["paper"] is not None:
            interval = of_pairs([row["paper"]], [0.0], PRIOR_SD[row["metric"]]).interval
            row |= {"paper_low": interval.low, "paper_high": interval.high}
    return make(differences, COLUMNS)


def draw(data: pd.DataFrame, theme: Theme = LIGHT) -> Figure:
    """Draw the differences of :func:`frame`: hollow diamonds of the paper, filled measured marks."""
    groups = [*data.groupby(["task", _detectors(data), "metric"], sort=False)]
    both = int((data["paper"].notna() & data["measured"].notna()).sum())
    count = len(data) + both * (BOTH - 1) + 1.2 * len(groups)
    with theme.applied():
        figure = theme.figure(0.75 + ROW * count)
        axes = figure.subplots()
        grid(axes, "x")
        axes.axvline(0, color=theme.secondary, linewidth=0.8)
        ticks: list[tuple[float, str, bool]] = []
        position = 0.0
        for (task, head, metric), of_group in groups:
            name = metric_name(metric, task)
            ticks.append((position, f"{head}, {name}" if head else name, True))
            for row in row_objects(of_group):
                half = (1 if row.paper is None or row.measured is None else BOTH) / 2
                position += 0.5 + half
                ticks.append((position, f"{short_title(row.model)} vs. {short_title(row.partner)}", False))
                _draw_row(axes, row, position, theme)
                position += half - 0.5
            position += 1.4
        axes.set_ylim(position - 0.6, -0.8)
        axes.set_yticks([tick[0] for tick in ticks], [tick[1] for tick in ticks])
        for label, (_, _, heading) in zip(axes.get_yticklabels(), ticks, strict=True):
            label.set_fontsize(SMALL)
            label.set_fontweight("bold" if heading else "normal")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("Δ (percentage points)")
        _legend(figure, data, theme)
        caption(figure, describe(data), theme=theme)
    return figure


def describe(data: pd.DataFrame) -> str:
    """Explain the marks and lines of a figure of :func:`frame`, as far as it has them."""
    measured = data[data["measured"].notna()]
    given = measured["trainings"] == 0
    printed, trained = bool(data["paper"].notna().any()), not given.all()
    sentences = [
        "Diamonds: printed differences." if printed else "",
        "Thick lines: 95 % confidence interval of the expected difference." if printed or trained else "",
        "That of a diamond follows from one training of each network and the published spread."
        if printed
        else "",
        "Thin lines: 95 % interval of a difference of two single trainings, by which the printed one is "
        "judged."
        if trained
        else "",
        "Dotted lines: 95 % interval of given weights over test images." if given.any() else "",
        "Nothing was measured." if measured.empty else "",
    ]
    return " ".join(filter(None, sentences))


def _detectors(data: pd.DataFrame) -> pd.Series:
    return data["model"].map(detector).rename("detector")


def _draw_row(axes: Axes, row: Any, position: float, theme: Theme) -> None:
    both = row.paper is not None and row.measured is not None
    above, below = (position - 0.3, position + 0.3) if both else (position, position)

    def line(low: float, high: float, y: float, color: str, width: float, style: Any = "-") -> None:
        axes.plot([low, high], [y, y], color=color, linewidth=width, linestyle=style, solid_capstyle="butt")

    if row.paper is not None:
        line(row.paper_low, row.paper_high, above, theme.secondary, THICK)
        axes.plot(row.paper, above, "D", color=theme.text, markerfacecolor=theme.background, markersize=3.5)
    if row.measured is not None:
        outcome: Outcome = row.outcome or "unknown"
        color = theme.outcomes[outcome]
        if row.trainings:
            line(row.low, row.high, below, color, THIN)
            line(row.own_low, row.own_high, below, color, THICK)
        else:
            line(row.low, row.high, below, color, 1.2, (0, (1, 1)))
        axes.plot(
            row.measured,
            below,
            MARKS[outcome],
            color=color,
            markersize=5,
            markeredgecolor=theme.background,
            markeredgewidth=0.6,
        )


def _legend(figure: Figure, data: pd.DataFrame, theme: Theme) -> None:
    outcomes = data.loc[data["measured"].notna(), "outcome"].fillna("unknown")
    if outcomes.empty:
        return
    handles = [legend_mark("paper", "D", theme.text, theme.background)]
    words = {"unknown": "not printed"}
    handles += [
        legend_mark(f"measured: {words.get(name, name)}", MARKS[name], color)
        for name, color in theme.outcomes.items()
        if name in set(outcomes)
    ]
    legend(figure, handles, theme)
