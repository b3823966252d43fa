"""Numbers, differences and verdicts as the text of cells."""

from sdabench.claims.verdicts import Verdict, rounded
from sdabench.registry.schema import Column
from sdabench.report.sheet import Cell, Tone
from sdabench.scoring.intervals import Interval

TONES: dict[str, Tone] = {
    "match": "good",
    "within": "good",
    "better": "good",
    "explained": "fair",
    "differs": "bad",
    "worse": "bad",
    "not measured": "dim",
}


def number(value: float | None, decimals: int) -> str:
    """The rounded number, or a dash for None."""
    return "-" if value is None else f"{rounded(value, decimals):.{decimals}f}"


def measured_number(value: float | None, column: Column) -> str:
    """The measured value. An exact count has one digit more than the paper's number, to judge its last."""
    return number(value, column.decimals + (column.convention is not None))


def signed(value: float, decimals: int) -> str:
    """The rounded number with its sign; zero has no sign."""
    value = rounded(value, decimals)
    return f"{value:+.{decimals}f}".replace("-", "−") if value else f"{0:.{decimals}f}"


def difference(reported: float | None, measured: float | None, decimals: int) -> str:
    """The measured value minus the paper's; empty where one of them is missing."""
    return "" if reported is None or measured is None else signed(measured - reported, decimals)


def interval_text(interval: Interval | None) -> str:
    """The bounds of a confidence interval, or a dash for None."""
    return "-" if interval is None else f"{signed(interval.low, 2)} to {signed(interval.high, 2)}"


def better_cell(interval: Interval | None) -> Cell:
    """Whether a difference is above zero, by its confidence interval; empty without an interval."""
    if interval is None:
        return Cell()
    if interval.above_zero is None:
        return Cell("not significant", tone="dim")
    return Cell("yes", tone="good") if interval.above_zero else Cell("no", tone="bad")


def verdict_cell(verdict: Verdict | None) -> Cell:
    return Cell() if verdict is None else Cell(str(verdict), tone=TONES[verdict.name])
