"""Metrics in percent: top-k accuracy, COCO AP, bootstrap, paired tests."""

from typing import Literal, get_args

IouType = Literal["bbox", "segm"]
Evaluator = Literal["vectorised", "pycocotools", "faster-coco-eval"]
EVALUATORS: tuple[Evaluator, ...] = get_args(Evaluator)
DEFAULT_EVALUATOR: Evaluator = "vectorised"
IOU_TYPES: dict[str, IouType] = {"detection": "bbox", "segmentation": "segm"}  # by the task of a record
# Packages whose versions can affect the numbers.
PACKAGES: dict[Evaluator, tuple[str, ...]] = {
    "vectorised": ("numpy", "pycocotools"),
    "pycocotools": ("pycocotools",),
    "faster-coco-eval": ("faster-coco-eval",),
}
REQUIRED_FIELD: dict[IouType, str] = {"bbox": "bbox", "segm": "segmentation"}  # of a result
