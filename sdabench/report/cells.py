"""Format numbers, differences and verdicts for the cells of a table."""

from sdabench.claims.metrics import Judged
from sdabench.claims.trainings import LEVEL
from sdabench.claims.verdicts import Outcome, Verdict, rounded
from sdabench.registry.schema import Column
from sdabench.report.sheet import Cell, Tone
from sdabench.scoring.intervals import Interval

TONES: dict[Outcome, Tone] = {"holds": "good", "open": "fair", "fails": "bad", "unknown": "dim"}


def number(value: float | None, decimals: int) -> str:
    """Format a rounded number, or a dash for None."""
    return "-" if value is None else f"{rounded(value, decimals):.{decimals}f}"


def measured_decimals(column: Column) -> int:
    """Return the decimals of a measured value; exact counts get one more than the paper's number."""
    return column.decimals + (column.convention is not None)


def measured_number(value: float | None, column: Column) -> str:
    """Format a measured value, or a dash for None."""
    return number(value, measured_decimals(column))


def signed(value: float, decimals: int) -> str:
    """Format a rounded number with its sign; zero has no sign."""
    value = rounded(value, decimals)
    return f"{value:+.{decimals}f}".replace("-", "−") if value else f"{0:.{decimals}f}"


def difference(reported: float | None, measured: float | None, decimals: int) -> str:
    """Format the measured value minus the paper's; empty if one of them is missing."""
    return "" if reported is None or measured is None else signed(measured - reported, decimals)


def bounds_text(low: float | None, high: float | None) -> str:
    """Format the bounds of the interval of a difference, or a dash for None."""
    return "-" if low is None or high is None else f"{signed(low, 2)} to {signed(high, 2)}"


def interval_text(interval: Interval | None) -> str:
    """Format an interval by :func:`bounds_text`."""
    return bounds_text(None, None) if interval is None else bounds_text(interval.low, interval.high)


def p_text(p: float | None) -> str:
    """Format a p-value, or a dash for None."""
    return "-" if p is None else f"{p:.2g}" if p >= 1e-4 else "<0.0001"


def better_cell(interval: Interval | None, p: float | None = None) -> Cell:
    """State whether a difference is above zero, by its p-value or else by its interval."""
    if interval is None:
        return Cell()
    if interval.above_zero is None if p is None else p > 1 - LEVEL:
        return Cell("not significant", tone="dim")
    return Cell("yes", tone="good") if interval.estimate > 0 else Cell("no", tone="bad")


def tolerance(judged: Judged | None) -> str:
    """Format half the width of the interval by which a number is judged; empty without one."""
    half = judged and judged.tolerance
    return "" if half is None else f"{half:.2f}"


def verdict_cell(verdict: Verdict | None) -> Cell:
    """Show a verdict: green confirms a claim, red is outside tolerance."""
    if verdict is None:
        return Cell()
    return Cell(str(verdict), tone=TONES[verdict.outcome])
