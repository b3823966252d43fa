"""Calibration against values worked out by hand."""

import numpy as np
import pytest

from sdabench.scoring.calibration import calibrate


def test_expected_calibration_error_is_the_gap_weighted_by_images():
    found = calibrate(np.array([0.9, 0.9, 0.7, 0.7, 0.7, 0.7]), np.array([1, 1, 1, 0, 0, 0], bool))
    # Gaps: 0.1 for two images, |0.25 - 0.7| = 0.45 for four.
    assert found.expected_error == pytest.approx((2 * 0.1 + 4 * 0.45) / 6)
    assert found.images.sum() == 6
    assert found.images[13] == 2  # from 13/15 to 14/15
    assert found.accuracy[10] == 0.25  # from 10/15 to 11/15
    assert np.isnan(found.accuracy[0])


def test_calibrated_predictions_have_no_error():
    right = np.arange(1000) % 4 != 0
    assert calibrate(np.full(1000, 0.75), right).expected_error == pytest.approx(0)


def test_zero_one_and_edges_belong_to_the_bin_below():
    found = calibrate(np.array([0.0, 0.5, 1.0]), np.array([False, True, True]), bins=2)
    assert list(found.images) == [2, 1]
    assert list(found.confidence) == [0.25, 1.0]


def test_no_predictions_have_no_calibration_error():
    assert np.isnan(calibrate(np.zeros(0), np.zeros(0, bool)).expected_error)
