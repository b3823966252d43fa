"""What a user asks for: the evaluation of a network, or its training and evaluation. Free of torch.

A job knows the questions that its records will answer, and the command that does it in a process of its own.
"""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import yaml

from sdabench.data.coco import CocoSplit
from sdabench.data.description import Preprocessing, Resizing
from sdabench.data.source import DataSource
from sdabench.data.split import Split
from sdabench.errors import DataError
from sdabench.files import writing
from sdabench.hashing import sha256_of_file, sha256_of_lines
from sdabench.records.record import RANDOM, TRAINED_HERE, Record, Weights
from sdabench.records.record import Protocol as RecordProtocol
from sdabench.registry import load_registry
from sdabench.registry.recipes import Precision, Recipe
from sdabench.registry.schema import DataTask, Task
from sdabench.scoring import USUAL_EVALUATOR, Evaluator
from sdabench.weights.local import LocalWeights

USUAL_PREPROCESSING = Preprocessing()
EVALUATION_BATCH: dict[DataTask, int] = {"classification": 64, "detection": 1}


def cores(shared_by: int = 1) -> int:
    """Those that this process may use, or each of several that share them."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, own // shared_by)


@dataclass(frozen=True)
class Machine:
    """Where and how a job runs; nothing here is part of its question."""

    device: str = "cpu"
    workers: int = 0  # of each process
    evaluator: Evaluator = USUAL_EVALUATOR  # of detections
    processes: int = 1
    deterministic: bool = False
    checkpoint_seconds: float = 600.0  # within an epoch; at the end of one a tenth of it is enough

    @property
    def options(self) -> list[str]:
        options = ["--device", self.device, "--workers", str(self.workers)]
        options += ["--evaluator", self.evaluator, "--nproc", str(self.processes)]
        options += ["--checkpoint-every", f"{self.checkpoint_seconds / 60:g}"]
        return options + ["--deterministic"] * self.deterministic


class Job(Protocol):
    """One network's work for a suite."""

    @property
    def model(self) -> str: ...
    @property
    def source(self) -> DataSource: ...
    @property
    def split(self) -> Split:
        """The images that are evaluated."""
        ...

    @property
    def machine(self) -> "Machine": ...
    @property
    def batch_size(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def task(self) -> DataTask: ...
    @property
    def questions(self) -> tuple[Record, ...]:
        """The records that would answer, without their measurements: one for each task of the network."""
        ...

    def evaluation(self, weights: Path | None) -> "EvaluationJob":
        """The evaluation in it, with those weights."""
        ...

    def command(self, output: Path) -> list[str]:
        """The arguments of ``sdabench`` that do this job alone, with its records in ``output``."""
        ...


@dataclass(frozen=True)
class EvaluationJob:
    """One network on a split."""

    model: str
    source: DataSource
    split: Split
    weights: LocalWeights | None = None
    machine: Machine = Machine()
    batch_size: int = 64
    precision: Precision = "fp32"
    channels_last: bool = False
    preprocessing: Preprocessing | Resizing = USUAL_PREPROCESSING
    seed: int = 0

    @property
    def task(self) -> DataTask:
        return load_registry().model(self.model).task

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it is measured by, each with a record of its own."""
        return load_registry().model(self.model).tasks

    @cached_property
    def questions(self) -> tuple[Record, ...]:
        return tuple(self.record(task, self._weights()) for task in self.tasks)

    def record(self, task: Task, weights: Weights, **measured: Any) -> Record:
        return Record(
            **{"dataset": self.split.describe()} | measured,
            model=self.model,
            task=task,
            weights=weights,
            protocol=RecordProtocol(
                preprocessing=self.preprocessing,
                precision=self.precision,
                channels_last=self.channels_last,
            ),
            seed=self.seed,
            batch_size=self.batch_size,
        )

    def evaluation(self, weights: Path | None) -> "EvaluationJob":
        return replace(self, weights=None if weights is None else LocalWeights.of_file(weights))

    def command(self, output: Path) -> list[str]:
        arguments = ["eval", self.model, "--data", str(self.source), "--output", str(output)]
        arguments += ["--seed", str(self.seed), "--batch-size", str(self.batch_size)]
        arguments += ["--amp", "off" if self.precision == "fp32" else self.precision]
        arguments += ["--resolution", str(self.resolution), *self.machine.options]
        if self.weights is not None:
            arguments += ["--weights", self.weights.source]
        return [*arguments, "--channels-last"] if self.channels_last else arguments

    @property
    def resolution(self) -> int:
        """Pixels of the crop's side; for a detector, of the short side."""
        own = self.preprocessing
        return own.crop if isinstance(own, Preprocessing) else own.short

    def _weights(self) -> Weights:
        return Weights(source=RANDOM) if self.weights is None else described(self.weights)


def described(weights: LocalWeights) -> Weights:
    """What a record says of them."""
    try:
        return Weights(source=weights.source, sha256=weights.sha256 or sha256_of_file(weights.path))
    except OSError:  # absent or unreadable: the network's own failure
        return Weights(source=weights.source)


@dataclass(frozen=True)
class TrainingJob:
    """One network trained on ``train`` by a recipe, and evaluated on ``split``.

    ``backbone`` is a checkpoint that the backbone of a detector begins with.
    """

    model: str
    source: DataSource
    train: Split
    split: Split
    recipe: Recipe
    machine: Machine = Machine()
    seed: int = 0
    skip_broken: bool = False
    backbone: LocalWeights | None = None

    @classmethod
    def of(cls, model: str, source: DataSource, recipe: Recipe, **options: Any) -> "TrainingJob":
        """Reads the dataset, and takes of it what the recipe wants."""
        task = load_registry().model(model).task
        train, split = source.read("train", task), source.read("val", task)
        if isinstance(train, CocoSplit) and isinstance(split, CocoSplit):
            if train.categories != split.categories:
                raise DataError(
                    f"{train.annotations_file} and {split.annotations_file} list other categories, so that a "
                    "detector trained by the one cannot be evaluated by the other"
                )
            train = train.with_annotations()
        train, split = train.subset(recipe.train_images), split.subset(recipe.val_images)
        job = cls(model, source, train, split, recipe, **options)
        job.check()
        return job

    def check(self) -> None:
        """See :meth:`sdabench.data.coco.CocoSplit.check`."""
        for split in (self.train, self.split):
            if isinstance(split, CocoSplit):
                split.check(masks="segmentation" in load_registry().model(self.model).tasks)

    def on(self, machine: Machine) -> "TrainingJob":
        return replace(self, machine=machine)

    def of_network(self, model: str, seed: int, backbone: LocalWeights | None = None) -> "TrainingJob":
        """The same for another network or seed."""
        return replace(self, model=model, seed=seed, backbone=backbone)

    @property
    def task(self) -> DataTask:
        return load_registry().model(self.model).task

    @property
    def batch_size(self) -> int:
        return self.recipe.batch_size // self.recipe.accumulate

    @property
    def images(self) -> int:
        """How many the training looks at, over all epochs."""
        return self.recipe.epochs * len(self.train.items)

    @cached_property
    def questions(self) -> tuple[Record, ...]:
        evaluation, weights = self.evaluation(None), Weights(source=TRAINED_HERE)
        return tuple(evaluation.record(task, weights, **self.provenance) for task in evaluation.tasks)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What a record says of the training besides how it went."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "train_dataset": self.train.describe(),
            "backbone": self.backbone and described(self.backbone),
        }

    @property
    def name(self) -> str:
        """Of the folder for this training: no other has the same."""
        return f"{self.model}-{self.questions[0].question[:12]}"

    def evaluation(self, weights: Path | None) -> EvaluationJob:
        """The evaluation of its weights, in float32."""
        return EvaluationJob(
            model=self.model,
            source=self.source,
            split=self.split,
            weights=None if weights is None else LocalWeights.of_file(weights),
            machine=self.machine,
            batch_size=self.batch_size if self.task == "classification" else EVALUATION_BATCH[self.task],
            channels_last=self.recipe.channels_last,
            preprocessing=preprocessing_at(self.recipe.resolution, self.task),
            seed=self.seed,
        )

    def command(self, output: Path) -> list[str]:
        recipe = output / "recipes" / f"{self.recipe.name}-{self.recipe_digest[:8]}.yaml"
        write_recipe(recipe, self.recipe)
        arguments = ["train", self.model, "--data", str(self.source), "--output", str(output)]
        arguments += ["--recipe", str(recipe), "--seed", str(self.seed), *self.machine.options]
        if self.backbone is not None:
            arguments += ["--backbone-weights", self.backbone.source]
        return [*arguments, "--skip-broken"] if self.skip_broken else arguments

    @property
    def recipe_digest(self) -> str:
        return sha256_of_lines([self.recipe.model_dump_json()])


def preprocessing_at(resolution: int, task: DataTask) -> Preprocessing | Resizing:
    """How images become inputs, at so many pixels of the side that counts."""
    return Preprocessing.at(resolution) if task == "classification" else Resizing.at(resolution)


def write_recipe(path: Path, recipe: Recipe) -> None:
    """The resolved recipe as a file that ``--recipe`` takes."""
    with writing(path) as file:
        file.write(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False).encode())
