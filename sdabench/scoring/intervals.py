"""Compute standard errors, paired tests and confidence intervals, in percentage points."""

from dataclasses import dataclass
from math import hypot, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval, in one unit, such as percent or percentage points."""

    estimate: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool | None:
        """True above zero, False below zero, None if the interval contains zero."""
        return None if self.low <= 0 <= self.high else self.low > 0


def standard_error_pct(accuracy_pct: float, samples: int) -> float:
    """Compute the standard error of an accuracy in percent; NaN without samples."""
    if samples == 0:
        return float("nan")
    fraction = accuracy_pct / 100
    return 100 * sqrt(fraction * (1 - fraction) / samples)


def accuracy_interval(right: "NDArray[np.bool_]", level: float = 0.95) -> Interval:
    """Compute an accuracy in percent from right and wrong predictions (N,), with Wilson's interval.

    Raises:
        ValueError: there are no predictions.
    """
    from scipy.stats import binomtest  # slow to import

    found = binomtest(int(right.sum()), len(right)).proportion_ci(level, method="wilson")
    return Interval(100 * float(right.mean()), 100 * found.low, 100 * found.high)


def mcnemar(only_a: int, only_b: int) -> float:
    """Compute the exact two-sided p-value of McNemar's test; 1 if the two systems never differ.

    Only one system is right on ``only_a`` samples (the first system) and on ``only_b`` (the second).
    """
    from scipy.stats import binomtest  # slow to import

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def paired_difference(only_a: int, only_b: int, samples: int, level: float = 0.95) -> Interval:
    """Compute the first accuracy minus the second on the same samples, from the counts of :func:`mcnemar`.

    The interval is that of Bonett and Price (J. Educ. Behav. Stat. 37, 2012): Wald's interval after adding
    one sample on which only the first system is right and one on which only the second is. Its center
    differs from the estimate.

    Raises:
        ValueError: there are no samples, or fewer than ``only_a + only_b``.
    """
    if samples < max(1, only_a + only_b):
        raise ValueError(f"{samples} samples cannot include {only_a} and {only_b} different ones")
    share_a, share_b = (only_a + 1) / (samples + 2), (only_b + 1) / (samples + 2)
    middle = share_a - share_b
    margin = _quantile(level) * sqrt((share_a + share_b - middle**2) / (samples + 2))
    estimate = 100 * (only_a - only_b) / samples
    return Interval(estimate, 100 * max(middle - margin, -1.0), 100 * min(middle + margin, 1.0))


def unpaired_difference(
    a_pct: float, error_a: float, b_pct: float, error_b: float, level: float = 0.95
) -> Interval:
    """Compute the first number minus the second from their standard errors, as if they were independent.

    The interval is too wide for two systems on the same samples, whose errors are correlated.
    """
    difference, margin = a_pct - b_pct, _quantile(level) * hypot(error_a, error_b)
    return Interval(difference, difference - margin, difference + margin)


def percentile_interval(
    values: "NDArray[np.float64]", estimate: float, level: float = 0.95
) -> Interval | None:
    """Compute the percentile interval of resamples (B,); None if more than half of them are NaN."""
    import numpy as np

    measured = values[~np.isnan(values)]
    if not len(measured) or 2 * len(measured) < len(values):
        return None
    low, high = np.quantile(measured, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(estimate, low, high)


def _quantile(level: float) -> float:
    """Return the half-width of an interval of that level, in standard errors."""
    return NormalDist().inv_cdf((1 + level) / 2)
