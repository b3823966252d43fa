"""What a user asks for: the evaluation of a network, or its training and evaluation. Free of torch.

A job knows the question that its record will answer, and the command that does it in a process of its own.
"""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import yaml

from sdabench.data.description import Preprocessing
from sdabench.data.folders import ImageSplit
from sdabench.data.source import DataSource
from sdabench.engine.files import writing
from sdabench.evidence.records import RANDOM, TRAINED_HERE, Record, Weights
from sdabench.evidence.records import Protocol as RecordProtocol
from sdabench.hashing import sha256_of_file, sha256_of_lines
from sdabench.registry.recipes import Precision, Recipe


def cores(shared_by: int = 1) -> int:
    """Those that this process may use, or each of several that share them."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, own // shared_by)


@dataclass(frozen=True)
class Machine:
    """Where and how a job runs; nothing here changes its result."""

    device: str = "cpu"
    workers: int = 0

    @property
    def options(self) -> list[str]:
        return ["--device", self.device, "--workers", str(self.workers)]


class Job(Protocol):
    """One network's work for a suite."""

    @property
    def model(self) -> str: ...
    @property
    def source(self) -> DataSource: ...
    @property
    def split(self) -> ImageSplit:
        """The images that are evaluated."""
        ...

    @property
    def machine(self) -> "Machine": ...
    @property
    def batch_size(self) -> int: ...
    @property
    def question(self) -> Record:
        """The record that would answer, without its measurements."""
        ...

    def evaluation(self, weights: Path | None) -> "EvaluationJob":
        """The evaluation in it, with those weights."""
        ...

    def command(self, output: Path) -> list[str]:
        """The arguments of ``sdabench`` that do this job alone, with its record in ``output``."""
        ...


@dataclass(frozen=True)
class EvaluationJob:
    """One network on a split."""

    model: str
    source: DataSource
    split: ImageSplit
    weights: Path | None = None
    machine: Machine = Machine()
    batch_size: int = 64
    precision: Precision = "fp32"
    channels_last: bool = False
    resolution: int = 224
    seed: int = 0

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing.at(self.resolution)

    @cached_property
    def question(self) -> Record:
        return self.record(self._weights())

    def record(self, weights: Weights, **measured: Any) -> Record:
        return Record(
            **{"dataset": self.split.describe()} | measured,
            model=self.model,
            task="classification",
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
        return replace(self, weights=weights)

    def command(self, output: Path) -> list[str]:
        arguments = ["eval", self.model, "--data", str(self.source), "--output", str(output)]
        arguments += ["--seed", str(self.seed), "--batch-size", str(self.batch_size)]
        arguments += ["--amp", "off" if self.precision == "fp32" else self.precision]
        arguments += ["--resolution", str(self.resolution), *self.machine.options]
        if self.weights is not None:
            arguments += ["--weights", str(self.weights)]
        return [*arguments, "--channels-last"] if self.channels_last else arguments

    def _weights(self) -> Weights:
        if self.weights is None:
            return Weights(source=RANDOM)
        try:
            return Weights(source=str(self.weights), sha256=sha256_of_file(self.weights))
        except OSError:  # absent or unreadable: the network's own failure
            return Weights(source=str(self.weights))


@dataclass(frozen=True)
class TrainingJob:
    """One network trained on ``train`` by a recipe, and evaluated on ``split``."""

    model: str
    source: DataSource
    train: ImageSplit
    split: ImageSplit
    recipe: Recipe
    machine: Machine = Machine()
    seed: int = 0
    skip_broken: bool = False

    @classmethod
    def of(cls, model: str, source: DataSource, recipe: Recipe, **options: Any) -> "TrainingJob":
        """Reads the dataset, and takes of it what the recipe wants."""
        train = source.read("train").subset(recipe.train_images)
        split = source.read("val").subset(recipe.val_images)
        return cls(model, source, train, split, recipe, **options)

    def on(self, machine: Machine) -> "TrainingJob":
        return replace(self, machine=machine)

    def of_network(self, model: str, seed: int) -> "TrainingJob":
        """The same for another network or seed."""
        return replace(self, model=model, seed=seed)

    @property
    def batch_size(self) -> int:
        return self.recipe.batch_size // self.recipe.accumulate

    @property
    def images(self) -> int:
        """How many the training looks at, over all epochs."""
        return self.recipe.epochs * len(self.train.items)

    @cached_property
    def question(self) -> Record:
        return self.evaluation(None).record(Weights(source=TRAINED_HERE), **self.provenance)

    @property
    def provenance(self) -> dict[str, Any]:
        """What a record says of the training besides how it went."""
        return {"recipe": self.recipe.model_dump(mode="json"), "train_dataset": self.train.describe()}

    @property
    def name(self) -> str:
        """Of the folder for this training: no other has the same."""
        return f"{self.model}-{self.question.question[:12]}"

    def evaluation(self, weights: Path | None) -> EvaluationJob:
        """The evaluation of its weights, in float32."""
        return EvaluationJob(
            model=self.model,
            source=self.source,
            split=self.split,
            weights=weights,
            machine=self.machine,
            batch_size=self.batch_size,
            channels_last=self.recipe.channels_last,
            resolution=self.recipe.validation.crop,
            seed=self.seed,
        )

    def command(self, output: Path) -> list[str]:
        recipe = output / "recipes" / f"{self.recipe.name}-{self.recipe_digest[:8]}.yaml"
        write_recipe(recipe, self.recipe)
        arguments = ["train", self.model, "--data", str(self.source), "--output", str(output)]
        arguments += ["--recipe", str(recipe), "--seed", str(self.seed), *self.machine.options]
        return [*arguments, "--skip-broken"] if self.skip_broken else arguments

    @property
    def recipe_digest(self) -> str:
        return sha256_of_lines([self.recipe.model_dump_json()])


def write_recipe(path: Path, recipe: Recipe) -> None:
    """The resolved recipe as a file that ``--recipe`` takes."""
    with writing(path) as file:
        file.write(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False).encode())
