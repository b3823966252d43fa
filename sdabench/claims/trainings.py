"""The uncertainty of training: intervals, p-values and sample sizes from the values of several trainings.

All trainings are evaluated on the same test images, so test-set errors do not separate two of one network;
the spread between trainings with different seeds does. The paper prints a single training, whose spread is
estimated from measured and published trainings.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, mean
from typing import TypeVar

from sdabench.scoring.intervals import Interval

# Standard deviation between trainings, in percentage points; sources are in docs/compare.md.
PRIOR_SD = {
    "top1_pct": 0.15, "top5_pct": 0.10,
    "ap_pct": 0.20, "ap50_pct": 0.25, "ap75_pct": 0.30, "ap_s_pct": 0.40, "ap_m_pct": 0.35, "ap_l_pct": 0.40,
}  # fmt: skip
# The published standard deviations scatter by about 25 %, as one with 8 degrees of freedom does.
PRIOR_FREEDOM = 8
ENOUGH = 3  # trainings of a network that its own verdict needs
SPREAD_LIMIT = 2.5  # by which the spread of trainings may exceed the prior; by chance in 0.2 % of threes
LEVEL = 0.95
POWER = 0.80
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Estimate:
    """A mean over trainings, and the spread from which its uncertainty follows, in percentage points.

    Args:
        mean: of a metric, or of the difference between two networks.
        sd: the standard deviation of a single value, or of the difference of two.
        freedom: the degrees of freedom of ``sd``.
        share: the variance of the mean, as a share of ``sd`` squared: 1/n for n values.
        trainings: the number of trainings, of that network which has fewer.
        own_sd: the standard deviation of the measured values alone; None for fewer than ``ENOUGH``.
        prior: the standard deviation that was expected; None if ``sd`` is that of the measured values alone.
    """

    mean: float
    sd: float
    freedom: int
    share: float
    trainings: int
    own_sd: float | None
    prior: float | None

    @property
    def interval(self) -> Interval:
        """The confidence interval of the expected value."""
        return self._interval(self.share)

    def prediction(self, rounding: float = 0.0) -> Interval:
        """Return the interval of the value that another single training gives, printed with ``rounding``."""
        return self._interval(self.share + 1, rounding)

    def _interval(self, variance: float, rounding: float = 0.0) -> Interval:
        from scipy.special import stdtrit  # slow to import

        margin = float(stdtrit(self.freedom, (1 + LEVEL) / 2)) * self.sd * sqrt(variance) + rounding
        return Interval(self.mean, self.mean - margin, self.mean + margin)

    def p_value(self, reported: float, rounding: float = 0.0) -> float:
        """Return the two-sided p-value of a single training that gives ``reported``."""
        from scipy.special import stdtr

        distance = max(abs(self.mean - reported) - rounding, 0.0)
        return float(2 * stdtr(self.freedom, -distance / (self.sd * sqrt(self.share + 1))))

    @property
    def p_of_zero(self) -> float:
        """The two-sided p-value of an expected value of zero."""
        from scipy.special import stdtr

        return float(2 * stdtr(self.freedom, -abs(self.mean) / (self.sd * sqrt(self.share))))

    @property
    def scattered(self) -> bool:
        """Whether the measured values differ so much that they are hardly trainings of one recipe."""
        if self.own_sd is None or self.prior is None:
            return False
        return self.own_sd > SPREAD_LIMIT * self.prior


def of_values(values: Sequence[float], prior: float) -> Estimate:
    """Estimate a metric from one value per training.

    The variance is the mean of the measured one and the prior's, weighted by degrees of freedom: by few
    similar trainings alone it would be too small, and with 2 degrees of freedom no family could be judged.
    """
    return _estimate(mean(values), [values], prior, 1 / len(values), len(values))


def of_pairs(own: Sequence[float], other: Sequence[float], prior: float | None) -> Estimate:
    """Estimate a difference between two networks from trainings that are paired by their seeds.

    ``prior`` is that of a metric; that of a difference is sqrt(2) times as large. With None, the spread is
    that of the values alone, two of each network or more.
    """
    values = [a - b for a, b in zip(own, other, strict=True)]
    expected = None if prior is None else sqrt(2) * prior
    return _estimate(mean(values), [values], expected, 1 / len(values), len(values))


def of_two(own: Sequence[float], other: Sequence[float], prior: float | None) -> Estimate:
    """Estimate a difference between two networks from trainings with different seeds.

    Both networks have the spread of their trainings together; ``prior`` is as for :func:`of_pairs`.
    """
    share = (1 / len(own) + 1 / len(other)) / 2
    fewer = min(len(own), len(other))
    return _estimate(mean(own) - mean(other), [own, other], prior, share, fewer, factor=sqrt(2))


def _estimate(
    value: float,
    groups: Sequence[Sequence[float]],
    prior: float | None,
    share: float,
    trainings: int,
    factor: float = 1.0,
) -> Estimate:
    squares = sum((one - mean(group)) ** 2 for group in groups for one in group)
    freedom = sum(len(group) - 1 for group in groups)
    prior_freedom = 0 if prior is None else PRIOR_FREEDOM
    variance = (squares + prior_freedom * (prior or 0.0) ** 2) / (freedom + prior_freedom)
    own = sqrt(squares / freedom) if trainings >= ENOUGH else None
    return Estimate(
        mean=value,
        sd=factor * sqrt(variance),
        freedom=freedom + prior_freedom,
        share=share,
        trainings=trainings,
        own_sd=None if own is None else factor * own,
        prior=None if prior is None else factor * prior,
    )


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """Adjust the p-values of a family by Holm's method (Scand. J. Statist. 6, 1979)."""
    adjusted: dict[K, float] = {}
    largest = 0.0
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for rank, (key, p) in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - rank) * p))
        adjusted[key] = largest
    return adjusted


def trainings_needed(
    difference: float, sd: float, single: float = 0.0, prior_freedom: int = PRIOR_FREEDOM
) -> int | None:
    """Compute how many trainings of each network show a difference; None if no number does.

    A two-sided paired t-test at 5 % has a power of 80 %. ``sd`` is that of a single difference. ``single`` is
    1 if the difference is compared with one of two single trainings, whose own spread no number reduces.
    """
    from scipy.special import nctdtr, stdtrit

    effect = abs(difference) / sd if sd else 0.0

    def power(n: int) -> float:
        freedom, location = n - 1 + prior_freedom, effect / sqrt(1 / n + single)
        return 1 - float(nctdtr(freedom, location, stdtrit(freedom, (1 + LEVEL) / 2)))

    limit = 100_000
    low, high = 1 if prior_freedom else 2, 2
    while power(high) < POWER:
        low, high = high, 2 * high
        if high > limit:
            return None
    return next(n for n in range(low, high + 1) if power(n) >= POWER)


def images_needed(difference: float, discordant: float) -> int | None:
    """Compute how many test images show a difference between given weights of two networks by McNemar's test.

    Both in percent; ``discordant`` is the share of images on which only one network is correct. This is the
    sample size of Connor (Biometrics 43, 1987), for a two-sided test at 5 % and a power of 80 %. None without
    a difference, or if it is larger than the discordant share.
    """
    d, share = abs(difference) / 100, discordant / 100
    if not 0 < d <= share:
        return None
    quantile = NormalDist().inv_cdf
    root = quantile((1 + LEVEL) / 2) * sqrt(share) + quantile(POWER) * sqrt(share - d**2)
    return int(-(-(root**2) // d**2))
