"""Format numbers, differences and verdicts for the cells of a table."""

from sdabench.claims.metrics import Judged
from sdabench.claims.verdicts import Verdict, rounded
from sdabench.registry.schema import Column
from sdabench.report.sheet import Cell, Tone
from sdabench.scoring.intervals import Interval

TONES: dict[str, Tone] = {
    "match": "good",
    "within": "good",
    "supported": "good",
    "better": "fair",
    "explained": "fair",
    "not reproduced": "fair",
    "open": "fair",
    "contradicted": "fair",
    "different trainings": "fair",
    "differs": "bad",
    "worse": "bad",
    "not measured": "dim",
    "not testable": "dim",
    "survives": "fair",
    "does not survive": "fair",
}


def number(value: float | None, decimals: int) -> str:
    """Format a rounded number, or a dash for None."""
    return "-" if value is None else f"{rounded(value, decimals):.{decimals}f}"


def measured_number(value: float | None, column: Column) -> str:
    """Format a measured value; exact counts get one digit more than the paper's number."""
    return number(value, column.decimals + (column.convention is not None))


def signed(value: float, decimals: int) -> str:
    """Format a rounded number with its sign; zero has no sign."""
    value = rounded(value, decimals)
    return f"{value:+.{decimals}f}".replace("-", "−") if value else f"{0:.{decimals}f}"


def difference(reported: float | None, measured: float | None, decimals: int) -> str:
    """Format the measured value minus the paper's; empty if one of them is missing."""
    return "" if reported is None or measured is None else signed(measured - reported, decimals)


def interval_text(interval: Interval | None) -> str:
    """Format the bounds of a confidence interval, or a dash for None."""
    return "-" if interval is None else f"{signed(interval.low, 2)} to {signed(interval.high, 2)}"


def better_cell(interval: Interval | None) -> Cell:
    """State whether a confidence interval is above zero; empty without an interval."""
    if interval is None:
        return Cell()
    if interval.above_zero is None:
        return Cell("not significant", tone="dim")
    return Cell("yes", tone="good") if interval.above_zero else Cell("no", tone="bad")


def tolerance(judged: Judged | None) -> str:
    """Format half the width of the interval by which a number is judged; empty without one."""
    if judged is None or judged.interval is None:
        return ""
    return f"{judged.interval.high - judged.interval.estimate:.2f}"


def verdict_cell(verdict: Verdict | None) -> Cell:
    """Show a verdict: green confirms a claim, red is outside tolerance."""
    if verdict is None:
        return Cell()
    tone = TONES[verdict.name]
    if verdict.outside_tolerance:
        tone = "bad"
    elif verdict.limited:
        tone = "fair"
    return Cell(str(verdict), tone=tone)
