"""Standard errors, tests and intervals: published examples, and values derived by hand."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import multinomial

from sdabench.scoring.intervals import (
    Interval,
    accuracy_interval,
    mcnemar,
    paired_difference,
    percentile_interval,
    standard_error_pct,
    unpaired_difference,
)


def test_standard_error_of_an_accuracy():
    # 78 % of 50,000: sqrt(0.78 * 0.22 / 50000) = 0.0018526
    assert standard_error_pct(78.0, 50_000) == pytest.approx(0.18526, abs=1e-5)
    assert math.isnan(standard_error_pct(78.0, 0))


def test_wilson_interval_of_a_published_example():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81 of 263 gives 0.2553 to 0.3662.
    found = accuracy_interval(np.arange(263) < 81)
    assert (found.estimate, found.low, found.high) == pytest.approx((30.798, 25.53, 36.62), abs=0.006)


def test_mcnemar_of_published_examples():
    # Armitage and Berry, Statistical Methods in Medical Research (1994), p. 127: two media for cultures
    # of 50 specimens, 12 grew on the first alone and 2 on the second alone. Two-sided exact P = 0.0129.
    assert mcnemar(12, 2) == pytest.approx(0.0129, abs=5e-5)
    # By hand, for 1 and 7: 2 (1 + 8) / 2^8.
    assert mcnemar(1, 7) == mcnemar(7, 1) == pytest.approx(18 / 256)


def test_mcnemar_p_value_is_at_most_one():
    assert mcnemar(0, 0) == 1
    assert mcnemar(3, 3) == 1
    assert mcnemar(0, 1) == 1


@pytest.mark.parametrize("counts", [(0, 9), (40, 61), (240, 261)])
def test_mcnemar_is_twice_the_binomial_tail(counts):
    fewer, total = min(counts), sum(counts)
    tail = Fraction(sum(math.comb(total, heads) for heads in range(fewer + 1)), 2**total)
    assert mcnemar(*counts) == pytest.approx(float(2 * tail), rel=1e-12)


def test_bonett_price_interval_by_hand():
    # 1 and 7 of 21 (Bentur's data in Fagerland et al., Statistics in Medicine 33, 2014): with one more each
    # 2/23 and 8/23, whose difference is -6/23 and the standard error sqrt((10/23 - 36/529) / 23) = 0.126275;
    # 1.959964 of these are 0.247494.
    interval = paired_difference(1, 7, 21)
    assert interval.estimate == pytest.approx(-600 / 21)
    assert (interval.low, interval.high) == pytest.approx((-50.836, -1.338), abs=1e-3)
    swapped = paired_difference(7, 1, 21)
    assert (swapped.low, swapped.high) == pytest.approx((-interval.high, -interval.low))
    # 1.644854 at 90 %
    assert paired_difference(1, 7, 21, 0.9).high == pytest.approx(-26.0870 + 164.4854 * 0.126275, abs=1e-3)


def test_interval_is_clipped_and_impossible_counts_are_refused():
    assert paired_difference(10, 0, 10).high == 100
    assert paired_difference(0, 10, 10).low == -100
    same = paired_difference(0, 0, 50_000)
    assert same.estimate == 0
    assert 0 < same.high == -same.low < 0.01
    for counts in ((0, 0, 0), (3, 4, 6)):
        with pytest.raises(ValueError, match="samples cannot include"):
            paired_difference(*counts)


@pytest.mark.parametrize("chances", [(0.02, 0.02), (0.1, 0.05), (0.15, 0.15), (0.3, 0.05), (0.4, 0.0)])
def test_interval_has_95_percent_coverage(chances):
    samples, covered = 60, 0.0
    outcomes = [(a, b, samples - a - b) for a in range(samples + 1) for b in range(samples + 1 - a)]
    weights = multinomial.pmf(outcomes, samples, [*chances, 1 - sum(chances)])
    for (only_a, only_b, _), weight in zip(outcomes, weights, strict=True):
        interval = paired_difference(only_a, only_b, samples)
        covered += weight * (interval.low <= 100 * (chances[0] - chances[1]) <= interval.high)
    assert 0.94 < covered <= 1 + 1e-9
    if min(chances) >= 0.1:
        assert covered < 0.97


def test_unpaired_difference_adds_squared_errors():
    interval = unpaired_difference(78.0, 0.3, 77.0, 0.4)
    assert interval.estimate == pytest.approx(1.0)
    assert (interval.low, interval.high) == pytest.approx((1 - 0.5 * 1.959964, 1 + 0.5 * 1.959964))


def test_percentile_interval_skips_nan():
    values = np.array([*range(101), np.nan], dtype=float)  # 2.5 % of 0 to 100 lie below 2.5
    assert percentile_interval(values, 48.0) == Interval(48.0, pytest.approx(2.5), pytest.approx(97.5))
    assert percentile_interval(values, 48.0, 0.5) == Interval(48.0, pytest.approx(25), pytest.approx(75))
    assert percentile_interval(np.array([1.0, np.nan, np.nan]), 1.0) is None
    assert percentile_interval(np.array([]), 1.0) is None
    assert percentile_interval(np.array([1.0, np.nan]), 1.0) == Interval(1.0, 1.0, 1.0)
