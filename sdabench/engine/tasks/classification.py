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
from sdabench.engine.tasks import Advance, load, not_finite
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

    def predict(
        self, network: nn.Module, job: EvaluationJob, device: torch.device, advance: Advance
    ) -> ClassPredictions:
        split = cast(ImageSplit, job.split)
        assert isinstance(job.preprocessing, Preprocessing)
        layout = torch.channels_last if job.channels_last else torch.contiguous_format
        count = len(split.items)
        top5 = torch.full((count, 5), -1)
        probability = torch.full((count,), float("nan"))
        sha256 = [""] * count
        seen: list[int] = []
        images = EvaluationImages(split, job.preprocessing)
        pin = device.type == "cuda"
        for batch in load(images, Batch.of, job.machine.workers, pin, batch_size=job.batch_size):
            with torch.inference_mode(), autocast(device, job.precision):
                logits = network(batch.to(device, layout).images).float()
            if not logits.isfinite().all():
                worst = int((~logits.isfinite().all(dim=1)).nonzero()[0, 0])
                raise not_finite(job, split.items[batch.indices[worst]].path)
            indices = torch.tensor(batch.indices)
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices.cpu()
            top5[indices, : best.shape[1]] = best
            probability[indices] = logits.softmax(dim=1).cpu().gather(1, batch.labels[:, None])[:, 0]
            for index, digest in zip(batch.indices, batch.sha256, strict=True):
                sha256[index] = digest
            seen += batch.indices
            advance(len(batch.indices))
        assert seen == list(range(count)), "every image is evaluated once"
        return ClassPredictions(split, top5, probability, sha256)


def _recipe(job: TrainingJob) -> ClassificationRecipe:
    assert isinstance(job.recipe, ClassificationRecipe)
    return job.recipe
