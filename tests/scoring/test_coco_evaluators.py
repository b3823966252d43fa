"""COCO's AP compared with direct calls of pycocotools and faster-coco-eval."""

import contextlib
import copy
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sdabench.scoring.coco import METRICS, score
from tests.helpers.coco_cases import CASES, annotations_of, detections, evaluate_directly, needs_faster


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
        theirs = evaluate_directly(COCO, COCOeval, path, results, iou_type)
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
        theirs = evaluate_directly(COCO, COCOeval, path, results, iou_type)
    fast = evaluate_directly(faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster, path, results, iou_type)
    np.testing.assert_allclose(fast, theirs, rtol=1e-12, atol=0)
