"""How sure a number is, and a difference of two: standard errors and intervals, in percentage points."""

from dataclasses import dataclass
from math import hypot, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """A confidence interval in percentage points, and what it is of."""

    estimate: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool | None:
        """Whether all of it is; None where zero is in it."""
        return None if self.low <= 0 <= self.high else self.low > 0


def standard_error_pct(accuracy_pct: float, samples: int) -> float:
    """The standard error of an accuracy in percent over independent samples; NaN for none."""
    if samples == 0:
        return float("nan")
    fraction = accuracy_pct / 100
    return 100 * sqrt(fraction * (1 - fraction) / samples)


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value of McNemar's test; 1 where the two systems never differ.

    Args:
        only_a: samples on which only the first of two systems is right.
        only_b: those on which only the second is.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def paired_difference(only_a: int, only_b: int, samples: int, level: float = 0.95) -> Interval:
    """The first accuracy minus the second, of two systems on the same samples, by :func:`mcnemar`'s counts.

    The interval is Bonett's and Price's (J. Educ. Behav. Stat. 37, 2012): Wald's of one more sample on which
    only the first is right and one on which only the second is, so that its middle is not the estimate.

    Raises:
        ValueError: there is no sample, or there are fewer than those on which one is right.
    """
    if samples < max(1, only_a + only_b):
        raise ValueError(f"{only_a} and {only_b} of {samples} samples cannot be")
    share_a, share_b = (only_a + 1) / (samples + 2), (only_b + 1) / (samples + 2)
    middle = share_a - share_b
    margin = _quantile(level) * sqrt((share_a + share_b - middle**2) / (samples + 2))
    estimate = 100 * (only_a - only_b) / samples
    return Interval(estimate, 100 * max(middle - margin, -1.0), 100 * min(middle + margin, 1.0))


def unpaired_difference(
    a_pct: float, error_a: float, b_pct: float, error_b: float, level: float = 0.95
) -> Interval:
    """The first number minus the second, by their standard errors, where it is not known sample by sample.

    Of two systems on the same samples it is too wide, because what is hard is hard for both.
    """
    difference, margin = a_pct - b_pct, _quantile(level) * hypot(error_a, error_b)
    return Interval(difference, difference - margin, difference + margin)


def percentile_interval(
    values: "NDArray[np.float64]", estimate: float, level: float = 0.95
) -> Interval | None:
    """The interval between the percentiles of resamples (B,); None where fewer than half are a number."""
    import numpy as np

    measured = values[~np.isnan(values)]
    if not len(measured) or 2 * len(measured) < len(values):
        return None
    low, high = np.quantile(measured, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(estimate, low, high)


def _quantile(level: float) -> float:
    """How many standard errors an interval of that level reaches to either side."""
    return NormalDist().inv_cdf((1 + level) / 2)
