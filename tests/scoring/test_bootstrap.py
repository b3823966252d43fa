"""COCO AP of resampled images, compared with pycocotools on duplicated images and derived by hand."""

import contextlib
import io
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.stats import binom

from sdabench.scoring.bootstrap import CocoSamples, Resampled, bootstrap, draws, standard_errors
from sdabench.scoring.coco import METRICS, evaluate
from tests.helpers.coco_cases import (
    CASES,
    EACH_EVALUATOR,
    HALF,
    annotations_of,
    detections,
    evaluate_directly,
    make_annotation,
    make_detection,
    metrics_of,
    polygon,
)
from tests.helpers.datasets import make_coco


def break_score_ties(results, iou_type):
    """Remove score ties within one image and category, whose order is arbitrary; keep ties between images."""
    seen, results = set(), [dict(result) for result in results]
    for result in results:
        while (key := (result["image_id"], result["category_id"], result["score"])) in seen:
            result["score"] = round(result["score"] + 0.001, 3)
        seen.add(key)
        if iou_type == "segm":
            del result["bbox"]
    return results


def duplicate_images(path, results, weights, to):
    """Write a dataset that contains image i weights[i] times, and return its path and results."""
    content = json.loads(path.read_text())
    numbers = itertools.count(1)
    images = sorted(content["images"], key=lambda image: image["id"])
    copies = {
        image["id"]: [next(numbers) for _ in range(weight)]
        for image, weight in zip(images, weights, strict=True)
    }
    content["images"] = [image | {"id": copy} for image in images for copy in copies[image["id"]]]
    content["annotations"] = [
        one | {"image_id": copy} for one in content["annotations"] for copy in copies[one["image_id"]]
    ]
    for number, one in enumerate(content["annotations"], start=1):
        one["id"] = number
    to.write_text(json.dumps(content))
    return to, [one | {"image_id": copy} for one in results for copy in copies[one["image_id"]]]


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize(("case", "seed"), CASES)
def test_image_weight_equals_duplicated_images_in_pycocotools(
    generated, tmp_path, case, seed, iou_type
):  # fmt: skip
    path = annotations_of(case, generated)
    results = break_score_ties(detections(path, seed), iou_type)
    samples = CocoSamples.of(evaluate(path, results, iou_type))
    generator = np.random.default_rng(seed)
    for weights in (
        generator.integers(0, 4, len(samples.image_ids)),
        *draws(len(samples.image_ids), 2, seed),
    ):
        duplicated, duplicated_results = duplicate_images(
            path, results, weights.tolist(), tmp_path / "twice.json"
        )
        with contextlib.redirect_stdout(io.StringIO()):
            reference = evaluate_directly(COCO, COCOeval, duplicated, duplicated_results, iou_type)[:6]
        expected = np.where(reference < 0, np.nan, 100 * reference)
        np.testing.assert_allclose(metrics_of(samples, weights), expected, rtol=1e-12)
        assert 1 < expected[0] < 60
        assert len({(one["category_id"], one["score"]) for one in results}) < len(results)  # with ties


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("evaluator", EACH_EVALUATOR)
def test_unit_weights_give_the_score_of_each_evaluator(generated, iou_type, evaluator):
    evaluation = evaluate(generated, detections(generated, 5), iou_type, evaluator=evaluator)
    score, samples = evaluation.score(), CocoSamples.of(evaluation)
    values = dict(zip(METRICS, metrics_of(samples, np.ones(len(samples.image_ids))).tolist(), strict=True))
    measured = {name: value for name, value in values.items() if not np.isnan(value)}
    assert measured == pytest.approx(score.metrics, rel=1e-12)
    assert samples.image_ids == sorted(samples.found)


def test_all_256_resamples_of_four_images_by_hand(tmp_path):
    """Image 7 has a kite, which is found, and a person, who is not; image 40 has a kite that cannot be found.

    Image 21 has only a crowd and image 22 only a false positive. AP is the mean over the present categories.
    """
    path = make_coco(tmp_path / "coco") / "annotations/instances_val2017.json"
    results = [make_detection(0.9, 7, 90, (10, 10, 20, 20)), make_detection(0.8, 22, 1, (10, 10, 20, 20))]
    samples = CocoSamples.of(evaluate(path, results, "bbox"))
    assert samples.image_ids == [7, 21, 22, 40]
    weights, expected = [], []
    for drawn in itertools.product((7, 21, 22, 40), repeat=4):
        kites, missed = drawn.count(7), drawn.count(40)
        points = sum(point * (kites + missed) <= 100 * kites for point in range(101)) if kites else 0
        expected.append(100 * points / 101 / 2 if kites else 0.0 if missed else np.nan)
        weights.append([drawn.count(image) for image in samples.image_ids])
    ap, ap50, ap75, small, medium, large = samples.values(np.array(weights, dtype=np.int32)).T
    for same in (ap, ap50, ap75, small):
        np.testing.assert_allclose(same, expected, rtol=1e-12)
    assert np.isnan(expected).sum() == 16  # resamples of images 21 and 22 only
    assert np.isnan([medium, large]).all()
    exact = np.nanstd(expected)
    errors = bootstrap(samples, 4000).standard_errors
    assert errors["ap_pct"] == pytest.approx(exact, rel=0.05)
    assert errors["ap_m_pct"] is None


def test_standard_error_equals_the_binomial_one(write):
    """Two images with one object each, of which one is found: the resamples follow two coin tosses."""
    samples = CocoSamples.of(
        evaluate(write(make_annotation(1), make_annotation(2)), [make_detection(0.9)], "bbox")
    )
    values = bootstrap(samples, 5000, seed=3).of("ap_pct")
    assert set(values.round(9)) == {0, round(HALF, 9), 100}
    chances = binom.pmf([0, 1, 2], 2, 0.5)
    outcomes = np.array([0, HALF, 100])
    exact = np.sqrt(chances @ (outcomes - chances @ outcomes) ** 2)
    assert bootstrap(samples, 5000, seed=3).standard_errors["ap_pct"] == pytest.approx(exact, rel=0.03)
    assert np.mean(values == 0) == pytest.approx(0.25, abs=0.02)


def test_recall_thresholds_are_those_of_pycocotools(write):
    """Some recalls, such as 41 of 100, are below their threshold by the last bit and do not reach it."""
    samples = CocoSamples.of(
        evaluate(write(make_annotation(1), make_annotation(2)), [make_detection(0.9)], "bbox")
    )
    points = np.linspace(0, 1, 101)
    for objects in (3, 7, 50, 100, 300):
        hits = np.arange(1, objects + 1)
        values = samples.values(np.stack([hits, objects - hits], axis=1).astype(np.int32))
        reached = [sum(points <= number / objects) for number in hits.tolist()]
        np.testing.assert_allclose(values[:, 0], 100 * np.array(reached) / 101, rtol=1e-12)


def test_resamples_depend_only_on_seed_and_number_of_images(generated, monkeypatch):
    ones, others = (
        CocoSamples.of(evaluate(generated, detections(generated, seed), "bbox")) for seed in (1, 2)
    )
    progress = []
    first, second = bootstrap(ones, 230, 5, progress.append), bootstrap(others, 230, 5)
    assert progress == [100, 100, 30]
    weights = np.stack(list(draws(len(ones.image_ids), 230, 5)))
    assert (weights.sum(axis=1) == len(ones.image_ids)).all()
    for samples, resampled in ((ones, first), (others, second)):
        np.testing.assert_array_equal(resampled.values[7], metrics_of(samples, weights[7]))
    np.testing.assert_array_equal(bootstrap(ones, 30, 5).values, first.values[:30])
    assert not np.array_equal(bootstrap(ones, 30, 6).of("ap_pct"), first.of("ap_pct")[:30])
    monkeypatch.setattr("sdabench.scoring.average_precision.BLOCK_SIZE", 700)  # several pieces per block
    np.testing.assert_array_equal(bootstrap(ones, 30, 5).values, first.values[:30])


def test_metric_in_few_resamples_has_no_standard_error():
    values = np.full((6, 6), np.nan)
    values[:3, 0], values[:2, 1], values[:, 2] = [1, 2.5, 4], [7, 8], 5
    errors = Resampled(values).standard_errors
    assert errors["ap_pct"] == pytest.approx(1.5)
    assert [errors[name] for name in METRICS[1:]] == [None, 0, None, None, None]


def test_single_image_has_no_standard_error(write):
    path = write(make_annotation(1), make_annotation(2))
    assert standard_errors(evaluate(path, [make_detection(0.9)], "bbox", image_ids=[1])) == {}
    assert set(standard_errors(evaluate(path, [make_detection(0.9)], "bbox"))) == set(METRICS) - {
        "ap_s_pct",
        "ap_m_pct",
    }


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_found_objects_are_listed_by_id_without_crowds(write, iou_type):
    """An IoU of 0.5 suffices, and a matched detection finds no second object."""
    path = write(
        make_annotation(1) | {"id": 77},
        make_annotation(1, box=(150, 150, 50, 50)) | {"id": 0},
        make_annotation(2, box=(0, 0, 100, 100), category_id=8) | {"id": 5},
        make_annotation(2, box=(2, 0, 100, 100), category_id=8) | {"id": 4},
        make_annotation(2, box=(100, 100, 90, 90), iscrowd=1) | {"id": 9},
    )
    boxes = [
        (1, 3, (0, 0, 100, 50)),
        (1, 3, (150, 150, 50, 20)),
        (2, 8, (0, 0, 100, 100)),
        (2, 3, (100, 100, 40, 40)),
    ]
    results = [
        make_detection(0.9, image, category, box, segmentation=[polygon(*box)])
        for image, category, box in boxes
    ]
    assert CocoSamples.of(evaluate(path, results, iou_type)).found == {1: {77}, 2: {5}}
    assert CocoSamples.of(evaluate(path, [], iou_type)).found == {1: set(), 2: set()}


def test_only_chosen_images_are_drawn(write):
    path = write(make_annotation(1), make_annotation(2))
    samples = CocoSamples.of(
        evaluate(path, [make_detection(0.9), make_detection(0.95, image_id=2)], "bbox", image_ids=[2])
    )
    assert samples.image_ids == [2]
    assert list(samples.found) == [2]


def test_resampling_does_not_import_torch():
    code = "import sys, sdabench.scoring.bootstrap; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
