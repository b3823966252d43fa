"""Invalid results are refused with the entry, the value and the next step."""

import json
import sys

import pytest

from sdabench.errors import DataError, UsageError
from sdabench.scoring.coco import read_results, score
from tests.helpers.coco_cases import SIZE, make_annotation, make_detection, polygon


@pytest.mark.parametrize(
    ("result", "iou_type", "message"),
    [
        (make_detection(0.9, image_id=139), "bbox", "result 2: image_id 139 is not in"),
        (
            make_detection(0.9, category_id=1),
            "bbox",
            r"result 2: category_id 1 .* original ones \(3 to 8\), not 1 to 2",
        ),
        (make_detection(0.9), "segm", "result 2 has no segmentation; use --iou-type bbox"),
        (
            {"image_id": 1, "category_id": 3, "score": 0.5, "segmentation": []},
            "bbox",
            "result 2 has no bbox; use --iou-type segm",
        ),
        (
            make_detection(0.9, segmentation={"size": [SIZE, SIZE + 1], "counts": "0"}),
            "segm",
            "result 2: its mask is not an RLE of 200 x 200 pixels",
        ),
        (
            make_detection(0.9, segmentation={"size": [SIZE, SIZE], "counts": [3, 4]}),
            "segm",
            "result 2: its mask is not an RLE of 200 x 200 pixels",
        ),
        (
            make_detection(0.9, segmentation={"size": [SIZE, SIZE], "counts": "0ooo0"}),
            "segm",
            "result 2: its mask is not an RLE of 200 x 200 pixels",
        ),
    ],
)
def test_results_of_another_dataset_or_kind_are_refused(write, result, iou_type, message):
    good = make_detection(0.9, segmentation=[polygon(0, 0, 9, 9)])
    with pytest.raises(DataError, match=message) as caught:
        score(write(make_annotation()), [good, result], iou_type)
    assert "\n" not in str(caught.value)


def test_mask_scoring_needs_annotated_masks(write):
    annotation = make_annotation() | {"segmentation": []}
    result = make_detection(0.9, segmentation=[polygon(0, 0, 100, 100)])
    assert score(write(annotation), [result], "bbox").metrics["ap_pct"] == pytest.approx(100)
    with pytest.raises(
        DataError, match="annotation 1 has neither an RLE nor polygons .* masks cannot be scored"
    ):
        score(write(annotation), [result], "segm")


ENTRY = {"image_id": 1, "category_id": 3, "score": 0.5, "bbox": [1, 2, 3.5, 4]}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"score": "0.5"}, "entry 2: score: Input should be a valid number"),
        ({"score": float("nan")}, "entry 2: score: Input should be a finite number"),
        ({"score": None}, "entry 2: score: "),
        ({"image_id": "1"}, "entry 2: image_id: Input should be a valid integer"),
        ({"category_id": 1.5}, "entry 2: category_id: Input should be a valid integer"),
        ({"bbox": [1, 2, 3]}, "entry 2: bbox: List should have at least 4 items"),
        ({"bbox": None}, "entry 2: neither bbox nor segmentation"),
        ({"segmentation": [[1, 2, 3, 4]]}, "entry 2: segmentation.polygons.0: List should have at least 6"),
        ({"segmentation": {"size": [9, 9]}}, "entry 2: segmentation.RLE.counts: Field required"),
        ({"segmentation": {"size": [9, 9], "counts": 3}}, "entry 2: segmentation.RLE.counts.compressed: "),
        ({"segmentation": {"size": [9, 9], "counts": [81.5]}}, "entry 2: segmentation.RLE.counts.list.0: "),
        ({"segmentation": 3}, "entry 2: segmentation.RLE: "),
    ],
)
def test_invalid_entry_is_named_in_the_error(tmp_path, entry, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([ENTRY, ENTRY | entry]))
    with pytest.raises(DataError) as caught:
        read_results(path)
    assert str(caught.value).startswith(f"{path}, {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is not JSON"),
        ("", "is not JSON"),
        ('{"a": 1}', "must be a JSON list of detections"),
        ("[3]", "entry 1: "),
    ],
)
def test_invalid_or_missing_results_file_is_refused(tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_results(path)
    with pytest.raises(UsageError, match="no results file at .*nowhere.json"):
        read_results(tmp_path / "nowhere.json")


def test_results_are_read_unchanged(tmp_path):
    path = tmp_path / "results.json"
    entries = [ENTRY, ENTRY | {"segmentation": {"size": [9, 9], "counts": "T2"}, "name": "x"}]
    path.write_text(json.dumps(entries))
    assert read_results(path) == entries
    path.write_text("[]")
    assert read_results(path) == []


def test_missing_faster_coco_eval_error_names_the_extra(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UsageError, match=r"pip install 'sdabench\[fast\]'"):
        score(write(make_annotation()), [], "bbox", evaluator="faster-coco-eval")
