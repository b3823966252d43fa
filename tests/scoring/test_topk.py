import math

import numpy as np

from sdabench.scoring.topk import TopK

PREDICTIONS = np.array([[3, 1, 2, 4, 5], [0, 1, 2, 3, 4], [9, 8, 7, 6, 5], [5, 4, 3, 2, 1]])
LABELS = np.array([3, 4, 0, 4])  # first: top-1; second and fourth: top-5; third: a miss


def test_percentages_by_hand():
    assert TopK().update(PREDICTIONS, LABELS).compute() == {"top1_pct": 25.0, "top5_pct": 75.0}


def test_merged_parts_equal_one_update():
    parts = TopK().update(PREDICTIONS[:1], LABELS[:1]).merge(TopK().update(PREDICTIONS[1:], LABELS[1:]))
    assert parts == TopK().update(PREDICTIONS, LABELS)


def test_no_samples_give_nan():
    assert all(math.isnan(value) for value in TopK().compute().values())
