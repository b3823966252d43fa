"""Decide studies from measurements made by hand."""

import pytest
from scipy.stats import nct, t, ttest_rel

from sdabench.claims.studies import JudgedStudy, judged_in, t_test
from sdabench.claims.study_power import detectable_effect, study_power, t_test_power
from sdabench.errors import DataError
from sdabench.registry.studies import FrozenStudy
from tests.helpers.studies import declared, measured, write_measured

LEARNED, UNIFORM = [80.0, 81.0, 82.0, 83.5], [70.0, 72.0, 71.0, 73.0]
SWAPS, SLOPES = [0.9, 1.1, 1.0, 1.05], [-0.05, -0.052, -0.049, -0.051]


def judged(study=None, learned=LEARNED, uniform=UNIFORM, swaps=SWAPS, slopes=SLOPES, **options):
    values = [
        {"octave_top1_pct": top1, "swap_drop_pct": swap, "depth_slope": slope}
        for top1, swap, slope in zip(learned, swaps, slopes, strict=True)
    ]
    found = [measured("learned", seed, **each) for seed, each in enumerate(values)]
    found += [measured("uniform", seed, octave_top1_pct=top1) for seed, top1 in enumerate(uniform)]
    return JudgedStudy(study or declared(), found, **options)


def test_tests_are_paired_by_seed_and_corrected_together():
    results = {each.name: each for each in judged().results}
    accuracy = results["accuracy"]
    expected = ttest_rel(LEARNED, UNIFORM)
    assert accuracy.estimate == pytest.approx(10.125)
    assert accuracy.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert (accuracy.interval.low, accuracy.interval.high) == pytest.approx((low, high))
    p_values = sorted(each.p for each in results.values())
    adjusted = sorted(each.adjusted for each in results.values())
    assert adjusted == pytest.approx([3 * p_values[0], 2 * p_values[1], max(2 * p_values[1], p_values[2])])
    assert {name: each.verdict for name, each in results.items()} == {
        "accuracy": "supported", "swap": "supported", "slope": "contradicted",
    }  # fmt: skip


def test_the_t_test_gives_values_derived_by_hand():
    """Mean 3.5 and standard error sqrt(3.5 / 6); the quantile of t with 5 degrees of freedom is 2.5706."""
    interval, p = t_test([1, 2, 3, 4, 5, 6], 0.95)
    margin = 2.570582 * (3.5 / 6) ** 0.5
    assert (interval.low, interval.high) == pytest.approx((3.5 - margin, 3.5 + margin), abs=1e-5)
    assert p == pytest.approx(2 * t.sf(3.5 / (3.5 / 6) ** 0.5, 5))
    assert t_test([1.0], 0.95) is None


@pytest.mark.parametrize("swaps", [[0.0] * 4, [2.0] * 4, [0.1 + 0.2, 0.3, 0.3, 0.3]])
def test_equal_values_leave_a_test_open(swaps):
    assert t_test(swaps, 0.95) is None
    found = judged(swaps=swaps, slopes=[-slope for slope in SLOPES])
    result = found.result("swap")
    assert (result.p, result.adjusted, result.interval) == (None, None, None)
    assert (result.verdict, found.decision) == ("open", "open")
    assert found.result("accuracy").verdict == "supported"


@pytest.mark.parametrize(
    ("rule", "slopes", "decision"),
    [
        (("all", "any"), SLOPES, "contradicted"),
        (("any", "any"), SLOPES, "open"),  # both rules hold
        (("all", "all"), SLOPES, "open"),
        (("any", "all"), SLOPES, "supported"),
        (("all", "any"), [-slope for slope in SLOPES], "supported"),
        (("all", "any"), [0.05, -0.05, 0.06, -0.05], "open"),
    ],
)
def test_the_rule_of_the_study_decides(rule, slopes, decision):
    supported, contradicted = rule
    study = declared(decision={"supported": supported, "contradicted": contradicted, "words": "rule"})
    assert judged(study, slopes=slopes).decision == decision


def test_nothing_is_decided_before_all_trainings_are_measured():
    partly = judged(uniform=UNIFORM[:3])
    assert partly.missing == [("uniform", 3)]
    assert partly.decision is None
    accuracy = partly.result("accuracy")
    assert accuracy.values == {0: 10.0, 1: 9.0, 2: 11.0}
    assert accuracy.estimate == pytest.approx(10.0)
    assert [accuracy.p, accuracy.adjusted, accuracy.verdict] == [None] * 3
    pilot = judged(pilot=True)
    assert (pilot.decision, pilot.result("swap").p) == (None, None)
    empty = JudgedStudy(declared(), [])
    assert empty.result("swap").estimate is None


def test_either_direction_supports_a_test_without_a_predicted_sign():
    tests = declared().model_dump()["tests"]
    tests["slope"]["direction"] = "either"
    assert judged(declared(tests=tests)).result("slope").verdict == "supported"


def test_an_open_test_can_exclude_the_smallest_effect_that_matters():
    tight = judged(slopes=[0.001, -0.001, 0.002, -0.002]).result("slope")
    assert tight.verdict == "open"
    assert tight.excludes_relevant_effects
    assert not judged(slopes=[0.05, -0.05, 0.06, -0.05]).result("slope").excludes_relevant_effects


def test_secondary_tests_are_not_corrected_and_have_no_verdict():
    secondary = {
        "uniform_accuracy": {**declared().model_dump()["tests"]["swap"], "measure": "octave_top1_pct"}
    }
    found = judged(declared(secondary=secondary)).result("uniform_accuracy")
    assert found.p < 0.05
    assert (found.adjusted, found.verdict, found.primary) == (None, None, False)
    assert judged(declared(secondary=secondary)).decision == judged().decision


def test_power_is_that_of_gpower_and_of_the_noncentral_t_distribution():
    """G*Power 3.1: a one-sample t-test at d = 0.5, two-sided 5 %, needs 34 values, with a power of 0.8078."""
    assert t_test_power(0.5, 34, 0.05) == pytest.approx(0.8078, abs=5e-5)
    assert t_test_power(0.5, 33, 0.05) < 0.8
    alpha = 0.05 / 3
    critical = t.ppf(1 - alpha / 2, 3)
    own = declared()
    [found] = study_power(own)
    location = 2 * 1.0 / 0.5  # sqrt of four seeds, by the smallest effect in standard deviations
    assert found.power == pytest.approx(nct.sf(critical, 3, location) + nct.cdf(-critical, 3, location))
    assert t_test_power(found.detectable / 0.5, 4, alpha) == pytest.approx(0.8)
    assert t_test_power(2.0, found.seeds, alpha) >= 0.8 > t_test_power(2.0, found.seeds - 1, alpha)
    assert detectable_effect(6, 0.05) < detectable_effect(4, 0.05)


def test_power_for_large_effects_is_a_number():
    critical, location = t.ppf(1 - 0.05 / 6, 2), 8.0
    assert t_test_power(location / 3**0.5, 3, 0.05 / 3) == pytest.approx(nct.sf(critical, 2, location))
    assert t_test_power(100.0, 4, 0.05 / 3) == pytest.approx(1.0)
    found = detectable_effect(3, 0.05 / 3)
    assert t_test_power(found, 3, 0.05 / 3) == pytest.approx(0.8)


def test_measurements_of_an_unknown_arm_are_refused(tmp_path):
    study = FrozenStudy(study=declared(), recipe={}, networks={})
    folder = write_measured(tmp_path, study)
    assert judged_in(folder).decision == "supported"
    folder.append([measured("lerned", 0, study.sha256)])
    with pytest.raises(DataError, match="measurements.jsonl was edited: the study has no arm 'lerned'"):
        judged_in(folder)
