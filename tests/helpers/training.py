"""Make short training jobs and read their results."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from sdabench.data.source import DataSource
from sdabench.records.spec import RANDOM, Weights
from sdabench.registry.recipes import ClassificationRecipe, DetectionRecipe
from sdabench.training.job import AnyJob, Job, Machine, training_job
from sdabench.weights.local import LocalWeights

RECIPE: dict[str, Any] = {
    "name": "test",
    "title": "two steps an epoch",
    "epochs": 2,
    "batch_size": 5,
    "optimizer": {"learning_rate": 0.05},
    "augmentation": {"crop": 32},
    "validation": {"crop": 32, "every_epochs": 0},
}
DETECTION_RECIPE: dict[str, Any] = {
    "name": "test",
    "title": "two steps an epoch",
    "epochs": 2,
    "batch_size": 2,
    "optimizer": {"name": "sgd", "learning_rate": 0.002},
    "short_side": 64,
    "anchor_samples": 64,
    "box_samples": 32,
    "proposals": 50,
    "validation": {"every_epochs": 0},
}
RECIPE_FILE = """\
title: a quick one
epochs: 2
batch_size: 5
optimizer: {learning_rate: 0.001}
augmentation: {crop: 32}
validation: {crop: 32, every_epochs: 0}
fit_below: 100.0
"""
EVERY_OPTION: dict[str, Any] = {  # of a recipe for classification
    "ema": {"decay": 0.9, "every_steps": 2, "after_warmup": True},
    "schedule": {"kind": "cosine", "warmup_steps": 3},
    "clip_norm": 0.5,
    "loss": "bce",
    "bce_threshold": 0.2,
    "mixup": 0.2,
    "cutmix": 1.0,
    "stochastic_depth": 0.3,
    "augmentation": {"crop": 32, "policy": "trivialaugment", "erasing": 0.5, "repeats": 3},
}
FASTER, MASK = "faster_rcnn_resnet50", "mask_rcnn_resnet50"


def classifier_job(
    folder: Path,
    workers: int = 0,
    skip_broken: bool = False,
    seed: int = 0,
    model: str = "resnet50",
    **changes: Any,
) -> AnyJob:
    """Make a job that trains a classifier on generated images."""
    recipe = ClassificationRecipe.model_validate(RECIPE | changes)
    source, machine = DataSource("synthetic", folder), Machine(workers=workers)
    return training_job(model, source, recipe, machine=machine, seed=seed, skip_broken=skip_broken)


def detector_job(
    folder: Path,
    model: str = MASK,
    backbone: Path | None = None,
    workers: int = 0,
    seed: int = 0,
    **changes: Any,
) -> AnyJob:
    """Make a job that trains a detector on generated images."""
    recipe = DetectionRecipe.model_validate(DETECTION_RECIPE | changes)
    source, machine = DataSource("synthetic", folder), Machine(workers=workers)
    weights = None if backbone is None else LocalWeights.of_file(backbone)
    return training_job(model, source, recipe, machine=machine, seed=seed, backbone=weights)


def evaluation_job_for(
    job: AnyJob, batch_size: int | None = None, seed: int = 0, weights: Path | None = None, **protocol: Any
) -> AnyJob:
    """Make a job that evaluates random or given weights by the protocol of a training job."""
    source = Weights(source=RANDOM) if weights is None else Weights(source=str(weights))
    spec = job.spec.with_values(
        weights=source,
        recipe=None,
        train_dataset=None,
        backbone=None,
        seed=seed,
        protocol=job.spec.protocol.model_copy(update=protocol),
    )
    return Job(spec, job.split, machine=Machine(batch_size=batch_size), weights=weights)


class StopAfter:
    """A progress callback that sends this process SIGTERM after a number of images."""

    def __init__(self, images: int):
        self.remaining = images

    def __call__(self, images: int, note: str = "") -> None:
        self.remaining -= images
        if self.remaining == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def copy_with_broken_image(textures: Path, tmp_path: Path, split: str = "train") -> tuple[Path, Path]:
    """Copy a generated dataset and damage one image; return the folder and that image."""
    folder = shutil.copytree(textures, tmp_path / "data")
    path = sorted((folder / split).rglob("*.JPEG"))[3]
    path.write_bytes(path.read_bytes()[:300].ljust(path.stat().st_size, b"\0"))
    return folder, path


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read the final weights of a training run."""
    return load_file(folder / "model.safetensors")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read the metrics that a training run logged."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Tell whether two state dicts are bit-identical."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
