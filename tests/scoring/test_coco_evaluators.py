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
def test_metrics_equal_pycocotools(generated, case, seed, iou_type):
    path = annotations_of(case, generated)
    results = detections(path, seed)
    before = copy.deepcopy(results)
    result = score(path, results, iou_type)
    assert results == before
    if iou_type == "segm":
        results = [{key: one[key] for key in one if key != "bbox"} for one in results]
    with contextlib.redirect_stdout(io.StringIO()):
        reference = evaluate_directly(COCO, COCOeval, path, results, iou_type)
    expected = dict(zip(METRICS, (100 * reference[:6]).tolist(), strict=True))
    assert result.metrics == {name: value for name, value in expected.items() if value >= 0}  # exactly
    assert 1 < result.metrics["ap_pct"] < 60
    measured = [one.ap_pct for one in result.classes if one.ap_pct is not None]
    assert np.mean(measured) == pytest.approx(result.metrics["ap_pct"])
    assert sum(one.detections for one in result.classes) == len(results)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize(("case", "seed"), CASES)
def test_category_ap_equals_an_evaluation_of_one_category(generated, case, seed, iou_type):
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
def test_faster_coco_eval_gives_equal_metrics(generated, case, seed, iou_type):
    path = annotations_of(case, generated)
    results = detections(path, seed)
    both = [score(path, results, iou_type, evaluator=name) for name in ("pycocotools", "faster-coco-eval")]
    slow, fast = both
    assert fast.images == slow.images
    assert fast.metrics == pytest.approx(slow.metrics, rel=1e-12)  # summed in another order
    for field in ("category_id", "name", "ground_truth", "detections"):
        assert [getattr(one, field) for one in fast.classes] == [getattr(one, field) for one in slow.classes]
    for field in ("ap_pct", "ap50_pct"):
        fast_values, slow_values = ([getattr(one, field) for one in both.classes] for both in (fast, slow))
        assert [value is None for value in fast_values] == [value is None for value in slow_values]
        assert [value or 0 for value in fast_values] == pytest.approx(
            [value or 0 for value in slow_values], rel=1e-12
        )


@needs_faster
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize(("case", "seed"), CASES)
def test_all_twelve_statistics_of_the_evaluators_agree(generated, case, seed, iou_type):
    import faster_coco_eval

    path = annotations_of(case, generated)
    results = detections(path, seed)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = evaluate_directly(COCO, COCOeval, path, results, iou_type)
    fast = evaluate_directly(faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster, path, results, iou_type)
    np.testing.assert_allclose(fast, reference, rtol=1e-12, atol=0)
