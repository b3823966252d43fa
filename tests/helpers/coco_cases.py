"""Make ground truth and detections to score, by hand or from a seed."""

import copy
import importlib.util

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sdabench.data.annotations import read_annotations
from sdabench.scoring.average_precision import CategoryMatches
from sdabench.scoring.bootstrap import CocoSamples
from tests.helpers.datasets import COCO_SAMPLE

FASTER = importlib.util.find_spec("faster_coco_eval") is not None
needs_faster = pytest.mark.skipif(not FASTER, reason="faster-coco-eval is not installed")
needs_sample = pytest.mark.skipif(not COCO_SAMPLE.is_dir(), reason="the real sample is not here")
EACH_EVALUATOR = ["pycocotools", "vectorised", pytest.param("faster-coco-eval", marks=needs_faster)]
HALF = 100 * 51 / 101  # a recall of one half reaches the points 0.00 to 0.50: 51 of 101

SIZE = 200  # side of the hand-made images, in pixels
CASES = [("generated", seed) for seed in range(4)] + [
    pytest.param("train", 10, marks=needs_sample),
    pytest.param("val", 11, marks=needs_sample),
]


def polygon(x, y, width, height):
    """Return the outline of a box."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def make_annotation(image_id=1, category_id=3, box=(0, 0, 100, 100), outline=None, iscrowd=0, area=None):
    """Make an annotation, by default a square of 100 pixels; a crowd is a compressed RLE."""
    outline = outline or polygon(*box)
    [rle] = coco_mask.frPyObjects([outline], SIZE, SIZE)
    mask = {"size": [SIZE, SIZE], "counts": rle["counts"].decode()} if iscrowd else [outline]
    area = float(coco_mask.area(rle)) if area is None else area
    return {
        "image_id": image_id, "category_id": category_id, "bbox": list(box), "segmentation": mask,
        "area": area, "iscrowd": iscrowd,
    }  # fmt: skip


def make_detection(confidence, image_id=1, category_id=3, box=(0, 0, 100, 100), **more):
    """Make a detection."""
    return {
        "image_id": image_id, "category_id": category_id, "score": confidence, "bbox": list(box),
    } | more  # fmt: skip


def evaluate_directly(coco_class, evaluator_class, path, results, iou_type):
    """Compute the twelve COCO metrics through the interface of an evaluator."""
    ground_truth = coco_class(str(path))
    evaluation = evaluator_class(ground_truth, ground_truth.loadRes(copy.deepcopy(results)), iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return np.array(evaluation.stats)[:12]


def detections(path, seed):
    """Make seeded results: shifted objects, duplicates, wrong categories, over 100 detections in one image."""
    rng = np.random.default_rng(seed)
    ground_truth = read_annotations(path)
    images = {image["id"]: image for image in ground_truth.images}
    categories = [category["id"] for category in ground_truth.categories]
    results = []

    def add(image_id, category_id, box, outlines=None):
        image = images[image_id]
        dx, dy, *growth = rng.normal(0, 0.06, 4) * [box[2], box[3], box[2], box[3]]
        width, height = np.maximum(np.array(box[2:]) + growth, 1).round(2).tolist()
        x, y = np.maximum([box[0] + dx, box[1] + dy], 0).round(2).tolist()
        shift = np.array([dx, dy])
        moved = [(np.reshape(one, (-1, 2)) + shift).flatten().tolist() for one in outlines or [polygon(*box)]]
        mask = coco_mask.merge(coco_mask.frPyObjects(moved, image["height"], image["width"]))
        results.append(
            {
                "image_id": image_id,
                "category_id": int(category_id),
                "score": round(float(rng.random()), 2),  # with ties
                "bbox": [x, y, width, height],
                "segmentation": mask | {"counts": mask["counts"].decode()},
            }
        )

    for annotation in ground_truth.annotations:
        for _ in range(rng.integers(0, 3)):
            wrong = rng.random() < 0.1
            category = rng.choice(categories) if wrong else annotation["category_id"]
            outlines = None if annotation["iscrowd"] else annotation["segmentation"]
            add(annotation["image_id"], category, annotation["bbox"], outlines)
    for _ in range(5 * len(images)):
        box = [*rng.uniform(0, 100, 2), *rng.uniform(5, 100, 2)]
        add(int(rng.choice(list(images))), rng.choice(categories), box)
    crowded = int(rng.choice(list(images)))
    for _ in range(130):
        add(crowded, categories[0], [*rng.uniform(0, 100, 2), *rng.uniform(5, 50, 2)])
    return [results[index] for index in rng.permutation(len(results))]


def annotations_of(case, generated):
    """Return the annotation file of a case, generated or from the real sample."""
    return generated if case == "generated" else COCO_SAMPLE / f"annotations/instances_{case}2017.json"


def metrics_of(samples, weights):
    """Compute the six metrics with one row of image weights."""
    [values] = samples.values(np.asarray(weights, dtype=np.int32)[None])
    return values


def pycocotools_samples(evaluation):
    """Read the matches from the objects of pycocotools, to compare with sdabench's matching."""
    images, annotations = evaluation.image_ids, evaluation.file.annotations
    parameters, each = evaluation.matched.params, iter(evaluation.matched.evalImgs)
    objects = {image: set() for image in images}
    categories = []
    for category_id in evaluation.file.category_ids:
        for area, _ in enumerate(parameters.areaRng):
            per_image = [next(each) for _ in images]
            matches = [(index, one) for index, one in enumerate(per_image) if one is not None]
            if matches:
                categories.append(_category(category_id, area, matches))
            for index, one in matches if area == 0 else ():
                matched = (one["gtMatches"][0] > 0) & (one["gtIgnore"] == 0)
                numbers = [one["gtIds"][number] for number in np.flatnonzero(matched)]
                objects[images[index]] |= {annotations[number - 1]["id"] for number in numbers}
    return CocoSamples(images, objects, [category for category in categories if len(category.objects)])


def _category(category_id, area, matches):
    def joined(key):
        return np.concatenate([one[key] for _, one in matches], axis=-1)

    def images(key):
        indices, lengths = zip(*((index, len(one[key])) for index, one in matches), strict=True)
        return np.repeat(np.array(indices, dtype=np.int32), lengths)

    order = np.argsort(-joined("dtScores"), kind="mergesort")
    counts = (joined("dtIgnore") == 0)[:, order]
    matched = (joined("dtMatches") > 0)[:, order] & counts
    objects = images("gtIds")[joined("gtIgnore") == 0]
    return CategoryMatches.of(int(category_id), area, objects, images("dtScores")[order], matched, counts)
