"""Train with the losses of proposals, boxes and masks, and evaluate COCO's AP."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic_core import to_json
from torch import Tensor, nn

from sdabench.data.annotations import read_annotations
from sdabench.data.coco import CocoImage, CocoSplit
from sdabench.data.coco_images import DetectionBatch, DetectionImages, DetectionTrainingImages, Target
from sdabench.files import atomic_gzip_write
from sdabench.models.build import create_model
from sdabench.models.detection.detector import Detector
from sdabench.models.detection.masks import PackedMasks, paste
from sdabench.registry.recipes import DetectionRecipe
from sdabench.registry.schema import Task
from sdabench.scoring import DEFAULT_EVALUATOR, IOU_TYPES, Evaluator
from sdabench.scoring.bootstrap import standard_errors
from sdabench.scoring.coco import METRICS, CocoEvaluation, evaluate
from sdabench.training.job import DetectionJob
from sdabench.training.precision import autocast
from sdabench.training.soundness import SIDE, Loss
from sdabench.training.tasks import Measured, TrainingTask, not_finite
from sdabench.weights import load_weights

SMALLEST_ANCHOR = 32  # side in pixels
CHECKED_SHORT, CHECKED_LONG = 96, 160  # largest sides of the images with which a network is checked


@dataclass(frozen=True)
class DetectionPredictions:
    """Entries of a COCO results file, with original ids; a box is (x, y, width, height) in pixels."""

    split: CocoSplit
    tasks: tuple[Task, ...]
    results: list[dict[str, Any]]
    sha256: list[str]
    evaluator: Evaluator = DEFAULT_EVALUATOR

    def metrics(self) -> dict[Task, dict[str, float]]:
        return {task: evaluation.score().metrics for task, evaluation in self._evaluations()}

    def measured(self) -> dict[Task, Measured]:
        """Compute the metrics, and their standard errors by a bootstrap over the images."""
        return {
            task: Measured(evaluation.score().metrics, standard_errors(evaluation))
            for task, evaluation in self._evaluations()
        }

    def _evaluations(self) -> Iterator[tuple[Task, CocoEvaluation]]:
        """Yield the evaluation of each task, one at a time: one of val2017 takes a gigabyte."""
        file, ids = read_annotations(self.split.annotations_file), [item.id for item in self.split.items]
        for task in self.tasks:
            yield task, evaluate(file, self.results, IOU_TYPES[task], ids, self.evaluator)

    def write(self, stem: Path) -> Path:
        """Write a compressed COCO results file, for ``sdabench rescore`` and other tools."""
        path = stem.with_name(f"{stem.name}.json.gz")
        with atomic_gzip_write(path) as file:
            file.write(to_json(self.results))
        return path


class Detection(TrainingTask[DetectionJob, DetectionBatch, DetectionPredictions]):
    metrics = METRICS
    deterministic_on_cuda = False  # because of the backward pass of RoIAlign
    environment = ("evaluator",)
    batch_of = staticmethod(DetectionBatch.of)

    def build(self, job: DetectionJob) -> Detector:
        return _detector(job, job.split)

    def build_for_training(self, job: DetectionJob) -> Detector:
        """Build the network with the weights of its backbone, if any; freeze layers only with these."""
        recipe = recipe_of(job)
        network = _detector(
            job,
            job.train,
            rpn_batch_size_per_image=recipe.anchor_samples,
            box_batch_size_per_image=recipe.box_samples,
            rpn_post_nms_top_n_train=recipe.proposals,
        )
        if job.backbone is not None:
            load_weights(network.backbone.body, job.backbone)
        return network.freeze(_freezes(job))

    def smallest_micro_batch(self, job: DetectionJob) -> int:
        return 1 if _freezes(job) else self.smallest_batch

    def is_frozen(self, network: nn.Module) -> bool:
        assert isinstance(network, Detector)
        return network.frozen

    def training_images(self, job: DetectionJob, seed: int) -> DetectionTrainingImages:
        masks, resizing = "segmentation" in job.spec.tasks, job.spec.protocol.preprocessing
        return DetectionTrainingImages(job.train, resizing, recipe_of(job).flip, seed, masks)

    def losses(self, network: nn.Module, micro_batch: DetectionBatch, job: DetectionJob) -> dict[str, Tensor]:
        with autocast(micro_batch.images[0].device, recipe_of(job).precision):
            losses: dict[str, Tensor] = network(micro_batch.images, micro_batch.targets)
        return {name: loss.float() for name, loss in losses.items()}

    def unfitted_loss(self, job: DetectionJob, first_loss: float) -> float:
        return first_loss

    def check_inputs(self, network: nn.Module, batch: DetectionBatch) -> tuple[Tensor, Loss]:
        """Return the resized images, and a loss with samples of every kind, whatever objects the images have.

        All anchors are samples, so that every map of the pyramid has some, and each image has one object of
        the size of the smallest anchors, so that every head has a positive sample. Large images are resized
        to less than in the training, to bound memory and time.
        """
        assert isinstance(network, Detector)
        resize = deepcopy(network.transform)
        resize.min_size = (min(CHECKED_SHORT, *resize.min_size),)
        resize.max_size = min(CHECKED_LONG, resize.max_size)
        resized, _ = resize(batch.images)
        images: Tensor = F.interpolate(
            resized.tensors, [max(SIDE, side) for side in resized.tensors.shape[2:]]
        )
        objects = [_object_in(*sizes) for sizes in zip(batch.images, resized.image_sizes, strict=True)]

        def loss(copy: nn.Module) -> Tensor:
            assert isinstance(copy, Detector)
            copy.transform = resize
            copy.rpn.fg_bg_sampler.batch_size_per_image = images[0].numel()
            losses: dict[str, Tensor] = copy(batch.images, objects)
            return torch.stack(list(losses.values())).sum()

        return images, loss

    def evaluation_images(self, job: DetectionJob) -> DetectionImages:
        job.split.check_scorable(masks="segmentation" in job.spec.tasks)
        return DetectionImages(job.split, job.spec.protocol.preprocessing)

    def outputs(
        self, network: nn.Module, batch: DetectionBatch, job: DetectionJob
    ) -> list[list[dict[str, Any]]]:
        """Compute the entries of a COCO results file for each image."""
        split = job.split
        try:
            with autocast(batch.images[0].device, job.spec.protocol.precision):
                detections = network(batch.images)
        except FloatingPointError:
            raise not_finite(job, split.items[batch.indices[0]].path) from None
        order = job.class_order or range(split.num_classes)
        ids = [split.categories[index].id for index in order]
        return [
            _entries(split.items[index], ids, image, found)
            for index, image, found in zip(batch.indices, batch.images, detections, strict=True)
        ]

    def predictions(self, job: DetectionJob, outputs: list[Any], sha256: list[str]) -> DetectionPredictions:
        results = [entry for of_image in outputs for entry in of_image]
        return DetectionPredictions(job.split, job.spec.tasks, results, sha256, job.machine.evaluator)


def _entries(
    item: CocoImage, ids: Sequence[int], image: Tensor, found: dict[str, Tensor]
) -> list[dict[str, Any]]:
    """Convert the detections in one image to entries of a results file, in pixels of the original image.

    ``ids`` are the category ids of the network's outputs.
    """
    height, width = image.shape[-2:]
    scale = torch.tensor([item.width / width, item.height / height] * 2)
    boxes = found["boxes"].float().cpu() * scale
    corners = boxes.tolist()
    entries: list[dict[str, Any]] = [
        {
            "image_id": item.id,
            "category_id": ids[label - 1],
            "bbox": [round(value, 3) for value in (left, top, right - left, bottom - top)],
            "score": round(confidence, 6),
        }
        for (left, top, right, bottom), label, confidence in zip(
            corners, found["labels"].tolist(), found["scores"].tolist(), strict=True
        )
    ]
    if "masks" in found:
        for entry, rle in zip(entries, paste(found["masks"], boxes, (item.height, item.width)), strict=True):
            entry["segmentation"] = rle
    return entries


def _detector(job: DetectionJob, split: CocoSplit, **options: Any) -> Detector:
    sizes = job.spec.protocol.preprocessing
    network = create_model(
        job.model, num_classes=split.num_classes, min_size=sizes.short, max_size=sizes.long, **options
    )
    assert isinstance(network, Detector)
    return network


def _object_in(image: Tensor, resized: tuple[int, int]) -> Target:
    """Return a target with one object, at the upper left of an image (3, H, W).

    After resizing to ``resized`` (height, width), it has the size of the smallest anchor.
    """
    height, width = image.shape[1:]
    mask = PackedMasks(torch.full((1, height, -(-width // 8)), 255, dtype=torch.uint8), width)
    box = [0.0, 0.0, SMALLEST_ANCHOR * width / resized[1], SMALLEST_ANCHOR * height / resized[0]]
    return {"boxes": torch.tensor([box]), "labels": torch.ones(1, dtype=torch.int64), "masks": mask}


def _freezes(job: DetectionJob) -> bool:
    return recipe_of(job).freeze and job.backbone is not None


def recipe_of(job: DetectionJob) -> DetectionRecipe:
    assert job.spec.recipe is not None, "this job does not train"
    return job.spec.recipe
