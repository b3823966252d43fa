"""Metrics as values, in percent."""

from typing import Literal, get_args

IouType = Literal["bbox", "segm"]
Evaluator = Literal["pycocotools", "faster-coco-eval"]
EVALUATORS: tuple[Evaluator, ...] = get_args(Evaluator)
IOU_TYPES: dict[str, IouType] = {"detection": "bbox", "segmentation": "segm"}  # by the task of a record
