"""Intervals, p-values and sample sizes from several trainings: textbook formulas by hand and published examples."""

from math import sqrt
from statistics import stdev

import pytest

from sdabench.claims.trainings import (
    PRIOR_FREEDOM,
    PRIOR_SD,
    holm,
    images_needed,
    of_pairs,
    of_two,
    of_values,
    trainings_needed,
)

T_10, T_8, T_11 = 2.228139, 2.306004, 2.200985  # 97.5 % quantiles of Student's t, from tables


def test_prediction_interval_of_three_trainings_by_hand():
    # Squares around 78.25: 0.04 + 0 + 0.04. Variance (0.08 + 8 * 0.15^2) / 10 = 0.026.
    estimate = of_values([78.05, 78.25, 78.45], 0.15)
    assert estimate.sd == pytest.approx(sqrt(0.026))
    assert estimate.own_sd == pytest.approx(0.2)
    interval = estimate.prediction(0.005)
    assert interval.estimate == pytest.approx(78.25)
    assert interval.high - 78.25 == pytest.approx(T_10 * sqrt(0.026 * 4 / 3) + 0.005, abs=1e-5)
    assert 78.25 - estimate.interval.low == pytest.approx(T_10 * sqrt(0.026 / 3), abs=1e-5)


def test_one_training_has_the_published_spread():
    estimate = of_values([78.0], 0.15)
    assert (estimate.sd, estimate.own_sd) == (0.15, None)
    assert estimate.prediction().high - 78 == pytest.approx(T_8 * 0.15 * sqrt(2), abs=1e-5)


def test_equal_trainings_have_an_interval():
    assert of_values([78.0] * 3, 0.15).sd == pytest.approx(0.15 * sqrt(0.8))


def test_many_trainings_determine_the_spread_themselves():
    values = [78 + 0.4 * (-1) ** number for number in range(400)]
    assert of_values(values, 0.15).sd == pytest.approx(stdev(values), rel=0.01)


def test_scattered_trainings_are_hardly_of_one_recipe():
    assert of_values([77.0, 78.0, 80.0], 0.15).scattered
    assert not of_values([77.9, 78.0, 78.3], 0.15).scattered
    assert not of_values([77.0, 80.0], 0.15).scattered  # two say nothing about their spread


def test_p_value_is_one_at_the_mean_and_five_percent_at_the_end_of_the_interval():
    estimate = of_values([78.05, 78.25, 78.45], 0.15)
    assert estimate.p_value(78.25) == 1
    assert estimate.p_value(78.254, 0.005) == 1
    assert estimate.p_value(estimate.prediction(0.005).high, 0.005) == pytest.approx(0.05)
    assert estimate.p_value(estimate.prediction(0.005).low, 0.005) == pytest.approx(0.05)


def test_paired_difference_by_hand():
    # Differences 3.0, 3.2, 3.1: squares 0.02. The prior of a difference is sqrt(2) * 0.15.
    estimate = of_pairs([78.0, 78.4, 78.2], [75.0, 75.2, 75.1], 0.15)
    assert estimate.mean == pytest.approx(3.1)
    assert estimate.sd == pytest.approx(sqrt((0.02 + 8 * 2 * 0.15**2) / 10))
    assert estimate.prediction().high - 3.1 == pytest.approx(T_10 * estimate.sd * sqrt(4 / 3), abs=1e-5)


def test_unpaired_difference_by_hand():
    # Squares: 0.08 around 78.2, and 0.005 around 75.05. Freedom 2 + 1 + 8.
    estimate = of_two([78.0, 78.4, 78.2], [75.0, 75.1], 0.15)
    variance = (0.08 + 0.005 + 8 * 0.15**2) / 11
    assert estimate.mean == pytest.approx(3.15)
    assert (estimate.trainings, estimate.freedom) == (2, 11)
    assert estimate.sd == pytest.approx(sqrt(2 * variance))
    assert 3.15 - estimate.interval.low == pytest.approx(T_11 * sqrt(variance * (1 / 3 + 1 / 2)), abs=1e-5)


def test_every_metric_of_the_tables_has_a_prior():
    from sdabench.registry import load_registry

    tables = load_registry().tables.values()
    keys = {column.key for table in tables for column in table.columns if column.convention is None}
    assert keys == set(PRIOR_SD)
    assert PRIOR_FREEDOM == 8  # a relative standard error of 1 / sqrt(2 * 8) = 25 %


def test_holm_of_a_published_example():
    # Holm's procedure on 0.01, 0.04, 0.03, 0.005: times 4, 3, 2, 1 in order, then never decreasing.
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_number_of_pairs_equals_the_tables_of_cohen(effect, pairs):
    """Paired t-test at 5 %, power 80 %: G*Power's and Cohen's standard small, medium and large effects."""
    assert trainings_needed(effect, 1.0, prior_freedom=0) == pairs


def test_number_of_trainings_is_bounded_by_the_papers_single_ones():
    sd = 0.15 * sqrt(2)
    assert trainings_needed(0.64, sd) == 2
    assert trainings_needed(0.64, sd, single=1) > 2
    assert trainings_needed(2.79 * sd, sd, single=1) is None  # 1.960 + 0.842 standard deviations at best
    assert trainings_needed(2.83 * sd, sd, single=1) is not None
    assert trainings_needed(0.0, sd) is None


def test_number_of_images_by_hand():
    # (1.959964 sqrt(0.12) + 0.841621 sqrt(0.12 - 0.01^2))^2 / 0.01^2 = 9416.3
    assert images_needed(1.0, 12) == 9417
    assert images_needed(-1.0, 12) == 9417
    assert images_needed(0.0, 12) is None
    assert images_needed(13.0, 12) is None
