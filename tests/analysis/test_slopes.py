import math

import pytest

from sdabench.analysis.slopes import DIFFERENCE, depth_slopes, depths_by_octave, radius_slopes
from tests.helpers.inspections import inspected, two_runs


def test_slope_of_a_network_is_that_of_each_stage_and_of_their_mean():
    slopes = {each.stage: each for each in depth_slopes([inspected(0.02)])}
    assert {stage: each.interval.estimate for stage, each in slopes.items()} == pytest.approx(
        {"layer1": 0.02, "layer2": 0.04, "all": 0.03}
    )
    assert {each.images for each in slopes.values()} == {5}  # one image has no object
    assert {each.over for each in slopes.values()} == {"images"}


def test_slope_over_runs_has_the_spread_of_runs():
    [mean] = [
        each
        for each in depth_slopes(two_runs().networks)
        if (each.stage, each.state, each.over) == ("layer1", "trained", "runs")
    ]
    # 0.02 and 0.04: mean 0.03, standard error 0.01; t of 97.5 % with one degree of freedom is 12.7062.
    assert mean.interval.estimate == pytest.approx(0.03)
    assert mean.interval.high == pytest.approx(0.03 + 0.127062, abs=1e-6)
    assert mean.runs == 2


def test_difference_from_the_untrained_network_is_paired_by_run():
    found = [each for each in depth_slopes(two_runs().networks) if each.state == DIFFERENCE]
    by_run = {each.run: each.interval.estimate for each in found if each.stage == "layer1"}
    assert by_run == pytest.approx({1: 0.01, 2: 0.03, None: 0.02})


def test_networks_without_sizes_or_depth_attention_have_no_slope():
    network = inspected()
    for update in ({"sizes": ()}, {"depths": {}}, {"sizes": (0.5,) * 6}, {"sizes": (0.5, 0.25, *[None] * 4)}):
        assert depth_slopes([network.model_copy(update=update)]) == []


def test_depth_is_averaged_by_octave():
    found = {each.octave: each for each in depths_by_octave([inspected(0.02)]) if each.stage == "layer1"}
    assert {octave: (each.images, each.depth) for octave, each in found.items()} == {
        -3: (1, pytest.approx(0.46)),
        -2: (1, pytest.approx(0.48)),
        -1: (3, pytest.approx(0.5 + 0.02 * math.log2(1.5) / 3)),
    }
    assert found[-2].interval is None
    interval = found[-1].interval
    assert interval is not None
    assert interval.low < found[-1].depth < interval.high


def test_untrained_networks_of_one_seed_are_no_runs():
    networks = [each.model_copy(update={"seed": 0}) for each in two_runs().networks]
    over_runs = {each.state for each in depth_slopes(networks) if each.over == "runs"}
    assert over_runs == {"trained", DIFFERENCE}


def test_radius_has_a_slope_on_attention_depth_in_octaves():
    found = radius_slopes(two_runs().networks)
    by_run = {each.run: each.interval.estimate for each in found if each.state == "trained"}
    assert by_run == pytest.approx({1: 2.02, 2: 2.04, None: 2.03})
    assert {each.stage for each in found} == {"layer1"}
    assert {each.images for each in found} == {20}  # one image has no field
    assert [each.correlation for each in found] == pytest.approx([1] * len(found))


def test_radius_of_few_images_or_of_one_depth_has_no_slope():
    assert radius_slopes([inspected(field_images=19)]) == []
    network = inspected()
    fields = [each.model_copy(update={"depths": (0.5,) * len(each.depths)}) for each in network.fields]
    assert radius_slopes([network.model_copy(update={"fields": tuple(fields)})]) == []
