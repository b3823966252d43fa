"""COCO's AP, derived by hand."""

import contextlib
import io
import subprocess
import sys

import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sdabench.errors import DataError, NothingMeasuredError
from sdabench.scoring.coco import ClassScore, score
from tests.helpers.coco_cases import (
    EACH_EVALUATOR,
    HALF,
    SIZE,
    evaluate_directly,
    make_annotation,
    make_detection,
    polygon,
)


def thin_l(x, y):
    """Return the outline of an L of 100 x 100 pixels, 5 wide: 975 pixels in a box of 10,000."""
    return [x, y, x + 5, y, x + 5, y + 95, x + 100, y + 95, x + 100, y + 100, x, y + 100]


def rle(result):
    return coco_mask.merge(coco_mask.frPyObjects(result["segmentation"], SIZE, SIZE))


def test_one_of_two_objects_reaches_51_of_101_recall_thresholds(write):
    path = write(make_annotation(1), make_annotation(2))
    result = score(path, [make_detection(0.9)], "bbox")
    assert result.metrics == pytest.approx(
        {"ap_pct": HALF, "ap50_pct": HALF, "ap75_pct": HALF, "ap_l_pct": HALF}
    )
    assert result.images == 2
    assert result.classes == [
        ClassScore(3, "cat", pytest.approx(HALF), pytest.approx(HALF), ground_truth=2, detections=1),
        ClassScore(8, "dog", None, None, ground_truth=0, detections=0),
    ]


def test_object_with_id_0_is_found(write):
    """Pycocotools treats a match with id 0 as no match."""
    assert score(write(make_annotation() | {"id": 0}), [make_detection(0.9)], "bbox").metrics[
        "ap_pct"
    ] == pytest.approx(100)


def test_confident_false_positive_halves_the_precision(write):
    path = write(make_annotation(1), make_annotation(2))
    wrong = make_detection(0.95, box=(150, 150, 20, 20))
    assert score(path, [make_detection(0.9), wrong], "bbox").metrics["ap_pct"] == pytest.approx(HALF / 2)
    later = wrong | {"score": 0.5}
    assert score(path, [make_detection(0.9), later], "bbox").metrics["ap_pct"] == pytest.approx(HALF)


def test_iou_of_82_percent_passes_seven_of_ten_thresholds(write):
    metrics = score(write(make_annotation()), [make_detection(0.9, box=(0, 0, 100, 82))], "bbox").metrics
    assert metrics["ap_pct"] == pytest.approx(70)
    assert metrics["ap50_pct"] == metrics["ap75_pct"] == pytest.approx(100)


def test_ap_is_the_mean_over_categories_with_objects(write):
    path = write(make_annotation(category_id=3), make_annotation(category_id=8))
    result = score(path, [make_detection(0.9, category_id=8)], "bbox")
    assert [one.ap_pct for one in result.classes] == pytest.approx([0, 100])
    assert result.metrics["ap_pct"] == pytest.approx(50)


def test_detections_in_a_crowd_are_ignored(write):
    crowd = make_annotation(2, box=(0, 0, 150, 150), iscrowd=1)
    results = [make_detection(0.9), *(make_detection(0.95, 2, box=(10 * n, 0, 40, 40)) for n in range(5))]
    for iou_type in ("bbox", "segm"):
        masked = [one | {"segmentation": [polygon(*one["bbox"])]} for one in results]
        result = score(write(make_annotation(1), crowd), masked, iou_type)
        assert result.metrics["ap_pct"] == pytest.approx(100)
        assert (result.classes[0].ground_truth, result.classes[0].detections) == (1, 6)


def test_detections_in_empty_images_are_false_positives(write):
    results = [make_detection(0.9), make_detection(0.95, image_id=2)]
    assert score(write(make_annotation()), results, "bbox").metrics["ap_pct"] == pytest.approx(50)


def test_box_without_area_is_never_found(write):
    flat = make_annotation(2, box=(5, 5, 40, 0), area=0.0)
    result = score(
        write(make_annotation(), flat),
        [make_detection(0.9), make_detection(0.8, 2, box=(5, 5, 40, 0))],
        "bbox",
    )
    assert result.metrics["ap_pct"] == pytest.approx(HALF)
    assert result.metrics["ap_s_pct"] == 0


def test_mask_area_is_used_even_if_a_box_is_given(write):
    """A thin L is small although its box is large: a second L, a false positive, counts as small."""
    path = write(make_annotation(1, outline=thin_l(0, 0)))
    results = [
        make_detection(0.9, segmentation=[thin_l(0, 0)]),
        make_detection(0.95, 2, segmentation=[thin_l(50, 50)], box=(50, 50, 100, 100)),
    ]
    metrics = score(path, results, "segm").metrics
    assert metrics == pytest.approx(dict.fromkeys(("ap_pct", "ap50_pct", "ap75_pct", "ap_s_pct"), 50))
    with contextlib.redirect_stdout(io.StringIO()):
        reference = evaluate_directly(
            COCO, COCOeval, path, [one | {"segmentation": rle(one)} for one in results], "segm"
        )
    assert reference[3] == pytest.approx(1.0)  # by the area of its box, the second L is large and not counted
    boxless = [{key: one[key] for key in one if key != "bbox"} for one in results]
    assert score(path, boxless, "segm").metrics == metrics


def test_masks_may_be_polygons_or_rle_in_any_form(write):
    path = write(make_annotation())
    compressed = rle({"segmentation": [polygon(0, 0, 100, 100)]})
    runs = {"size": [SIZE, SIZE], "counts": [0, *[100, 100] * 99, 100, 100 + SIZE * 100]}
    text = {"size": [SIZE, SIZE], "counts": compressed["counts"].decode()}
    for mask in ([polygon(0, 0, 100, 100)], runs, text, compressed):
        result = {"image_id": 1, "category_id": 3, "score": 0.5, "segmentation": mask}
        assert score(path, [result], "segm").metrics["ap_pct"] == pytest.approx(100)
    nothing = {"size": [SIZE, SIZE], "counts": [SIZE * SIZE]}
    empty = {"image_id": 1, "category_id": 3, "score": 0.5, "segmentation": nothing}
    assert score(path, [empty], "segm").metrics["ap_pct"] == 0


@pytest.mark.parametrize("evaluator", EACH_EVALUATOR)
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_no_results_give_an_ap_of_zero(write, evaluator, iou_type, capfd):
    result = score(write(make_annotation()), [], iou_type, evaluator=evaluator)
    assert result.metrics == {"ap_pct": 0, "ap50_pct": 0, "ap75_pct": 0, "ap_l_pct": 0}
    assert result.classes[0] == ClassScore(3, "cat", 0, 0, 1, 0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("evaluator", EACH_EVALUATOR)
def test_no_objects_is_an_error(write, evaluator):
    for objects, words in (([], "no annotation"), ([make_annotation(iscrowd=1)], "only crowds")):
        with pytest.raises(NothingMeasuredError, match=f"instances_val2017.json has {words} in 2 images"):
            score(write(*objects), [make_detection(0.9)], "bbox", evaluator=evaluator)
    with pytest.raises(NothingMeasuredError, match="no annotation in 1 images"):
        score(write(make_annotation(1)), [make_detection(0.9)], "bbox", image_ids=[2], evaluator=evaluator)


def test_only_chosen_images_are_scored(write):
    path = write(make_annotation(1), make_annotation(2))
    results = [make_detection(0.9), make_detection(0.95, image_id=2, box=(150, 150, 20, 20))]
    result = score(path, results, "bbox", image_ids=[1])
    assert result.metrics["ap_pct"] == pytest.approx(100)
    assert (result.images, result.classes[0].ground_truth, result.classes[0].detections) == (1, 1, 1)
    with pytest.raises(DataError, match="image_id 5 is not in .*instances_val2017.json"):
        score(path, results, "bbox", image_ids=[1, 5])


def test_scoring_does_not_import_torch():
    code = "import sys, sdabench.scoring.coco, sdabench.report.coco_scores; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
