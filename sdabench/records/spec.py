"""Define specs, which determine one measurement, and the digest that identifies it. Free of torch."""

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from sdabench.data.description import DatasetInfo, FrozenModel, Preprocessing, Resizing
from sdabench.hashing import sha256_of_lines
from sdabench.registry import load_registry
from sdabench.registry.recipes import WORDS, ClassificationRecipe, DetectionRecipe, Precision, Recipe
from sdabench.registry.schema import DataTask, Task
from sdabench.registry.sources import file_name, identity

RANDOM, TRAINED_HERE = "random", "training"  # sources of weights without a file
S = TypeVar("S", bound="RunSpec")


class Weights(FrozenModel):
    """The source of weights, and the sha256 of their file.

    ``source`` is the path of a file, ``random`` (from the seed), ``training`` (by the spec's recipe), or a
    value of ``--weights``: a URL without credentials, ``torchvision:NAME`` or ``timm:NAME``. ``wrapper`` is
    the value of ``--wrapper``, and ``entry`` are the keys in the file that led to the tensors.
    """

    source: str
    sha256: str | None = None
    wrapper: str | None = None
    entry: str | None = None  # of a record; file and wrapper determine it

    @property
    def trained(self) -> bool:
        return self.source != RANDOM

    @property
    def identity(self) -> str | None:
        """The digest of a file, or ``random`` or ``training``: the rest of the spec determines those."""
        if self.source in (RANDOM, TRAINED_HERE):
            return self.source
        return self.sha256 if self.wrapper is None else f"{self.sha256 or ''} {self.wrapper}"


class Protocol(FrozenModel):
    """The preprocessing of images and the numerical precision of an evaluation."""

    preprocessing: Preprocessing | Resizing
    precision: Precision = "fp32"
    channels_last: bool = False


class ClassificationProtocol(Protocol):
    preprocessing: Preprocessing = Preprocessing()


class DetectionProtocol(Protocol):
    preprocessing: Resizing = Resizing()


class SpecBase(FrozenModel):
    """The fields that a spec and its record share.

    ``network_sha256`` is the digest of the model's definition in the registry, None in records of earlier
    versions. ``backbone`` are the initial weights of a detector's backbone, ``initial`` those of a trained
    classifier. ``labels`` is the sha256 of a file of ReaL labels.
    """

    model: str
    network_sha256: str | None = None
    dataset: DatasetInfo
    train_dataset: DatasetInfo | None = None
    weights: Weights
    backbone: Weights | None = None
    initial: Weights | None = None
    labels: str | None = None

    @property
    def is_defined(self) -> bool:
        """Whether the registry still defines the network in this way, or does not know it."""
        declared = load_registry().find(self.model)
        return declared is None or self.network_sha256 in (None, declared.network_sha256)

    @property
    def spec_digest(self) -> str:
        """The identity of an experiment: sha256 of network, data, protocol, recipe, weights and seed.

        Data are represented by the digest of their listing, and of the names of classes that their kind does
        not fix; weights by that of their file. A recipe's title, source and differences are not included.
        """
        determined = self.model_dump(mode="json", include={"model", "protocol", "seed", "recipe"})
        determined["model"] = identity(self.model)
        if self.network_sha256 is not None:
            determined["network_sha256"] = self.network_sha256
        if self.dataset.classes_sha256 is not None:
            determined["classes"] = [self.dataset.name, self.dataset.classes_sha256]
        if self.labels is not None:
            determined["labels"] = self.labels
        if self.dataset.candidates is not None:
            determined["candidates"] = self.dataset.candidates
        for words in WORDS:
            (determined["recipe"] or {}).pop(words, None)
        trained_on = self.train_dataset.listing_sha256 if self.train_dataset else ""
        sources = (self.weights, self.backbone, self.initial)
        weights = [each.identity or "" for each in sources if each is not None]
        return sha256_of_lines(
            [json.dumps(determined, sort_keys=True), self.dataset.listing_sha256, trained_on, *weights]
        )


class RunSpec(SpecBase):
    """The spec of a measurement to run: an evaluation of weights, or a training and its evaluation.

    ``data`` is a value of ``--data``; its path does not change the digest. An evaluation of the weights of
    a training run has the recipe of that run.
    """

    task: DataTask
    data: str
    protocol: Protocol
    recipe: Recipe | None = None
    seed: int = 0

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that the model is evaluated on, each with its own record."""
        return load_registry().model(self.model).tasks

    @property
    def trains(self) -> bool:
        """Whether the spec includes a training."""
        return self.weights.source == TRAINED_HERE

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The keys of the records of this spec: see :attr:`sdabench.records.record.Record.key`."""
        return [(self.spec_digest, task) for task in self.tasks]

    @property
    def name(self) -> str:
        """Unique name for files and folders."""
        return f"{file_name(self.model)}-{self.spec_digest[:12]}"

    @property
    def resolution(self) -> int:
        """Side of the crop in pixels; for a detector, the short side."""
        return self.protocol.preprocessing.resolution

    def with_values(self: S, **values: Any) -> S:
        """Return a copy with other values, and thus another digest."""
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
    """Return the standard protocol of a task, at another resolution if one is given."""
    protocol = ClassificationProtocol if task == "classification" else DetectionProtocol
    if resolution is not None:
        options["preprocessing"] = (Preprocessing if task == "classification" else Resizing).at(resolution)
    return protocol(**options)
