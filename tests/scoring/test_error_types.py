"""TIDE's error types against cases worked out by hand."""

import json

import pytest

from sdabench.data.annotations import read_annotations
from sdabench.errors import NothingMeasuredError
from sdabench.scoring.coco import evaluate
from sdabench.scoring.error_types import TYPES, error_types

BOX, FAR, ELSEWHERE = [0, 0, 10, 10], [50, 50, 10, 10], [80, 80, 10, 10]
LOOSE = [0, 0, 8, 5]  # IoU 0.4 with BOX
HALF = 100 * 51 / 101  # AP50 of one found object of two, at 101 recall points


def types_of(tmp_path, objects, detections):
    """Match (category, box) with (category, box, score) in one image; a third value 1 makes a crowd."""
    file = tmp_path / "instances.json"
    annotations = [
        {"id": n, "image_id": 1, "category_id": c, "bbox": box, "area": 100, "iscrowd": sum(crowd)}
        for n, (c, box, *crowd) in enumerate(objects, 1)
    ]
    file.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "width": 100, "height": 100, "file_name": "1.jpg"}],
                "annotations": annotations,
                "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
            }
        )
    )
    found = [{"image_id": 1, "category_id": c, "bbox": b, "score": s} for c, b, s in detections]
    evaluation = evaluate(read_annotations(file), found, "bbox")
    result = error_types(evaluation.matches())
    assert result.ap50_pct == pytest.approx(evaluation.score().metrics["ap50_pct"])
    return result


@pytest.mark.parametrize(
    ("objects", "detections", "ap50", "kind", "gain"),
    [
        ([(1, BOX)], [(1, LOOSE, 0.9)], 0, "localization", 100),
        ([(1, BOX)], [(2, BOX, 0.9)], 0, "classification", 100),
        ([(1, BOX), (1, FAR)], [(1, BOX, 0.9)], HALF, "missed", 100 - HALF),
        # Precision is 2/3 at the 50 recall points above 0.5.
        (
            [(1, BOX), (1, FAR)],
            [(1, BOX, 0.9), (1, BOX, 0.8), (1, FAR, 0.7)],
            HALF + 50 / 101 * 200 / 3, "duplicate", 50 / 101 * 100 / 3,
        ),
        (
            [(1, BOX), (1, FAR)],
            [(1, BOX, 0.9), (1, ELSEWHERE, 0.8), (1, FAR, 0.7)],
            HALF + 50 / 101 * 200 / 3, "background", 50 / 101 * 100 / 3,
        ),
        # The detection of category 2 delays the object of category 2, whose precision is 1/2.
        ([(1, BOX), (2, FAR)], [(1, BOX, 0.9), (2, LOOSE, 0.8), (2, FAR, 0.7)], 75, "both", 25),
    ],
)  # fmt: skip
def test_one_error_of_each_type(tmp_path, objects, detections, ap50, kind, gain):
    found = types_of(tmp_path, objects, detections)
    assert found.ap50_pct == pytest.approx(ap50)
    assert found.counts == dict.fromkeys(TYPES, 0) | {kind: 1}
    assert found.gains == pytest.approx(dict.fromkeys(TYPES, 0) | {kind: gain})


def test_of_two_errors_of_one_object_only_that_of_higher_score_is_fixed(tmp_path):
    found = types_of(tmp_path, [(1, BOX)], [(1, LOOSE, 0.9), (2, BOX, 0.8)])
    assert found.counts == dict.fromkeys(TYPES, 0) | {"localization": 1, "classification": 1}
    assert found.gains["localization"] == pytest.approx(100)
    assert found.gains["classification"] == 0


def test_a_wrong_class_on_an_object_that_is_found_is_deleted(tmp_path):
    found = types_of(tmp_path, [(1, BOX), (2, FAR)], [(1, BOX, 0.9), (2, BOX, 0.8), (2, FAR, 0.7)])
    assert found.counts["classification"] == 1
    assert found.gains["classification"] == pytest.approx(25)  # category 2: precision 1/2 becomes 1


def test_false_positives_and_negatives(tmp_path):
    found = types_of(tmp_path, [(1, BOX), (1, FAR)], [(1, ELSEWHERE, 0.9), (1, BOX, 0.8)])
    assert found.ap50_pct == pytest.approx(HALF / 2)
    assert found.false_positives == pytest.approx(HALF / 2)
    assert found.false_negatives == pytest.approx(50 - HALF / 2)  # one object, at precision 1/2


def test_detections_of_a_crowd_are_no_errors(tmp_path):
    found = types_of(tmp_path, [(1, BOX), (1, FAR, 1)], [(1, FAR, 0.9), (1, FAR, 0.8), (1, BOX, 0.7)])
    assert found.ap50_pct == pytest.approx(100)
    assert not any(found.counts.values())


def test_without_objects_nothing_is_measured(tmp_path):
    with pytest.raises(NothingMeasuredError):
        types_of(tmp_path, [(1, BOX, 1)], [(1, FAR, 0.9)])


def test_no_detection_misses_all_objects(tmp_path):
    found = types_of(tmp_path, [(1, BOX), (2, FAR)], [])
    assert found.counts == dict.fromkeys(TYPES, 0) | {"missed": 2}
    assert set(found.gains.values()) == {0}
