import math

import numpy as np
import pytest
import torch

from sdabench.analysis.depth_weights import attention_depth, depth_slope, mean_of_runs, stage_depths


def weights_of(*blocks: float) -> torch.Tensor:
    """Make weights (1, blocks, 2) that are the same for both channels."""
    return torch.tensor(blocks)[None, :, None].expand(1, -1, 2)


@pytest.mark.parametrize(
    ("blocks", "depth"),
    [
        ((1.0, 0.0, 0.0), 0.0),
        ((0.0, 0.0, 1.0), 1.0),
        ((0.25, 0.25, 0.25, 0.25), 0.5),
        ((0.5, 0.3, 0.2), 0.35),
    ],
)
def test_attention_depth_is_the_mean_position_of_the_weight(blocks, depth):
    assert attention_depth({"layer1": weights_of(*blocks)}).tolist() == pytest.approx([depth])


def test_attention_depth_is_a_mean_over_channels_and_stages():
    by_channel = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])  # channel 0: first block, channel 1: last block
    weights = {"layer1": by_channel, "layer2": weights_of(0.0, 0.0, 1.0), "layer3": weights_of(1.0)}
    assert {name: depth.tolist() for name, depth in stage_depths(weights).items()} == {
        "layer1": [0.5],
        "layer2": [1.0],
    }
    assert attention_depth(weights).tolist() == [0.75]


def test_attention_depth_needs_a_stage_with_two_blocks():
    with pytest.raises(ValueError, match="no stage"):
        attention_depth({"layer1": weights_of(1.0)})


def test_slope_is_depth_per_octave():
    sizes = torch.tensor([10.0, 20.0, 40.0, 80.0])
    slope = depth_slope(torch.tensor([0.5, 0.4, 0.3, 0.2]), sizes)
    assert slope.estimate == pytest.approx(-0.1)
    assert slope.correlation == pytest.approx(-1)
    assert slope.images == 4


def test_error_of_the_slope_is_that_of_leaving_out_single_images():
    rng = np.random.default_rng(0)
    sizes = 2 ** rng.uniform(3, 6, 12)
    depths = 0.5 + 0.02 * np.log2(sizes) + rng.normal(0, 0.01, 12) * np.log2(sizes)
    slope = depth_slope(torch.tensor(depths), torch.tensor(sizes))
    fits = [np.polyfit(np.log2(np.delete(sizes, i)), np.delete(depths, i), 1)[0] for i in range(12)]
    assert slope.estimate == pytest.approx(np.polyfit(np.log2(sizes), depths, 1)[0])
    assert slope.standard_error == pytest.approx(np.sqrt(((np.array(fits) - slope.estimate) ** 2).sum()))
    half = 2.228139  # t of 97.5 % with 10 degrees of freedom, from tables
    assert slope.interval.high - slope.estimate == pytest.approx(half * slope.standard_error, rel=1e-5)


def test_constant_depth_has_no_correlation():
    slope = depth_slope(torch.full((5,), 0.5), torch.arange(1, 6))
    assert slope.estimate == 0
    assert math.isnan(slope.correlation)


@pytest.mark.parametrize(
    ("sizes", "words"), [([1.0, 2.0], "3 images or more, not 2"), ([4.0, 4.0, 4.0], "same x")]
)
def test_slope_needs_three_images_of_different_sizes(sizes, words):
    with pytest.raises(ValueError, match=words):
        depth_slope(torch.zeros(len(sizes)), torch.tensor(sizes))


def test_mean_of_runs_has_an_interval_over_runs():
    interval = mean_of_runs([1.0, 2.0, 3.0])  # sd 1, t of 97.5 % with 2 degrees of freedom: 4.30265
    assert interval is not None
    assert interval.estimate == 2
    assert interval.high == pytest.approx(2 + 4.30265 / math.sqrt(3), abs=1e-5)
    assert mean_of_runs([1.0]) is None
