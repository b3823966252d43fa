"""COCO's AP: derived by hand, and held against direct calls of the evaluators."""

import contextlib
import copy
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sdabench.errors import DataError, NothingMeasuredError, UsageError
from sdabench.scoring.coco import METRICS, ClassScore, read_results, score
from tests.helpers.coco_cases import (
    CASES,
    EACH_EVALUATOR,
    HALF,
    SIZE,
    an_object,
    annotations_of,
    detections,
    direct,
    found,
    needs_faster,
    polygon,
)


def thin_l(x, y):
    """Return the outline of an L of 100 x 100 pixels, 5 wide: 975 pixels in a box of 10,000."""
    return [x, y, x + 5, y, x + 5, y + 95, x + 100, y + 95, x + 100, y + 100, x, y + 100]


def rle(result):
    return coco_mask.merge(coco_mask.frPyObjects(result["segmentation"], SIZE, SIZE))


def test_one_object_of_two_is_51_of_101_points(write):
    path = write(an_object(1), an_object(2))
    result = score(path, [found(0.9)], "bbox")
    assert result.metrics == pytest.approx(
        {"ap_pct": HALF, "ap50_pct": HALF, "ap75_pct": HALF, "ap_l_pct": HALF}
    )
    assert result.images == 2
    assert result.classes == [
        ClassScore(3, "cat", pytest.approx(HALF), pytest.approx(HALF), ground_truth=2, detections=1),
        ClassScore(8, "dog", None, None, ground_truth=0, detections=0),
    ]


def test_an_object_whose_id_is_0_is_found_like_any_other(write):
    """To pycocotools a detection matched with id 0 is matched with nothing."""
    assert score(write(an_object() | {"id": 0}), [found(0.9)], "bbox").metrics["ap_pct"] == pytest.approx(100)


def test_a_mistake_of_more_confidence_halves_the_precision(write):
    path = write(an_object(1), an_object(2))
    wrong = found(0.95, box=(150, 150, 20, 20))
    assert score(path, [found(0.9), wrong], "bbox").metrics["ap_pct"] == pytest.approx(HALF / 2)
    later = wrong | {"score": 0.5}
    assert score(path, [found(0.9), later], "bbox").metrics["ap_pct"] == pytest.approx(HALF)


def test_an_iou_of_82_percent_passes_seven_thresholds_of_ten(write):
    metrics = score(write(an_object()), [found(0.9, box=(0, 0, 100, 82))], "bbox").metrics
    assert metrics["ap_pct"] == pytest.approx(70)
    assert metrics["ap50_pct"] == metrics["ap75_pct"] == pytest.approx(100)


def test_ap_is_the_mean_over_the_categories_that_have_objects(write):
    path = write(an_object(category_id=3), an_object(category_id=8))
    result = score(path, [found(0.9, category_id=8)], "bbox")
    assert [one.ap_pct for one in result.classes] == pytest.approx([0, 100])
    assert result.metrics["ap_pct"] == pytest.approx(50)


def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong(write):
    crowd = an_object(2, box=(0, 0, 150, 150), iscrowd=1)
    results = [found(0.9), *(found(0.95, 2, box=(10 * n, 0, 40, 40)) for n in range(5))]
    for iou_type in ("bbox", "segm"):
        masked = [one | {"segmentation": [polygon(*one["bbox"])]} for one in results]
        result = score(write(an_object(1), crowd), masked, iou_type)
        assert result.metrics["ap_pct"] == pytest.approx(100)
        assert (result.classes[0].ground_truth, result.classes[0].detections) == (1, 6)


def test_what_is_found_in_an_image_without_objects_is_wrong(write):
    results = [found(0.9), found(0.95, image_id=2)]
    assert score(write(an_object()), results, "bbox").metrics["ap_pct"] == pytest.approx(50)


def test_a_box_of_no_area_is_an_object_that_nothing_finds(write):
    flat = an_object(2, box=(5, 5, 40, 0), area=0.0)
    result = score(write(an_object(), flat), [found(0.9), found(0.8, 2, box=(5, 5, 40, 0))], "bbox")
    assert result.metrics["ap_pct"] == pytest.approx(HALF)
    assert result.metrics["ap_s_pct"] == 0


def test_masks_go_by_their_own_area_also_where_a_box_stands_beside(write):
    """A thin L is small, and its box large: a second L, which is wrong, counts among the small ones."""
    path = write(an_object(1, outline=thin_l(0, 0)))
    results = [
        found(0.9, segmentation=[thin_l(0, 0)]),
        found(0.95, 2, segmentation=[thin_l(50, 50)], box=(50, 50, 100, 100)),
    ]
    metrics = score(path, results, "segm").metrics
    assert metrics == pytest.approx(dict.fromkeys(("ap_pct", "ap50_pct", "ap75_pct", "ap_s_pct"), 50))
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = direct(COCO, COCOeval, path, [one | {"segmentation": rle(one)} for one in results], "segm")
    assert theirs[3] == pytest.approx(1.0)  # by the box's area that L is large, and not counted
    boxless = [{key: one[key] for key in one if key != "bbox"} for one in results]
    assert score(path, boxless, "segm").metrics == metrics


def test_masks_are_polygons_or_lengths_of_runs_or_compressed_ones(write):
    path = write(an_object())
    compressed = rle({"segmentation": [polygon(0, 0, 100, 100)]})
    runs = {"size": [SIZE, SIZE], "counts": [0, *[100, 100] * 99, 100, 100 + SIZE * 100]}
    text = {"size": [SIZE, SIZE], "counts": compressed["counts"].decode()}
    for mask in ([polygon(0, 0, 100, 100)], runs, text, compressed):
        result = {"image_id": 1, "category_id": 3, "score": 0.5, "segmentation": mask}
        assert score(path, [result], "segm").metrics["ap_pct"] == pytest.approx(100)
    nothing = {"image_id": 1, "category_id": 3, "score": 0.5, "segmentation": []}
    assert score(path, [nothing], "segm").metrics["ap_pct"] == 0


@pytest.mark.parametrize("evaluator", EACH_EVALUATOR)
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_no_results_are_an_ap_of_zero(write, evaluator, iou_type, capfd):
    result = score(write(an_object()), [], iou_type, evaluator=evaluator)
    assert result.metrics == {"ap_pct": 0, "ap50_pct": 0, "ap75_pct": 0, "ap_l_pct": 0}
    assert result.classes[0] == ClassScore(3, "cat", 0, 0, 1, 0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("evaluator", EACH_EVALUATOR)
def test_without_any_object_nothing_is_measured(write, evaluator):
    for objects in ([], [an_object(iscrowd=1)]):
        with pytest.raises(NothingMeasuredError, match="no object of 2 images in .*instances_val2017.json"):
            score(write(*objects), [found(0.9)], "bbox", evaluator=evaluator)
    with pytest.raises(NothingMeasuredError, match="no object of 1 images"):
        score(write(an_object(1)), [found(0.9)], "bbox", image_ids=[2], evaluator=evaluator)


def test_only_chosen_images_count(write):
    path = write(an_object(1), an_object(2))
    results = [found(0.9), found(0.95, image_id=2, box=(150, 150, 20, 20))]
    result = score(path, results, "bbox", image_ids=[1])
    assert result.metrics["ap_pct"] == pytest.approx(100)
    assert (result.images, result.classes[0].ground_truth, result.classes[0].detections) == (1, 1, 1)
    with pytest.raises(DataError, match="image_id 5 is not in .*instances_val2017.json"):
        score(path, results, "bbox", image_ids=[1, 5])


@pytest.mark.parametrize(
    ("result", "iou_type", "words"),
    [
        (found(0.9, image_id=139), "bbox", "result 2: image_id 139 is not in"),
        (
            found(0.9, category_id=1),
            "bbox",
            r"result 2: category_id 1 .* original ones \(3 to 8\), not 1 to 2",
        ),
        (found(0.9), "segm", "result 2 has no segmentation; score by --iou-type bbox"),
        (
            {"image_id": 1, "category_id": 3, "score": 0.5, "segmentation": []},
            "bbox",
            "result 2 has no bbox; score by --iou-type segm",
        ),
        (
            found(0.9, segmentation={"size": [SIZE, SIZE + 1], "counts": "0"}),
            "segm",
            "result 2: its mask is no RLE of its image's 200 x 200 pixels",
        ),
        (
            found(0.9, segmentation={"size": [SIZE, SIZE], "counts": [3, 4]}),
            "segm",
            "result 2: its mask is no RLE of its image's 200 x 200 pixels",
        ),
        (
            found(0.9, segmentation={"size": [SIZE, SIZE], "counts": "0ooo0"}),
            "segm",
            "result 2: its mask is no RLE of its image's 200 x 200 pixels",
        ),
    ],
)
def test_results_of_another_dataset_or_kind_are_refused(write, result, iou_type, words):
    good = found(0.9, segmentation=[polygon(0, 0, 9, 9)])
    with pytest.raises(DataError, match=words) as caught:
        score(write(an_object()), [good, result], iou_type)
    assert "\n" not in str(caught.value)


def test_masks_need_annotated_masks(write):
    annotation = an_object() | {"segmentation": []}
    result = found(0.9, segmentation=[polygon(0, 0, 100, 100)])
    assert score(write(annotation), [result], "bbox").metrics["ap_pct"] == pytest.approx(100)
    with pytest.raises(DataError, match="annotation 1 has no polygons .* masks cannot be scored by it"):
        score(write(annotation), [result], "segm")


ENTRY = {"image_id": 1, "category_id": 3, "score": 0.5, "bbox": [1, 2, 3.5, 4]}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"score": "0.5"}, "entry 2: score: Input should be a valid number"),
        ({"score": float("nan")}, "entry 2: score: Input should be a finite number"),
        ({"score": None}, "entry 2: score: "),
        ({"image_id": "1"}, "entry 2: image_id: Input should be a valid integer"),
        ({"category_id": 1.5}, "entry 2: category_id: Input should be a valid integer"),
        ({"bbox": [1, 2, 3]}, "entry 2: bbox: List should have at least 4 items"),
        ({"bbox": None}, "entry 2: it has neither bbox nor segmentation"),
        ({"segmentation": [[1, 2, 3, 4]]}, "entry 2: segmentation.polygons.0: List should have at least 6"),
        ({"segmentation": {"size": [9, 9]}}, "entry 2: segmentation.RLE.counts: Field required"),
        ({"segmentation": {"size": [9, 9], "counts": 3}}, "entry 2: segmentation.RLE.counts.compressed: "),
        ({"segmentation": {"size": [9, 9], "counts": [81.5]}}, "entry 2: segmentation.RLE.counts.list.0: "),
        ({"segmentation": 3}, "entry 2: segmentation.RLE: "),
    ],
)
def test_an_entry_that_is_no_detection_is_named(tmp_path, entry, words):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([ENTRY, ENTRY | entry]))
    with pytest.raises(DataError) as caught:
        read_results(path)
    assert str(caught.value).startswith(f"{path}, {words}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "is no JSON"),
        ("", "is no JSON"),
        ('{"a": 1}', "holds no list of detections"),
        ("[3]", "entry 1: "),
    ],
)
def test_what_is_no_results_file_is_refused(tmp_path, text, words):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_results(path)
    with pytest.raises(UsageError, match="no results file at .*nowhere.json"):
        read_results(tmp_path / "nowhere.json")


def test_results_come_as_they_stand_in_the_file(tmp_path):
    path = tmp_path / "results.json"
    entries = [ENTRY, ENTRY | {"segmentation": {"size": [9, 9], "counts": "T2"}, "name": "x"}]
    path.write_text(json.dumps(entries))
    assert read_results(path) == entries
    path.write_text("[]")
    assert read_results(path) == []


def test_without_the_fast_evaluator_the_error_names_the_extra(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UsageError, match=r"pip install 'sdabench\[fast\]'"):
        score(write(an_object()), [], "bbox", evaluator="faster-coco-eval")


def test_scoring_does_not_import_torch():
    code = "import sys, sdabench.scoring.coco, sdabench.report.coco_scores; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize(("case", "seed"), CASES)
def test_the_numbers_are_those_of_pycocotools(generated, case, seed, iou_type):
    path = annotations_of(case, generated)
    results = detections(path, seed)
    before = copy.deepcopy(results)
    ours = score(path, results, iou_type)
    assert results == before
    if iou_type == "segm":
        results = [{key: one[key] for key in one if key != "bbox"} for one in results]
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = direct(COCO, COCOeval, path, results, iou_type)
    expected = dict(zip(METRICS, (100 * theirs[:6]).tolist(), strict=True))
    assert ours.metrics == {name: value for name, value in expected.items() if value >= 0}  # to the bit
    assert 1 < ours.metrics["ap_pct"] < 60
    measured = [one.ap_pct for one in ours.classes if one.ap_pct is not None]
    assert np.mean(measured) == pytest.approx(ours.metrics["ap_pct"])
    assert sum(one.detections for one in ours.classes) == len(results)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize(("case", "seed"), CASES)
def test_ap_of_one_category_is_that_of_an_evaluation_of_it_alone(generated, case, seed, iou_type):
    path = annotations_of(case, generated)
    results = [
        {key: one[key] for key in one if key != "bbox" or iou_type == "bbox"}
        for one in detections(path, seed)
    ]
    classes = score(path, results, iou_type).classes
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), iou_type)
        for one in classes[:6]:
            evaluation.params.catIds = [one.category_id]
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            expected = [None if value < 0 else pytest.approx(100 * value) for value in evaluation.stats[:2]]
            assert [one.ap_pct, one.ap50_pct] == expected
            objects = truth.loadAnns(truth.getAnnIds(catIds=[one.category_id], iscrowd=0))
            assert one.ground_truth == len(objects)


@needs_faster
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize(("case", "seed"), CASES)
def test_the_fast_evaluator_gives_the_same_numbers(generated, case, seed, iou_type):
    path = annotations_of(case, generated)
    results = detections(path, seed)
    both = [score(path, results, iou_type, evaluator=name) for name in ("pycocotools", "faster-coco-eval")]
    slow, fast = both
    assert fast.images == slow.images
    assert fast.metrics == pytest.approx(slow.metrics, rel=1e-12)  # their sums are in another order
    for field in ("category_id", "name", "ground_truth", "detections"):
        assert [getattr(one, field) for one in fast.classes] == [getattr(one, field) for one in slow.classes]
    for field in ("ap_pct", "ap50_pct"):
        ours, theirs = ([getattr(one, field) for one in both.classes] for both in (fast, slow))
        assert [value is None for value in ours] == [value is None for value in theirs]
        assert [value or 0 for value in ours] == pytest.approx([value or 0 for value in theirs], rel=1e-12)


@needs_faster
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize(("case", "seed"), CASES)
def test_all_twelve_numbers_of_the_evaluators_agree(generated, case, seed, iou_type):
    import faster_coco_eval

    path = annotations_of(case, generated)
    results = detections(path, seed)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = direct(COCO, COCOeval, path, results, iou_type)
    fast = direct(faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster, path, results, iou_type)
    np.testing.assert_allclose(fast, theirs, rtol=1e-12, atol=0)
