"""The vectorized matching, compared with pycocotools on ties and on random datasets."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sdabench.data.annotations import AnnotationFile, read_annotations
from sdabench.errors import NothingMeasuredError
from sdabench.scoring.bootstrap import CocoSamples
from sdabench.scoring.coco import evaluate
from tests.helpers.coco_cases import (
    CASES,
    annotations_of,
    detections,
    metrics_of,
    polygon,
    pycocotools_samples,
)

SIZE = 128
CORNERS = (0, 8, 16)
SIDES = (0, 8, 32, 36, 96, 100)
IMAGES, CATEGORIES = (3, 1, 2), (7, 4)

boxes = st.tuples(*map(st.sampled_from, (CORNERS, CORNERS, SIDES, SIDES))).map(list)
keys = {"image_id": st.sampled_from(IMAGES[:2]), "category_id": st.sampled_from(CATEGORIES)}


@st.composite
def datasets(draw):
    """Draw few positions, sides and scores, so that many are equal; one image is empty, and at least one
    object counts. Sometimes one image and category has hundreds of detections.
    """
    simple = st.fixed_dictionaries({**keys, "bbox": boxes})
    more = {"area": st.sampled_from((None, 0.0, 1024.0, 9216.0, 1e11)), "iscrowd": st.sampled_from((0, 0, 1))}
    objects = draw(st.lists(st.fixed_dictionaries({**keys, "bbox": boxes, **more}), max_size=9))
    first = {"image_id": 1, "category_id": 4, "bbox": [0, 0, 36, 36], "area": None, "iscrowd": 0}
    objects = [*objects, first]
    found = draw(st.lists(simple, max_size=12))
    found += [{key: one[key] for key in ("image_id", "category_id", "bbox")} for one in objects]
    found = draw(st.permutations(found)) * draw(st.sampled_from((1, 1, 2, 30)))
    scores = draw(st.randoms(use_true_random=False))
    return (
        annotation_file(objects),
        [make_result(one, scores.choice((0.1, 0.5, 0.5, 0.9, 1))) for one in found],
        draw(st.lists(st.integers(0, 3), min_size=len(IMAGES), max_size=len(IMAGES))),
    )


def annotation_file(objects):
    annotations = [
        one
        | {
            "id": 10 * number,
            "area": float(np.prod(one["bbox"][2:])) if one["area"] is None else one["area"],
            "segmentation": box_mask(one["bbox"]) if one["iscrowd"] else [polygon(*one["bbox"])],
        }
        for number, one in enumerate(objects)
    ]
    images = [
        {"id": number, "file_name": f"{number}.jpg", "height": SIZE, "width": SIZE} for number in IMAGES
    ]
    categories = [{"id": number, "name": f"kind {number}"} for number in CATEGORIES]
    return AnnotationFile(Path("made.json"), "0" * 64, categories, images, annotations)


def box_mask(box):
    return coco_mask.frPyObjects([polygon(*box)], SIZE, SIZE)[0]


def make_result(one, score):
    return one | {"score": score, "segmentation": box_mask(one["bbox"])}


def check_same(file, results, iou_type, weights, image_ids=None):
    reference, actual = (
        evaluate(file, results, iou_type, image_ids, name) for name in ("pycocotools", "vectorised")
    )
    expected, score = reference.score(), actual.score()
    assert score == expected  # exactly
    samples, expected_samples = CocoSamples.of(actual), pycocotools_samples(reference)
    assert samples.found == expected_samples.found
    assert samples.image_ids == expected_samples.image_ids
    np.testing.assert_array_equal(metrics_of(samples, weights), metrics_of(expected_samples, weights))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(datasets(), st.sampled_from(["bbox", "segm"]))
def test_scores_equal_pycocotools_on_random_datasets(dataset, iou_type):
    check_same(dataset[0], dataset[1], iou_type, dataset[2])


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize(("case", "seed"), CASES)
def test_scores_equal_pycocotools(generated, case, seed, iou_type):
    file = read_annotations(annotations_of(case, generated))
    results = detections(file.path, seed)
    weights = np.random.default_rng(seed).integers(0, 3, len(file.images))
    check_same(file, results, iou_type, weights)
    subset = sorted(image["id"] for image in file.images)[::2]
    check_same(file, results, iou_type, weights[::2], subset)


def test_later_object_is_matched_at_equal_iou():
    """The first detection lies midway between two objects; the second detection fits only the right one."""
    kind = {"image_id": 1, "category_id": 4}
    left, right = (kind | {"bbox": [x, 0, 100, 100], "area": None, "iscrowd": 0} for x in (0, 20))
    results = [make_result(kind | {"bbox": [x, 0, 100, 100]}, score) for x, score in ((10, 0.9), (30, 0.8))]
    values = []
    for objects in ([left, right], [right, left]):
        check_same(annotation_file(objects), results, "bbox", [1, 1, 1])
        score = evaluate(annotation_file(objects), results, "bbox", evaluator="vectorised").score()
        values.append(score.metrics["ap75_pct"])
    assert values == pytest.approx([100 * 51 / 101, 100])


@pytest.mark.parametrize(("before", "expected"), [(99, 1), (100, 0)])
def test_only_the_first_100_detections_count(before, expected):
    kind = {"image_id": 1, "category_id": 4}
    one = kind | {"bbox": [0, 0, 36, 36], "area": None, "iscrowd": 0}
    wrong = [make_result(kind | {"bbox": [80, 80, 20, 20]}, 0.9)] * before
    results = [make_result(kind | {"bbox": one["bbox"]}, 0.5), *wrong]
    check_same(annotation_file([one]), results, "bbox", [1, 2, 1])
    score = evaluate(annotation_file([one]), results, "bbox", evaluator="vectorised").score()
    assert score.metrics["ap_pct"] == pytest.approx(expected)  # the precision is 1 in 100


def test_only_crowds_is_an_error():
    crowd = {"image_id": 1, "category_id": 4, "bbox": [0, 0, 36, 36], "area": None, "iscrowd": 1}
    with pytest.raises(NothingMeasuredError, match="made.json has only crowds in 3 images"):
        evaluate(annotation_file([crowd]), [make_result(crowd, 0.5)], "bbox", evaluator="vectorised").score()


def test_samples_do_not_use_matching_by_pycocotools(monkeypatch):
    first = {"image_id": 1, "category_id": 4, "bbox": [0, 0, 36, 36], "area": None, "iscrowd": 0}
    evaluation = evaluate(annotation_file([first]), [make_result(first, 0.5)], "bbox", evaluator="vectorised")
    monkeypatch.delattr("pycocotools.cocoeval.COCOeval")
    samples = CocoSamples.of(evaluation)
    assert samples.found == {1: {0}, 2: set(), 3: set()}
    assert metrics_of(samples, [1, 1, 1])[0] == pytest.approx(100)
