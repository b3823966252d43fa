"""Classification: cross-entropy, and top-1 and top-5 accuracy."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from sdabench.data.description import Preprocessing
from sdabench.data.folders import ImageSplit
from sdabench.data.images import Batch, EvaluationImages, TrainingImages
from sdabench.engine.arithmetic import autocast
from sdabench.engine.files import writing
from sdabench.engine.jobs import EvaluationJob, TrainingJob
from sdabench.engine.tasks import not_finite
from sdabench.metrics.topk import TopK
from sdabench.models.build import create_model
from sdabench.registry.recipes import ClassificationRecipe
from sdabench.registry.schema import Task


@dataclass(frozen=True)
class ClassPredictions:
    """For each image of the listing: the five best classes, and the probability of the right one."""

    split: ImageSplit
    top5: Tensor  # (N, 5) int64
    label_probability: Tensor  # (N,) float32
    sha256: list[str]

    def metrics(self) -> dict[Task, dict[str, float]]:
        labels = torch.tensor([item.label for item in self.split.items])
        return {"classification": TopK().update(self.top5, labels).compute()}

    def write(self, stem: Path) -> Path:
        """One line an image: path, label, its probability, and the five best classes."""
        path = stem.with_name(f"{stem.name}.csv")
        with writing(path) as file:
            text = io.TextIOWrapper(file, newline="", errors="surrogateescape")
            writer = csv.writer(text)
            writer.writerow(["path", "label", "label_probability", *(f"top{rank}" for rank in range(1, 6))])
            rows = zip(self.split.items, self.label_probability, self.top5, strict=True)
            for item, probability, classes in rows:
                writer.writerow([item.path, item.label, f"{probability:.6g}", *classes.tolist()])
            text.detach()  # flushes, and leaves the file open
        return path


class Classification:
    """See :class:`sdabench.engine.tasks.TaskEngine`."""

    metrics = ("top1_pct", "top5_pct")
    smallest = 2

    def build(self, job: EvaluationJob) -> nn.Module:
        return create_model(job.model, num_classes=job.split.num_classes)

    def build_for_training(self, job: TrainingJob) -> nn.Module:
        return create_model(job.model, num_classes=job.train.num_classes)

    def is_frozen(self, network: nn.Module) -> None:
        return None

    def training_images(self, job: TrainingJob, seed: int) -> Dataset[Any]:
        return TrainingImages(cast(ImageSplit, job.train), _recipe(job).augmentation, seed)

    def batch_of(self, samples: Sequence[Any], skipped: list[str]) -> Batch:
        return Batch.of(samples, skipped)

    def losses(self, network: nn.Module, part: Batch, job: TrainingJob) -> dict[str, Tensor]:
        recipe = _recipe(job)
        with autocast(part.images.device, recipe.precision):
            logits = network(part.images)
        smoothing = recipe.label_smoothing
        summed = F.cross_entropy(logits.float(), part.labels, reduction="sum", label_smoothing=smoothing)
        return {"loss": summed / len(part)}

    def fit_limit(self, job: TrainingJob, first_loss: float) -> float | None:
        """A share of the loss of chance."""
        share = job.recipe.fit_below
        return None if share is None else share * math.log(job.train.classes)

    def evaluation_images(self, job: EvaluationJob) -> Dataset[Any]:
        assert isinstance(job.preprocessing, Preprocessing)
        return EvaluationImages(cast(ImageSplit, job.split), job.preprocessing)

    def outputs(self, network: nn.Module, batch: Batch, job: EvaluationJob) -> list[tuple[list[int], float]]:
        """The five best classes, and the probability of the right one."""
        with autocast(batch.images.device, job.precision):
            logits = network(batch.images).float()
        if not logits.isfinite().all():
            worst = int((~logits.isfinite().all(dim=1)).nonzero()[0, 0])
            raise not_finite(job, job.split.items[batch.indices[worst]].path)
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        probability = logits.softmax(dim=1).gather(1, batch.labels[:, None])[:, 0]
        return list(zip(best.tolist(), probability.tolist(), strict=True))

    def predictions(self, job: EvaluationJob, outputs: list[Any], sha256: list[str]) -> ClassPredictions:
        top5 = torch.full((len(outputs), 5), -1)
        best = torch.tensor([classes for classes, _ in outputs])
        top5[:, : best.shape[1]] = best
        probability = torch.tensor([probability for _, probability in outputs])
        return ClassPredictions(cast(ImageSplit, job.split), top5, probability, sha256)


def _recipe(job: TrainingJob) -> ClassificationRecipe:
    assert isinstance(job.recipe, ClassificationRecipe)
    return job.recipe
