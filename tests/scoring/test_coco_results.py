"""Invalid results are refused with the entry, the value and the next step."""

import copy
import json
import sys

import pytest

from sdabench.data.annotations import read_annotations
from sdabench.errors import DataError, UsageError
from sdabench.scoring.coco import evaluate, read_results, score
from tests.helpers.coco_cases import EACH_EVALUATOR, SIZE, make_annotation, make_detection, polygon


@pytest.mark.parametrize(
    ("result", "iou_type", "message"),
    [
        (make_detection(0.9, image_id=139), "bbox", "result 2: image_id 139 is not in"),
        (
            make_detection(0.9, category_id=1),
            "bbox",
            r"result 2: category_id 1 is not one of the 2 ids in .*instances_val2017.json \(3 to 8\); name the",
        ),
        (
            make_detection(0.9),
            "segm",
            "result 2 has no segmentation, like 1 of 2 results; use --iou-type bbox",
        ),
        (
            {"image_id": 1, "category_id": 3, "score": 0.5, "segmentation": [polygon(0, 0, 9, 9)]},
            "bbox",
            "result 2 has no bbox, like 1 of 2 results; use --iou-type segm",
        ),
        (
            make_detection(0.9, segmentation={"size": [SIZE, SIZE + 1], "counts": "0"}),
            "segm",
            "result 2 has a mask that is neither polygons nor an RLE of 200 x 200 pixels",
        ),
        (
            make_detection(0.9, segmentation={"size": [SIZE, SIZE], "counts": [3, 4]}),
            "segm",
            "result 2 has a mask that is neither polygons nor an RLE of 200 x 200 pixels",
        ),
        (
            make_detection(0.9, segmentation={"size": [SIZE, SIZE], "counts": "0ooo0"}),
            "segm",
            "result 2 has a mask that is neither polygons nor an RLE of 200 x 200 pixels",
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
    with pytest.raises(DataError, match="annotation 1 has no mask, so masks cannot be scored"):
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
    ],
)
def test_invalid_entry_is_named_in_the_error(tmp_path, entry, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([ENTRY, ENTRY | entry]))
    with pytest.raises(DataError) as caught:
        read_results(path)
    assert str(caught.value).startswith(f"{path}, {message}")
    assert "\n" not in str(caught.value)


INVALID_MASKS = [
    [1, 2, 3, 4, 5, 6],
    [[1, 2, 3, 4]],
    {"size": [9, 9]},
    {"size": [9, 9], "counts": 3},
    {"size": [9, 9], "counts": [81.5]},
    3,
]


@pytest.mark.parametrize("mask", INVALID_MASKS)
def test_invalid_masks_are_refused_where_masks_are_scored(write, tmp_path, mask):
    results = read(tmp_path / "results.json", make_detection(0.9, segmentation=mask))
    assert score(write(make_annotation()), results, "bbox").metrics["ap_pct"] == pytest.approx(100)
    with pytest.raises(DataError, match="result 1 has "):
        score(write(make_annotation()), results, "segm")


@pytest.mark.parametrize("mask", [{"size": [SIZE, SIZE], "counts": [SIZE * SIZE]}, [[0, 0, 0, 0, 0, 0]]])
def test_empty_masks_of_all_results_are_placeholders(write, tmp_path, mask):
    empty = make_detection(0.9, segmentation=mask)
    right = make_detection(0.8, segmentation=[polygon(0, 0, 100, 100)])
    annotations, path = write(make_annotation()), tmp_path / "results.json"
    evaluate(annotations, [empty, right], "segm").check_has_pixels(path)
    evaluate(annotations, [empty], "bbox").check_has_pixels(path)
    with pytest.raises(DataError, match="results.json: the masks of all 1 results are empty"):
        evaluate(annotations, [empty], "segm").check_has_pixels(path)


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


def read(path, *entries):
    path.write_text(json.dumps(entries))
    return read_results(path)


MASK = {"segmentation": [polygon(0, 0, 9, 9)]}
MASKED = {"segmentation": [polygon(0, 0, 100, 100)]}


@pytest.mark.parametrize(
    "placeholder",
    [None, [], [[]], {}, "", {"size": [9, 9], "counts": ""}, {"size": [9, 9], "counts": []}],
)
def test_placeholders_are_no_masks(write, tmp_path, placeholder):
    results = read(tmp_path / "results.json", *[make_detection(0.9, segmentation=placeholder)] * 2)
    assert results == [make_detection(0.9)] * 2
    with pytest.raises(DataError, match=r"results.json, result 1 has no segmentation; use --iou-type bbox"):
        evaluate(write(make_annotation()), results, "segm", results_file=tmp_path / "results.json")
    some = read(
        tmp_path / "results.json", make_detection(0.9, **MASK), make_detection(0.9, segmentation=placeholder)
    )
    assert score(write(make_annotation()), some, "bbox").metrics["ap_pct"] == pytest.approx(100)
    with pytest.raises(DataError, match=r"result 2 has no segmentation, like 1 of 2 results"):
        score(write(make_annotation()), some, "segm")


@pytest.mark.parametrize("placeholder", [None, [], [0, 0, 0, 0], [0.0, 0.0, 0.0, 0.0]])
def test_placeholders_are_no_boxes(write, tmp_path, placeholder):
    results = read(tmp_path / "results.json", *[make_detection(0.9) | MASK | {"bbox": placeholder}] * 2)
    with pytest.raises(DataError, match="result 1 has no bbox; use --iou-type segm"):
        score(write(make_annotation()), results, "bbox")
    score(write(make_annotation()), results, "segm")


def test_results_of_empty_boxes_only_are_refused(tmp_path):
    with pytest.raises(DataError, match="entry 1: neither bbox nor segmentation"):
        read(tmp_path / "results.json", *[make_detection(0.9, box=(0, 0, 0, 0))] * 2)


def test_a_degenerate_box_among_others_is_kept(tmp_path):
    entries = [make_detection(0.9) | MASK, make_detection(0.9, box=(0, 0, 0, 0)) | MASK]
    assert read(tmp_path / "results.json", *entries) == entries


def test_negative_sizes_and_far_polygons_are_refused(write, tmp_path):
    with pytest.raises(DataError, match="entry 2: bbox has a negative width or height"):
        read(tmp_path / "results.json", make_detection(0.9), make_detection(0.9, box=(90, 9, -40, 9)))
    far = make_detection(0.9, segmentation=[[0, 0, 1e9, 0, 9, 9]])
    with pytest.raises(
        DataError, match=r"result 1 has a polygon with coordinate 1e\+09, far outside its 200"
    ):
        score(write(make_annotation()), [far], "segm")


def test_integral_floats_are_integers(tmp_path):
    entry = make_detection(0.9) | {"segmentation": {"size": [9.0, 9.0], "counts": "T2"}}
    [loose] = read(tmp_path / "results.json", entry | {"image_id": 1.0, "category_id": 3.0})
    assert loose == entry
    assert [type(loose[name]) for name in ("image_id", "category_id")] == [int, int]
    assert [type(side) for side in loose["segmentation"]["size"]] == [int, int]


@pytest.mark.parametrize(
    ("ids", "cause"),
    [
        ([0, 1], "seem to have indices from 0 instead of ids"),
        ([1, 2, 3], "seem to have indices from 1 instead of ids"),
        ([4, 9], "seem shifted by one, so subtract 1 from each"),
        ([3, 50], "name the annotations of the dataset that the results are for"),
    ],
)
def test_likely_cause_of_other_category_ids_is_named(write, ids, cause):
    annotations = read_annotations(write(make_annotation()))
    annotations.categories.append({"id": 20, "name": "bird"})
    with pytest.raises(DataError, match=cause):
        score(annotations, [make_detection(0.9, category_id=number) for number in ids], "bbox")


@pytest.mark.parametrize("evaluator", EACH_EVALUATOR)
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_ids_of_any_size_are_scored_by_all_evaluators(write, evaluator, iou_type):
    annotations = read_annotations(write(make_annotation(), make_annotation(image_id=2, category_id=8)))
    results = [make_detection(0.9, **MASKED), make_detection(0.8, image_id=2, category_id=8, **MASKED)]
    expected = evaluate(annotations, results, iou_type, evaluator=evaluator)
    large = copy.deepcopy(annotations)
    for number, one in enumerate(large.annotations):
        one |= {
            "id": 2**63 + number,
            "image_id": one["image_id"] + 2**80,
            "category_id": 2**63 + one["category_id"],
        }
    for image in large.images:
        image["id"] += 2**80
    for category in large.categories:
        category["id"] += 2**63
    found = [
        one | {"image_id": one["image_id"] + 2**80, "category_id": one["category_id"] + 2**63}
        for one in results
    ]
    evaluation = evaluate(large, found, iou_type, evaluator=evaluator)
    assert evaluation.score().metrics == expected.score().metrics
    assert evaluation.score().metrics["ap_pct"] == pytest.approx(100)
    assert [one.category_id for one in evaluation.score().classes] == [2**63 + 3, 2**63 + 8]
    assert evaluation.matches().found(evaluation.image_ids) == {2**80 + 1: {2**63}, 2**80 + 2: {2**63 + 1}}


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
