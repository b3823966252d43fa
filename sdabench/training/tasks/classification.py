"""Train with cross-entropy, and evaluate top-1 and top-5 accuracy."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from sdabench.data.classes import ClassList
from sdabench.data.folders import ImageSplit
from sdabench.data.images import Batch, EvaluationImages, TrainingImages
from sdabench.data.real_labels import read_real_labels, real_hits
from sdabench.data.views import Normalization
from sdabench.errors import UsageError, WeightsError
from sdabench.hashing import sha256_of_file
from sdabench.models.build import create_model
from sdabench.models.resnet import set_stochastic_depth
from sdabench.records.class_predictions import ClassPredictions
from sdabench.registry.recipes import ClassificationRecipe
from sdabench.registry.schema import Task
from sdabench.scoring.intervals import standard_error_pct
from sdabench.training.job import ClassificationJob
from sdabench.training.precision import autocast
from sdabench.training.soundness import SIDE, Loss, trunk_of
from sdabench.training.tasks import Measured, TrainingTask, not_finite
from sdabench.weights.classes import in_english, read_classes
from sdabench.weights.load import load_initial

PIXELS_AT_ONCE = 4 * 224 * 224  # on a CPU


@dataclass(frozen=True)
class Classified:
    """Predicted classes of all images; see :class:`sdabench.training.tasks.Predictions`.

    ``labels`` is a file of ReaL labels.
    """

    split: ImageSplit
    classes: ClassPredictions
    sha256: list[str]
    labels: Path | None = None

    def metrics(self) -> dict[Task, dict[str, float]]:
        return {"classification": self.classes.metrics()}

    def measured(self) -> dict[Task, Measured]:
        metrics, errors = self.classes.metrics(), dict[str, float]()
        if self.labels is not None:
            hits = real_hits(self.classes.paths, self.classes.top5[:, 0], read_real_labels(self.labels))
            metrics["real_pct"] = 100 * sum(hits) / len(hits)
            errors["real_pct"] = standard_error_pct(metrics["real_pct"], len(hits))
        return {"classification": Measured(metrics, errors)}

    def write(self, stem: Path) -> Path:
        path = stem.with_name(f"{stem.name}.csv.gz")
        self.classes.write(path)
        return path


class Classification(TrainingTask[ClassificationJob, Batch, Classified]):
    metrics = ("top1_pct", "top5_pct")
    batch_of = staticmethod(Batch.of)

    def build(self, job: ClassificationJob) -> nn.Module:
        return create_model(job.model, num_classes=job.split.num_classes)

    def build_for_training(self, job: ClassificationJob) -> nn.Module:
        network = create_model(job.model, num_classes=job.train.num_classes)
        if rate := recipe_of(job).stochastic_depth:
            set_stochastic_depth(network, rate)
        return network

    def load_initial(self, network: nn.Module, job: ClassificationJob) -> bool | None:
        if job.initial is None or job.spec.initial is None:
            return None
        own, classes = read_classes(job.initial), ClassList.of(job.train)
        other = own is not None and own != classes and not in_english(own, job.train)
        is_new = load_initial(network, job.initial, job.spec.initial.wrapper, new_head=other)
        if job.spec.initial.sha256 not in (None, sha256_of_file(job.initial)):
            raise WeightsError(f"{job.initial} has changed since the run started; run the command again")
        return is_new

    def training_images(self, job: ClassificationJob, seed: int) -> TrainingImages:
        images = job.spec.protocol.preprocessing
        normalization = Normalization(images.mean, images.std)
        recipe = recipe_of(job)
        in_shards = recipe.shuffle_window is not None
        return TrainingImages(job.train, recipe.augmentation, seed, normalization, read_ahead=in_shards)

    def losses(self, network: nn.Module, micro_batch: Batch, job: ClassificationJob) -> dict[str, Tensor]:
        recipe = recipe_of(job)
        images, labels = mix(micro_batch.images, micro_batch.labels, recipe, job.train.num_classes)
        with autocast(images.device, recipe.precision):
            logits = _logits(network(images), job.model, job.train.num_classes)
        return {"loss": total_loss(logits.float(), labels, recipe) / len(micro_batch)}

    def unfitted_loss(self, job: ClassificationJob, first_loss: float) -> float:
        """Return the loss at chance, ln(number of classes), or the same for binary cross-entropy."""
        share = 1 / job.train.classes
        if recipe_of(job).loss == "bce" and share < 1:
            return -share * math.log(share) - (1 - share) * math.log(1 - share)
        return math.log(job.train.classes)

    def check_inputs(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Loss]:
        images = batch.images if trunk_of(network) is None else F.interpolate(batch.images, (SIDE, SIDE))
        name = str(network.model_name)
        return images, lambda copy: F.cross_entropy(_logits(copy(images), name), batch.labels)

    def evaluation_images(self, job: ClassificationJob) -> EvaluationImages:
        return EvaluationImages(job.split, job.spec.protocol.preprocessing)

    def outputs(
        self, network: nn.Module, batch: Batch, job: ClassificationJob
    ) -> list[tuple[list[int], float, float, float]]:
        """Compute the five best classes, the probabilities of label and best class, and the margin."""
        with autocast(batch.images.device, job.spec.protocol.precision):
            parts = torch.split(batch.images, images_at_once(batch.images))
            outputs = [_logits(network(part), job.model, job.split.num_classes) for part in parts]
            logits = torch.cat(outputs).float()
        finite = logits.isfinite().all(dim=1)
        if job.class_order is not None:
            logits[:, list(job.class_order)] = logits.clone()
        if job.split.candidates is not None:
            others = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
            others[list(job.split.candidates)] = False
            logits[:, others] = -torch.inf
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        probabilities = logits.softmax(dim=1)
        of_label = probabilities.gather(1, batch.labels[:, None])[:, 0]
        of_best = F.pad(probabilities.gather(1, best[:, :2]), (0, 1))  # a single class has no second
        margin = of_best[:, 0] - of_best[:, 1]
        # The host waits for the device once; float64 holds indices and float32 exactly.
        columns = (finite[:, None], of_label[:, None], of_best[:, :1], margin[:, None], best)
        rows = torch.cat([column.double() for column in columns], dim=1).tolist()
        for index, (is_finite, *_) in zip(batch.indices, rows, strict=True):
            if not is_finite:
                raise not_finite(job, job.split.items[index].path)
        return [([int(each) for each in five], label, first, gap) for _, label, first, gap, *five in rows]

    def predictions(self, job: ClassificationJob, outputs: list[Any], sha256: list[str]) -> Classified:
        items = job.split.items
        best = np.array([classes for classes, *_ in outputs])
        of_label, of_best, margin = np.array([values for _, *values in outputs], dtype=np.float32).T
        classes = ClassPredictions(
            paths=[item.path for item in items],
            labels=np.array([item.label for item in items]),
            label_probability=of_label,
            top5=np.pad(best, ((0, 0), (0, 5 - best.shape[1])), constant_values=-1),
            top1_probability=of_best,
            margin=margin,
        )
        return Classified(job.split, classes, sha256, job.labels)


def mix(images: Tensor, labels: Tensor, recipe: ClassificationRecipe, classes: int) -> tuple[Tensor, Tensor]:
    """Mix pairs of images (N, 3, H, W) and labels (N,); return images and shares of classes (N, classes).

    Without mixup and cutmix, return both as they are. Torch's default generator determines random numbers.
    """
    kinds = ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix))
    mixers = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha is not None]
    if not mixers:
        return images, labels
    mixed: tuple[Tensor, Tensor] = v2.RandomChoice(mixers)(images, labels)
    return mixed


def total_loss(logits: Tensor, labels: Tensor, recipe: ClassificationRecipe) -> Tensor:
    """Sum the loss over images; ``labels`` are classes (N,), or shares of classes (N, classes)."""
    if recipe.loss == "cross_entropy":
        return F.cross_entropy(logits, labels, reduction="sum", label_smoothing=recipe.label_smoothing)
    classes = logits.shape[1]
    targets = labels if labels.ndim == 2 else F.one_hot(labels, classes)
    if recipe.bce_threshold is not None:
        targets = targets > recipe.bce_threshold
    targets = targets * (1 - recipe.label_smoothing) + recipe.label_smoothing / classes
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="sum") / classes


def _logits(output: Any, model: str, classes: int | None = None) -> Tensor:
    """Return the output of a network, which has to be logits (N, classes)."""
    if not isinstance(output, Tensor) or output.ndim != 2:
        kind = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise UsageError(f"'{model}' returns {kind}, not logits (images, classes); wrap it in a factory")
    if classes not in (None, output.shape[1]):
        raise UsageError(
            f"'{model}' has {output.shape[1]} outputs, but the dataset {classes} classes; give its factory a "
            "parameter num_classes"
        )
    return output


def images_at_once(images: Tensor) -> int:
    """Return how many images of a batch a network processes at a time.

    On a CPU, the maps of few images fit into memory that the process already has. To get more memory from the
    system, page by page, can take as long as the arithmetic of the network.
    """
    if images.device.type != "cpu":
        return len(images)
    height, width = images.shape[-2:]
    return max(1, PIXELS_AT_ONCE // (height * width))


def recipe_of(job: ClassificationJob) -> ClassificationRecipe:
    assert job.spec.recipe is not None, "this job does not train"
    return job.spec.recipe
