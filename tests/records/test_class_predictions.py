"""Stored predictions round-trip, and errors name the invalid line."""

import gzip

import numpy as np
import pytest

from sdabench.errors import DataError, UsageError
from sdabench.records.class_predictions import ClassPredictions

PREDICTIONS = ClassPredictions(
    paths=["n1/a, b.JPEG", "n1/\udcff\n.JPEG", "n2/c.JPEG"],
    labels=np.array([0, 0, 7]),
    label_probability=np.array([0.5, 1e-7, 1.0], dtype=np.float32),
    top5=np.array([[0, 1, 2, 3, 4], [1, 0, -1, -1, -1], [5, 1, 2, 3, 4]]),
    top1_probability=np.array([0.5, 0.75, np.nan], dtype=np.float32),
    margin=np.array([0.25, 0.5, np.nan], dtype=np.float32),
)
EARLIER = "path,label,label_probability,top1,top2,top3,top4,top5"
HEADER = f"{EARLIER},top1_probability,margin"


@pytest.fixture
def path(tmp_path):
    PREDICTIONS.write(tmp_path / "p.csv.gz")
    return tmp_path / "p.csv.gz"


def test_predictions_round_trip_with_any_paths(path):
    predictions = ClassPredictions.read(path)
    assert predictions.paths == PREDICTIONS.paths
    for name in ("labels", "label_probability", "top5", "top1_probability", "margin"):
        np.testing.assert_array_equal(getattr(predictions, name), getattr(PREDICTIONS, name))
    assert predictions.metrics() == {"top1_pct": 100 / 3, "top5_pct": 200 / 3}


def test_equal_predictions_give_equal_bytes_and_plain_csv_is_read(path, tmp_path):
    PREDICTIONS.write(tmp_path / "q.csv.gz")
    assert (tmp_path / "q.csv.gz").read_bytes() == path.read_bytes()
    (tmp_path / "plain.csv").write_bytes(gzip.decompress(path.read_bytes()))
    assert ClassPredictions.read(tmp_path / "plain.csv").paths == PREDICTIONS.paths


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,0,0.5,0,1,2,3", "line 2"),
        ("a,0,0.5,0,1,2,3,4,5", "line 2"),
        ("a,0,1.5,0,1,2,3,4", "line 2"),
        ("a,0,nan,0,1,2,3,4", "line 2"),
        ("a,x,0.5,0,1,2,3,4", "line 2"),
        ("a,0,0.5,0,1,2,3,-2", "line 2"),
        ("a,-1,0.5,0,1,-1,-1,-1", "line 2"),  # -1 is not a valid label
        (f"a,0,0.5,0,1,2,3,{10**25}", "line 2"),
        ("a" * 140_000 + ",0,0.5,0,1,2,3,4", "is not a predictions file of a classifier"),
    ],
)
def test_invalid_line_is_named_in_the_error(tmp_path, line, message):
    (tmp_path / "p.csv").write_text(f"{EARLIER}\n{line}\n")
    with pytest.raises(DataError, match=message):
        ClassPredictions.read(tmp_path / "p.csv")


@pytest.mark.parametrize("more", ["", ",0.5", ",1.5,0.2", ",0.5,-0.1", ",0.5,0.2,0", ",0.5,x"])
def test_invalid_confidence_is_named_in_the_error(tmp_path, more):
    (tmp_path / "p.csv").write_text(f"{HEADER}\na,0,0.5,0,1,2,3,4{more}\n")
    with pytest.raises(DataError, match=r"line 2: .* margin"):
        ClassPredictions.read(tmp_path / "p.csv")


def test_files_of_earlier_versions_lack_the_probability_of_the_first_class(tmp_path):
    (tmp_path / "p.csv").write_text(f"{EARLIER}\na,0,0.5,0,1,2,3,4\n")
    predictions = ClassPredictions.read(tmp_path / "p.csv")
    assert predictions.metrics() == {"top1_pct": 100.0, "top5_pct": 100.0}
    assert np.isnan([*predictions.top1_probability, *predictions.margin]).tolist() == [True, True]


def test_other_damaged_and_missing_files_are_errors(path, tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="is not a predictions file of a classifier"):
        ClassPredictions.read(tmp_path / "other.csv")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot read"):
        ClassPredictions.read(path)
    with pytest.raises(UsageError, match="no predictions file at"):
        ClassPredictions.read(tmp_path / "none.csv")
