"""Compare predictions for each image of a subset, and their accuracy or AP, with the golden ones."""

from collections import defaultdict
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sdabench.records.class_predictions import ClassPredictions
from sdabench.tools.check.evaluations import Evaluation
from sdabench.tools.check.gate import Problem

PROBABILITY = 1e-3  # allowed change of the label's probability; rounding changes it by less than 1e-5
SCORE = 0.01  # allowed change of a detection's score
OVERLAP = 0.9  # IoU from which two boxes, or two masks, count as the same detection
NOT_OF_RECORD = "the golden predictions do not belong to their record; --update rewrites them"


def metric_problems(golden: Evaluation, measured: Evaluation, tolerance: float) -> list[Problem]:
    """Find metrics that differ by more than ``tolerance`` percentage points."""
    golden_metrics = {record.task: record.metrics for record in golden.records}
    lines = []
    for record in measured.records:
        old, new = golden_metrics.get(record.task, {}), record.metrics
        for metric in old | new:
            difference = new.get(metric, np.nan) - old.get(metric, np.nan)
            if not abs(difference) <= tolerance:
                words = f"{_percent(old.get(metric))} -> {_percent(new.get(metric))}"
                lines.append(f"{record.task} {metric} {words} ({difference:+.2f})")
    return [Problem(f"{lines[0]}, tolerance {tolerance:g}", tuple(lines[1:]))] if lines else []


def prediction_problems(golden: Evaluation, measured: Evaluation) -> list[Problem]:
    if not golden.belongs_together:
        return [Problem(NOT_OF_RECORD, status="integrity")]
    old, new = golden.predictions, measured.predictions
    if isinstance(old, ClassPredictions) and isinstance(new, ClassPredictions):
        return flips(old, new)
    assert isinstance(old, list)
    assert isinstance(new, list)
    return changed_detections(old, new)


def flips(golden: ClassPredictions, measured: ClassPredictions) -> list[Problem]:
    """Find images whose predicted class changed, or whose label entered or left the top 5.

    If there are none, find images in which the probability of the label changed.
    """
    if golden.paths != measured.paths or (golden.labels != measured.labels).any():
        return [Problem(NOT_OF_RECORD, status="integrity")]
    old, new = golden.label_probability.astype(float), measured.label_probability.astype(float)
    old_hits, new_hits = golden.hits(5), measured.hits(5)
    flipped = np.flatnonzero((golden.top5[:, 0] != measured.top5[:, 0]) | (old_hits != new_hits)).tolist()
    lines = [
        f"{golden.paths[index]}: label {golden.labels[index]}, "
        f"predicted class {golden.top5[index, 0]} -> {measured.top5[index, 0]}, "
        f"label in top 5: {_yes_no(old_hits[index])} -> {_yes_no(new_hits[index])}, "
        f"probability of the label {old[index]:.4f} -> {new[index]:.4f}"
        for index in flipped
    ]
    if lines:
        return [Problem(f"{len(lines)} of {len(golden.paths)} predictions flipped", tuple(lines))]
    change = np.abs(new - old)
    if not (change <= PROBABILITY).all():
        worst = int(np.argmax(change))
        message = (
            "no prediction flipped, but the probability of the label changed for "
            f"{(change > PROBABILITY).sum()} of {len(golden.paths)} images, most for {golden.paths[worst]}: "
            f"{old[worst]:.4f} -> {new[worst]:.4f}, tolerance {PROBABILITY:g}"
        )
        return [Problem(message)]
    return []


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def changed_detections(golden: list[dict[str, Any]], measured: list[dict[str, Any]]) -> list[Problem]:
    """Find images in which a detection appeared, disappeared, moved, or changed its score."""
    old, new = _by_image(golden), _by_image(measured)
    lines = [
        f"image {image}: {words}"
        for image in sorted(old.keys() | new.keys())
        if (words := _change_in_image(old[image], new[image]))
    ]
    images = f"{len(lines)} image{'s' * (len(lines) != 1)}"
    return [Problem(f"the detections in {images} changed", tuple(lines))] if lines else []


def _by_image(results: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    images: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in results:
        images[entry["image_id"]].append(entry)
    return images


def _change_in_image(golden: list[dict[str, Any]], measured: list[dict[str, Any]]) -> str:
    """Describe the first change; empty if each detection has one of the same category, place and score."""
    if len(golden) != len(measured):
        return f"{len(golden)} -> {len(measured)} detections"
    left = list(measured)
    for entry in sorted(golden, key=lambda each: -each["score"]):
        where = f"category {entry['category_id']} at {entry['bbox']}"
        same = [each for each in left if each["category_id"] == entry["category_id"]]
        boxes = [each["bbox"] for each in same]
        overlaps = coco_mask.iou([entry["bbox"]], boxes, [0] * len(boxes))[0] if boxes else np.zeros(0)
        if not len(overlaps) or overlaps.max() < OVERLAP:
            return f"{where} is gone"
        twin = same[int(np.argmax(overlaps))]
        if abs(twin["score"] - entry["score"]) > SCORE:
            return f"{where} has score {entry['score']:.3f} -> {twin['score']:.3f}"
        if "segmentation" in entry and not _masks_overlap(entry, twin):
            return f"{where} has another mask"
        left.remove(twin)
    return ""


def _masks_overlap(golden: dict[str, Any], measured: dict[str, Any]) -> bool:
    """Return whether two compressed RLE masks overlap; True for two empty masks."""
    masks = [golden["segmentation"], measured.get("segmentation")]
    if masks[0] == masks[1]:
        return True
    if masks[1] is None or masks[0]["size"] != masks[1]["size"]:
        return False
    return bool(coco_mask.iou([masks[0]], [masks[1]], [0])[0, 0] >= OVERLAP)


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
