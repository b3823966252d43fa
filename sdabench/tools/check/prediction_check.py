"""Predictions for each image, and the metrics that follow from them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sdabench.records.class_predictions import ClassPredictions
from sdabench.tools.check import Problem
from sdabench.tools.check.evaluation_checks import Evaluated, Evaluations, Said, differing_conditions

PROBABILITY = 1e-3  # by which that of the label may move; rounding moves it by less than 1e-5
SCORE = 0.01  # by which a detection's may
OVERLAP = 0.9  # IoU from which on two boxes, or two masks, are the same detection
TOLERANCE = 0.01  # percentage points of a metric


@dataclass(frozen=True)
class PredictionCheck:
    """See :class:`sdabench.tools.check.Check`: the class of each image, or the detections in it."""

    evaluations: Evaluations
    subjects: Sequence[str]
    name: str = "predictions"

    @property
    def path(self) -> Path:
        return self.evaluations.path

    def baselines(self) -> dict[str, Evaluated]:
        return self.evaluations.stored

    def measure(self, subject: str) -> Evaluated:
        return self.evaluations.measured(subject)

    def problems(self, was: Evaluated, now: Evaluated) -> list[Problem]:
        return differing_conditions(was.record, now.record) or prediction_changes(was.said, now.said)

    def flaw(self, now: Evaluated) -> None:
        """None: an output that is not finite ends the evaluation."""
        return

    def write(self, baselines: dict[str, Evaluated]) -> None:
        self.evaluations.write(baselines)


@dataclass(frozen=True)
class MetricCheck(PredictionCheck):
    """The same for accuracies and APs: within ``tolerance`` percentage points of the baseline."""

    name: str = "metrics"
    tolerance: float = TOLERANCE

    def problems(self, was: Evaluated, now: Evaluated) -> list[Problem]:
        conditions = differing_conditions(was.record, now.record)
        if conditions:
            return conditions
        of_task = {record.task: record.metrics for record in was.records}
        lines = []
        for record in now.records:
            old, new = of_task.get(record.task, {}), record.metrics
            for metric in old | new:
                difference = new.get(metric, np.nan) - old.get(metric, np.nan)
                if not abs(difference) <= self.tolerance:
                    words = f"{_percent(old.get(metric))} -> {_percent(new.get(metric))}"
                    lines.append(f"{record.task} {metric} {words} ({difference:+.2f})")
        if not lines:
            return []
        return [Problem(f"{lines[0]}, tolerance {self.tolerance:g}", tuple(lines[1:]))]


def prediction_changes(was: Said, now: Said) -> list[Problem]:
    if isinstance(was, ClassPredictions) and isinstance(now, ClassPredictions):
        return _flips(was, now)
    assert isinstance(was, list)
    assert isinstance(now, list)
    return _changed_detections(was, now)


def _flips(was: ClassPredictions, now: ClassPredictions) -> list[Problem]:
    """The images whose best class changed, or whose label came among the five best, or left them.

    If there is none, that a probability moved.
    """
    if was.paths != now.paths or (was.labels != now.labels).any():
        words = "the baseline's predictions are of other images or labels than its record; see --update"
        return [Problem(words, status="integrity")]
    old, new = was.label_probability.astype(float), now.label_probability.astype(float)
    changed = (was.top5[:, 0] != now.top5[:, 0]) | (was.hits(5) != now.hits(5))
    flipped = np.flatnonzero(changed).tolist()
    five = {True: "among", False: "not among"}
    lines = [
        f"{was.paths[place]}: label {was.labels[place]}, was {was.top5[place, 0]}, is {now.top5[place, 0]}; "
        f"the label was {five[bool(was.hits(5)[place])]} the best five, is {five[bool(now.hits(5)[place])]}; "
        f"the label's probability {old[place]:.4f} -> {new[place]:.4f}"
        for place in flipped
    ]
    if lines:
        return [Problem(f"{len(lines)} of {len(was.paths)} predictions flipped", tuple(lines))]
    moved = np.abs(new - old)
    if not (moved <= PROBABILITY).all():
        worst = int(np.argmax(moved))
        words = f"most in {was.paths[worst]}: {old[worst]:.4f} -> {new[worst]:.4f}, tolerance {PROBABILITY:g}"
        images = f"{(moved > PROBABILITY).sum()} of {len(was.paths)} images"
        return [Problem(f"no prediction flipped, but the label's probability moved in {images}, {words}")]
    return []


def _changed_detections(was: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[Problem]:
    """The images in which a detection came, went, moved, or has another score."""
    old, new = _by_image(was), _by_image(now)
    lines = [
        f"image {image}: {words}"
        for image in sorted(old.keys() | new.keys())
        if (words := _change_in_image(old[image], new[image]))
    ]
    return [Problem(f"the detections in {len(lines)} images changed", tuple(lines))] if lines else []


def _by_image(results: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    images: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in results:
        images[entry["image_id"]].append(entry)
    return images


def _change_in_image(was: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    """In words; nothing if each detection has one of the same category at its place, with its score."""
    if len(was) != len(now):
        return f"{len(was)} -> {len(now)} detections"
    left = list(now)
    for entry in sorted(was, key=lambda each: -each["score"]):
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


def _masks_overlap(was: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether both, as compressed runs, are of the same pixels; empty ones are."""
    masks = [was["segmentation"], now.get("segmentation")]
    if masks[0] == masks[1]:
        return True
    if masks[1] is None or masks[0]["size"] != masks[1]["size"]:
        return False
    return bool(coco_mask.iou([masks[0]], [masks[1]], [0])[0, 0] >= OVERLAP)


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
