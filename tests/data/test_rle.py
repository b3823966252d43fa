"""COCO run-length encoding, compared with pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sdabench.data.rle import are_rle, is_rle


@pytest.mark.parametrize("seed", range(20))
def test_pycocotools_rle_is_valid_only_for_its_size(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 700, 2))
    smooth = rng.random((height, width)) < rng.choice([0.001, 0.1, 0.5, 0.999])
    rle = coco_mask.encode(np.asfortranarray(smooth, dtype=np.uint8))
    for counts in (rle["counts"], rle["counts"].decode()):
        assert is_rle({"size": [height, width], "counts": counts}, height, width)
        assert not is_rle({"size": [height, width], "counts": counts}, height, width + 1)
        assert not is_rle({"size": [height, width + 1], "counts": counts}, height, width + 1)
        assert not is_rle({"size": [height, width], "counts": counts[:-1]}, height, width)
        assert not is_rle({"size": [height, width], "counts": counts + counts[:1]}, height, width)


@pytest.mark.parametrize("fill", [0, 1])
def test_constant_masks_are_valid(fill):
    rle = coco_mask.encode(np.full((30, 20), fill, dtype=np.uint8, order="F"))
    assert is_rle(rle, 30, 20)


@pytest.mark.parametrize(
    ("counts", "valid"),
    [
        ([20], True),
        ([0, 20], True),
        ([3, 4, 13], True),
        ([19], False),
        ([30, -10], False),
        ([20.0], False),
        (["20"], False),
        ([], False),
        (None, False),
        ("", False),
        ("~", False),
        ("é", False),
        ("o", False),
        ("oooooooo0", False),
    ],
)
def test_run_lengths_by_hand(counts, valid):
    assert is_rle({"size": [4, 5], "counts": counts}, 4, 5) is valid


@pytest.mark.parametrize("value", [None, [], {}, {"size": 3, "counts": [20]}, {"counts": [20]}])
def test_other_values_are_not_rle(value):
    assert not is_rle(value, 4, 5)


def test_many_values_are_checked_independently(monkeypatch):
    rng = np.random.default_rng(0)
    values, sizes, expected = [], [], []
    for number in range(300):
        height, width = (int(side) for side in rng.integers(1, 90, 2))
        rle = coco_mask.encode(np.asfortranarray(rng.random((height, width)) < rng.random(), dtype=np.uint8))
        counts = rle["counts"] if number % 2 else rle["counts"].decode()
        runs = [height * width] if number % 3 else [height * width, -1]
        empty = b"" if number % 2 else ""
        cases = (
            counts,
            counts[:-1],
            counts + counts[:1],
            counts * 2,
            empty,
            runs,
            None,
            "é",
            "oooooooooo0",
        )
        kind = int(rng.integers(len(cases) + 1))
        values.append([1] if kind == len(cases) else {"size": [height, width], "counts": cases[kind]})
        sizes.append((height, width))
        expected.append(kind == 0 or (kind == 5 and number % 3 > 0))
    for block_size in (10**9, 200):
        monkeypatch.setattr("sdabench.data.rle.BLOCK_CHARACTERS", block_size)
        assert are_rle(values, sizes) == expected
    assert are_rle([], []) == []
