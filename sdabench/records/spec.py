"""Specs: everything that determines one measurement, and the digest that identifies it. Free of torch."""

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from sdabench.data.description import DatasetInfo, FrozenModel, Preprocessing, Resizing
from sdabench.hashing import sha256_of_lines
from sdabench.registry import load_registry
from sdabench.registry.recipes import ClassificationRecipe, DetectionRecipe, Precision, Recipe
from sdabench.registry.schema import DataTask, Task

RANDOM, TRAINED_HERE = "random", "training"  # sources of weights that are no file
S = TypeVar("S", bound="RunSpec")


class Weights(FrozenModel):
    """``source`` is a file's path, ``random`` (from the seed), or ``training`` (by the spec's recipe).

    Or the place the file was fetched from, as ``--weights`` takes it: a URL without credentials,
    ``torchvision:NAME`` or ``timm:NAME``.
    """

    source: str
    sha256: str | None = None

    @property
    def trained(self) -> bool:
        return self.source != RANDOM

    @property
    def identity(self) -> str | None:
        """The digest of a file; random and trained weights follow from the rest of the spec."""
        return self.source if self.source in (RANDOM, TRAINED_HERE) else self.sha256


class Protocol(FrozenModel):
    """How images become inputs, and the precision of the evaluation."""

    preprocessing: Preprocessing | Resizing
    precision: Precision = "fp32"
    channels_last: bool = False


class ClassificationProtocol(Protocol):
    preprocessing: Preprocessing = Preprocessing()


class DetectionProtocol(Protocol):
    preprocessing: Resizing = Resizing()


class SpecBase(FrozenModel):
    """What a spec and its record share. ``dataset`` is evaluated; ``backbone`` initialized a detector."""

    model: str
    dataset: DatasetInfo
    train_dataset: DatasetInfo | None = None
    weights: Weights
    backbone: Weights | None = None

    @property
    def spec_digest(self) -> str:
        """Identifies the experiment: sha256 of model, data, protocol, recipe, weights and seed.

        Data count by the digest of their listing, weights by that of their file. A recipe's title and
        source do not count.
        """
        determined = self.model_dump(mode="json", include={"model", "protocol", "seed", "recipe"})
        for words in ("title", "source"):
            (determined["recipe"] or {}).pop(words, None)
        trained_on = self.train_dataset.listing_sha256 if self.train_dataset else ""
        weights = [each.identity or "" for each in (self.weights, self.backbone) if each is not None]
        return sha256_of_lines(
            [json.dumps(determined, sort_keys=True), self.dataset.listing_sha256, trained_on, *weights]
        )


class RunSpec(SpecBase):
    """A measurement that can be run: the evaluation of weights, or a training and its evaluation.

    ``data`` is the dataset as ``--data`` takes it; where it lies does not count for the digest. A spec
    whose weights come from elsewhere may have the recipe that they were trained by.
    """

    task: DataTask
    data: str
    protocol: Protocol
    recipe: Recipe | None = None
    seed: int = 0

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the model is scored by, each with a record of its own."""
        return load_registry().model(self.model).tasks

    @property
    def trains(self) -> bool:
        """Whether the weights are the result of this run."""
        return self.weights.source == TRAINED_HERE

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The keys of its records: see :attr:`sdabench.records.record.Record.key`."""
        return [(self.spec_digest, task) for task in self.tasks]

    @property
    def name(self) -> str:
        """Unique name for files and folders."""
        return f"{self.model}-{self.spec_digest[:12]}"

    @property
    def resolution(self) -> int:
        """Side of the crop in pixels; for a detector, the short side."""
        return self.protocol.preprocessing.resolution

    def with_values(self: S, **values: Any) -> S:
        """A copy with other values, under a digest of its own."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | values)


class ClassificationSpec(RunSpec):
    task: Literal["classification"] = "classification"
    protocol: ClassificationProtocol
    recipe: ClassificationRecipe | None = None


class DetectionSpec(RunSpec):
    task: Literal["detection"] = "detection"
    protocol: DetectionProtocol
    recipe: DetectionRecipe | None = None


AnySpec = Annotated[ClassificationSpec | DetectionSpec, Field(discriminator="task")]
SPECS: dict[DataTask, type[RunSpec]] = {"classification": ClassificationSpec, "detection": DetectionSpec}


def protocol_at(resolution: int | None, task: DataTask, **options: Any) -> Protocol:
    """The usual protocol of a task, at another resolution where one is given."""
    protocol = ClassificationProtocol if task == "classification" else DetectionProtocol
    if resolution is not None:
        options["preprocessing"] = (Preprocessing if task == "classification" else Resizing).at(resolution)
    return protocol(**options)
