"""Make records by hand, and read records that the program wrote."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdabench.data.description import DatasetInfo, Preprocessing
from sdabench.records.class_predictions import ClassPredictions
from sdabench.records.json_lines import CHECKSUM
from sdabench.records.record import Record, Training
from sdabench.records.rescoring import StoredRecord
from sdabench.records.spec import ClassificationProtocol, ClassificationSpec, Protocol, Weights
from sdabench.registry.recipes import load_recipe
from sdabench.training.run_folder import MetricsLog, TrainingRun

DATASET = DatasetInfo(
    name="imagenet",
    split="val",
    root="/d",
    classes=1000,
    samples=50_000,
    complete=True,
    listing_sha256="a" * 64,
)
COCO = DATASET.model_copy(update={"name": "coco", "classes": 80, "samples": 5000})
TEN_IMAGES = DATASET.model_copy(update={"fingerprint_sha256": "f" * 64, "samples": 10})
LABELS = np.arange(10)  # one label per image


def record(**changes: Any) -> Record:
    """Make a record of ResNet-50 on the validation split of ImageNet."""
    made = Record(
        model="resnet50",
        task="classification",
        metrics={"top1_pct": 75.3, "top5_pct": 92.5},
        samples=50_000,
        dataset=DATASET,
        protocol=Protocol(preprocessing=Preprocessing()),
        weights=Weights(source="w.pth", sha256="b" * 64),
        seed=0,
        batch_size=64,
    )
    return made.model_copy(update=changes)


def training(seed: int = 0, **changes: Any) -> Training:
    """Make the result of a training by the recipe ``paper``."""
    result = {"epochs": 120, "steps": 600_600, "first_loss": 7.0, "last_loss": 2.0, "fits": None}
    speed = {"seconds": 1.0, "images_per_second": 1.0, "seeds": [seed]}
    return Training.model_validate(result | speed | changes)


def trained(model: str, top1: float, seed: int = 0, recipe: str = "paper", **changes: Any) -> Record:
    """Make a record of a training on the complete ImageNet by a registered recipe."""
    training_set = DATASET.model_copy(
        update={"split": "train", "samples": 1_281_167, "listing_sha256": "t" * 64}
    )
    return record(
        model=model,
        metrics={"top1_pct": top1},
        seed=seed,
        recipe=load_recipe(recipe).model_dump(mode="json"),
        train_dataset=training_set,
        weights=Weights(source="training", sha256=f"{model} {seed}"),
        training=training(seed),
    ).model_copy(update=changes)


def correct_on(*images: int) -> np.ndarray:
    """Predict the label on these of the ten images, and class 50 on the others."""
    return np.where(np.isin(LABELS, images), LABELS, 50)


def store_record(
    folder: Path,
    name: str,
    top1: np.ndarray,
    top5: np.ndarray | None = None,
    metrics: dict[str, float] | None = None,
    **changes: Any,
) -> StoredRecord:
    """Store a record of ten images with its predictions: first choices ``top1``, second choices ``top5``."""
    best = np.full((10, 5), 99)
    best[:, 0], best[:, 1] = top1, top1 if top5 is None else top5
    names = [f"{number}.JPEG" for number in range(10)]
    predictions = ClassPredictions(names, LABELS, np.full(10, 0.5, np.float32), best)
    predictions.write(folder / f"{name}.csv.gz")
    made = record(
        model=name,
        samples=10,
        dataset=TEN_IMAGES,
        metrics=metrics or predictions.metrics(),
        predictions=f"{name}.csv.gz",
    )
    return StoredRecord(made.model_copy(update=changes), folder)


def write_training(folder: Path, losses: Sequence[float], seed: int = 0) -> Path:
    """Write the folder of a training of ResNet-50 that has logged these losses, one for each epoch."""
    one = trained("resnet50", 76.0, seed).model_copy(update={"recipe": load_recipe("paper")})
    shared = {
        name: getattr(one, name)
        for name in ClassificationSpec.model_fields
        if name not in ("data", "protocol")
    }
    folder.mkdir(parents=True)
    TrainingRun(
        spec=ClassificationSpec(data="imagenet=/d", protocol=ClassificationProtocol(), **shared)
    ).save(folder)
    for epoch, loss in enumerate(losses, start=1):
        MetricsLog(folder).write({"step": 10 * epoch, "epoch": epoch, "loss": loss, "learning_rate": 0.1})
    return folder


def json_records(output: Path) -> list[dict[str, Any]]:
    """Read the records of a run as plain JSON."""
    return json_lines(output / "records.jsonl")


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines without their checksums."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != CHECKSUM} for line in lines]


def write_json_lines(path: Path, *lines: dict[str, Any]) -> None:
    """Write JSON lines without checksums, as earlier versions did."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
