"""Make records by hand, and read records that the program wrote."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdabench.data.annotations import read_annotations
from sdabench.data.description import DatasetInfo, Preprocessing
from sdabench.records.class_predictions import ClassPredictions
from sdabench.records.json_lines import CHECKSUM
from sdabench.records.record import Record, Training
from sdabench.records.rescoring import StoredRecord
from sdabench.records.spec import ClassificationProtocol, ClassificationSpec, Protocol, Weights
from sdabench.records.store import RecordStore
from sdabench.registry.recipes import load_recipe
from sdabench.scoring.coco import evaluate
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
    half = np.full(10, 0.5, np.float32)
    predictions = ClassPredictions(names, LABELS, half, best, half, half)
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


def write_classified(folder: Path, models: dict[str, float], images: int = 30) -> Path:
    """Write a run on a generated dataset of four classes, and its objects.csv.

    Values are the confidence of each network. Predictions of the first class are right on two of three
    images, of others on all, and wrong ones are the next class.
    """
    classes = ["cross_checks", "disc_dots", "disc_rings", "star_rings"]
    labels = np.repeat(np.arange(4), images)
    numbers = np.tile(np.arange(images), 4)
    paths = [
        f"{classes[label]}/{classes[label]}_{n:05d}.JPEG" for label, n in zip(labels, numbers, strict=True)
    ]
    right = (labels > 0) | (numbers % 3 > 0)
    best = np.full((len(labels), 5), -1)
    best[:, 0] = np.where(right, labels, 1)
    data = folder / "data"
    data.mkdir(parents=True)
    lines = [
        f"val/{path},{-1 - n % 3},{64 * 0.5 ** (n % 3)},160,128"
        for path, n in zip(paths, numbers, strict=True)
    ]
    (data / "objects.csv").write_text("\n".join(["path,octave,size_px,width,height", *lines]))
    dataset = DATASET.model_copy(
        update={"name": "synthetic", "root": str(data / "val"), "classes": 4, "samples": len(labels)}
    )
    for model, confidence in models.items():
        certain = np.full(len(labels), confidence, np.float32)
        half = np.full(len(labels), 0.5, np.float32)
        predictions = ClassPredictions(paths, labels, half, best, certain, certain - np.float32(0.1))
        predictions.write(folder / f"{model}.csv.gz")
        made = record(
            model=model, dataset=dataset, samples=len(labels), metrics=predictions.metrics(),
            predictions=f"{model}.csv.gz",
        )  # fmt: skip
        RecordStore(folder).append([made])
    return folder


def write_detected(folder: Path, models: Sequence[str], shift: float = 3.0) -> tuple[Path, Path]:
    """Write a run of detectors on ten images of two categories, and its annotations; return both.

    Each image has a small and a large object. Each is found at ``shift`` pixels from its place; the small one
    of every third image has the wrong category, and the large one of every fourth image is missed.
    """
    sides, categories = (20, 100), (1, 5)
    images = [{"id": n, "width": 300, "height": 300, "file_name": f"{n}.jpg"} for n in range(1, 11)]
    annotations, results = [], []
    for image in range(1, 11):
        for place, (side, category) in enumerate(zip(sides, categories, strict=True)):
            box = [20.0 + 130 * place, 30.0, float(side), float(side)]
            shared = {"image_id": image, "category_id": category}
            annotations.append(
                {**shared, "id": len(annotations) + 1, "bbox": box, "area": side**2, "iscrowd": 0}
            )
            if place and not image % 4:
                continue
            wrong = not place and not image % 3
            found = {"category_id": categories[1] if wrong else category, "bbox": [box[0] + shift, *box[1:]]}
            results.append({**shared, **found, "score": round(0.99 - 0.01 * len(results), 2)})
    folder.mkdir(parents=True)
    file = folder / "instances_val2017.json"
    named = [{"id": 1, "name": "small"}, {"id": 5, "name": "large"}]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": named}))
    (folder / "found.json").write_text(json.dumps(results))
    metrics = evaluate(read_annotations(file), results, "bbox").score().metrics
    dataset = COCO.model_copy(update={"samples": 10, "classes": 2})
    RecordStore(folder).append(
        [
            record(
                model=model, task="detection", dataset=dataset, samples=10, metrics=metrics,
                standard_errors=dict.fromkeys(metrics, 2.0), predictions="found.json",
            )
            for model in models
        ]
    )  # fmt: skip
    return folder, file


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
