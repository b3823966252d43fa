"""Assign depth weights of other images, and compute what wrong sizes cost."""

import pytest
import torch

from sdabench.analysis.swapping import accuracies_by_octave, donors, swap_depth_weights

OCTAVES = torch.tensor([-1, -2, -3] * 4)


def generator():
    return torch.Generator().manual_seed(0)


def test_donors_within_an_octave_are_other_images_each_once():
    chosen = donors(OCTAVES, generator())
    assert torch.equal(OCTAVES[chosen], OCTAVES)
    assert sorted(chosen.tolist()) == list(range(12))
    assert not (chosen == torch.arange(12)).any()


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_donors_across_octaves_have_another_octave(shift):
    chosen = donors(OCTAVES, generator(), shift=shift)
    assert not (OCTAVES[chosen] == OCTAVES).any()
    assert sorted(chosen.tolist()) == list(range(12))
    of_largest = set(OCTAVES[chosen[OCTAVES == -1]].tolist())
    assert of_largest == ({-3} if shift % 2 == 0 else {-2})  # octaves are sorted: -3, -2, -1


def test_octaves_of_different_frequency_and_of_one_image():
    octaves = torch.tensor([-1, -1, -1, -2, -2])
    assert octaves[donors(octaves, generator(), shift=0)].tolist() == [-2, -2, -2, -1, -1]
    with pytest.raises(ValueError, match="one image only"):
        donors(torch.tensor([-1, -1, -2]), generator())
    with pytest.raises(ValueError, match="one octave"):
        donors(torch.tensor([-1, -1]), generator(), shift=0)


def test_drops_are_differences_of_means_over_octaves():
    """An image is classified correctly if its weights come from an image of its octave: the drop is 100."""
    weights = {"layer1": OCTAVES[:, None, None].expand(-1, 2, 3).float()}

    def classify(given):
        return accuracies_by_octave(given["layer1"][:, 0, 0].long() == OCTAVES, OCTAVES)

    own = classify(weights)
    assert own == {-3: 100.0, -2: 100.0, -1: 100.0}
    found = swap_depth_weights(weights, OCTAVES, own, classify, permutations=2)
    assert (found.within_drop_pct, found.across_drop_pct, found.drop_pct) == (0.0, 100.0, 100.0)


def test_a_drop_within_octaves_is_subtracted():
    answers = iter([{-1: 60.0, -2: 80.0}, {-1: 50.0, -2: 70.0}, {-1: 62.0, -2: 82.0}, {-1: 40.0, -2: 60.0}])
    octaves = torch.tensor([-1, -1, -2, -2])
    weights = {"layer1": torch.rand(4, 2, 3)}
    found = swap_depth_weights(weights, octaves, {-1: 70.0, -2: 90.0}, lambda given: next(answers), 2)
    assert found.within == {-1: 61.0, -2: 81.0}
    assert found.within_drop_pct == pytest.approx(9.0)
    assert found.across_drop_pct == pytest.approx(25.0)
    assert found.drop_pct == pytest.approx(16.0)
