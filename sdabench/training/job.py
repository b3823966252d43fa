"""Define jobs: a spec, the images that it names, and the machine that runs it. Free of torch."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

from sdabench.data.classes import list_names
from sdabench.data.coco import CocoSplit, category_difference
from sdabench.data.description import FrozenModel
from sdabench.data.folders import ImageSplit
from sdabench.data.source import DataSource
from sdabench.data.split import Split
from sdabench.errors import DataError, UsageError
from sdabench.hashing import sha256_of_file
from sdabench.records.record import Training
from sdabench.records.spec import (
    RANDOM,
    SPECS,
    TRAINED_HERE,
    ClassificationSpec,
    DetectionSpec,
    Protocol,
    RunSpec,
    Weights,
    protocol_at,
)
from sdabench.registry import load_registry
from sdabench.registry.recipes import Recipe
from sdabench.registry.schema import DataTask
from sdabench.registry.sources import is_source
from sdabench.scoring import DEFAULT_EVALUATOR, Evaluator
from sdabench.training.trackers import TrackerName
from sdabench.weights.local import LocalWeights

SpecT = TypeVar("SpecT", bound=RunSpec)
SplitT = TypeVar("SplitT", bound=Split)
EVALUATION_BATCH: dict[DataTask, int] = {"classification": 64, "detection": 1}


class Machine(FrozenModel):
    """The device, processes and settings that run a job; none of them is part of its spec.

    ``workers`` are DataLoader workers per process. ``batch_size`` is that of evaluation, by default that of
    the task, or the micro-batch of a training. ``checkpoint_seconds`` is the time between two checkpoints;
    at the end of an epoch, a tenth of it is enough. ``trackers`` get a copy of the log of a training.
    ``compile`` is for networks of classification. ``tf32`` allows TF32 for float32 on CUDA. With
    ``cudnn_benchmark``, cuDNN selects algorithms of a training by timing; None leaves it to the job.
    """

    device: str = "cpu"
    workers: int = 0
    world_size: int = 1
    deterministic: bool = False
    checkpoint_seconds: float = 600.0
    evaluator: Evaluator = DEFAULT_EVALUATOR
    batch_size: int | None = None
    trackers: tuple[TrackerName, ...] = ()
    compile: bool = False
    tf32: bool = False
    cudnn_benchmark: bool | None = None


@dataclass(frozen=True, eq=False)
class Job(Generic[SpecT, SplitT]):
    """A spec, the splits that it names, and the machine.

    ``split`` is evaluated; ``train_split`` is None without a training. ``weights`` are evaluated without
    training, ``backbone`` are initial weights for a detector, ``initial`` for a classifier; all are local
    files. ``skip_broken`` skips images that cannot be decoded, in training and evaluation. ``training`` is
    the result of the training of ``weights``, if sdabench trained them. ``left_out`` describes the
    annotations that the training does not use.
    """

    spec: SpecT
    split: SplitT
    train_split: SplitT | None = None
    machine: Machine = field(default_factory=Machine)
    weights: Path | None = None
    backbone: Path | None = None
    initial: Path | None = None
    labels: Path | None = None
    skip_broken: bool = False
    training: Training | None = None
    left_out: str | None = None

    def __post_init__(self) -> None:
        if self.machine.compile and self.spec.task == "detection":
            raise UsageError("--compile is for classification networks, not for detectors; leave it out")
        if self.machine.cudnn_benchmark and self.machine.deterministic:
            raise UsageError(
                "with --cudnn-benchmark, timing selects algorithms, which is not deterministic; leave out "
                "either that or --deterministic"
            )

    @property
    def model(self) -> str:
        return self.spec.model

    @property
    def cudnn_benchmark(self) -> bool:
        """Whether cuDNN selects algorithms of a training by timing; by default if image sizes do not vary."""
        if self.machine.cudnn_benchmark is not None:
            return self.machine.cudnn_benchmark
        return self.spec.task == "classification" and not self.machine.deterministic

    @property
    def batch_size(self) -> int:
        """Number of images per batch in the evaluation; for a classification training, per micro-batch."""
        recipe = self.spec.recipe
        if self.machine.batch_size is not None:
            return self.machine.batch_size
        if self.spec.trains and recipe is not None and self.spec.task == "classification":
            return recipe.batch_size // recipe.accumulate
        return EVALUATION_BATCH[self.spec.task]

    @property
    def images(self) -> int:
        """Number of images that the training processes in all epochs."""
        assert self.spec.recipe is not None
        return self.spec.recipe.epochs * len(self.train.items)

    @property
    def train(self) -> SplitT:
        assert self.train_split is not None, "this job does not train"
        return self.train_split

    @cached_property
    def class_order(self) -> tuple[int, ...] | None:
        """Index in the split's classes of each output of ``weights``; None if that is not known.

        Raises:
            WeightsError: the weights have other classes.
        """
        from sdabench.weights.classes import class_order  # imports torch

        return None if self.weights is None else class_order(self.weights, self.split)

    def on(self, machine: Machine) -> "Job[SpecT, SplitT]":
        return replace(self, machine=machine)

    def for_model(self, model: str, seed: int, backbone: LocalWeights | None = None) -> "Job[SpecT, SplitT]":
        """Return the same training for a network, a seed and backbone weights."""
        spec = self.spec.with_values(
            model=model,
            network_sha256=load_registry().model(model).network_sha256,
            seed=seed,
            backbone=backbone and weights_of_spec(backbone),
        )
        return replace(self, spec=spec, backbone=path_of(backbone))

    def check(self) -> str | None:
        """Check that objects can be trained and scored; return what training leaves out, in one line.

        Raises:
            NothingMeasuredError, DataError: see :class:`sdabench.data.coco.CocoSplit`.
        """
        masks, unused = "segmentation" in self.spec.tasks, None
        if isinstance(self.train_split, CocoSplit):
            unused = self.train_split.check_trainable(masks)
        if isinstance(self.split, CocoSplit):
            self.split.check_scorable(masks)
        return unused


ClassificationJob = Job[ClassificationSpec, ImageSplit]
DetectionJob = Job[DetectionSpec, CocoSplit]
AnyJob = Job[Any, Any]


def path_of(weights: LocalWeights | None) -> Path | None:
    return None if weights is None else weights.path


def weights_of_spec(weights: LocalWeights) -> Weights:
    """Convert local weights to the weights of a spec, with the digest of their file."""
    digest = weights.sha256
    with suppress(OSError):  # a missing or unreadable file fails when the job starts
        if digest is None and weights.path.is_file():  # a pipe would wait for a writer
            digest = sha256_of_file(weights.path)
    return Weights(source=weights.source, sha256=digest, wrapper=weights.wrapper)


def _spec(model: str, source: DataSource, split: Split, **fields: Any) -> RunSpec:
    """Make a spec; raise a UsageError if a path in it is not UTF-8."""
    declared = load_registry().model(model)
    if is_source(model) and declared.task == "detection":
        raise UsageError(
            f"'{model}' can be counted and timed, but not trained or evaluated; name a detector of sdabench "
            "('sdabench list' shows all)"
        )
    spec = SPECS[declared.task](
        task=declared.task,
        model=model,
        network_sha256=declared.network_sha256,
        data=str(source.absolute()),
        dataset=split.describe(),
        **fields,
    )
    try:
        sources = (each.source for each in (spec.weights, spec.backbone, spec.initial) if each)
        " ".join([spec.data, *sources]).encode()
    except UnicodeEncodeError:
        raise UsageError(
            "the path of the data or weights is not UTF-8, so no record can name it; rename it"
        ) from None
    return spec


def evaluation_job(
    model: str,
    source: DataSource,
    split: Split,
    weights: LocalWeights | None = None,
    *,
    machine: Machine = Machine(),  # noqa: B008  # frozen
    protocol: Protocol | None = None,
    seed: int = 0,
    training: Training | None = None,
    skip_broken: bool = False,
    labels: Path | None = None,
    **provenance: Any,
) -> AnyJob:
    """Make the evaluation of a network on a split, with given or random weights.

    By default, the protocol is the standard one of the network's task. ``training`` is the result of the
    training of the weights; ``labels`` is a file of ReaL labels; ``provenance`` are fields of the spec: its
    recipe, training set and backbone.
    """
    if weights is not None and isinstance(split, ImageSplit) and split.dataset != "synthetic":
        from sdabench.weights.classes import with_classes_of  # imports torch

        split = with_classes_of(weights.path, split)
    if labels is not None and split.own_classes:
        raise UsageError("--labels needs weights with ImageNet's 1000 classes; leave it out")
    spec = _spec(
        model,
        source,
        split,
        protocol=protocol or standard_protocol(source, load_registry().model(model).task),
        weights=Weights(source=RANDOM) if weights is None else weights_of_spec(weights),
        seed=seed,
        labels=None if labels is None else sha256_of_file(labels),
        **provenance,
    )
    return Job(
        spec,
        split,
        machine=machine,
        weights=path_of(weights),
        labels=labels,
        skip_broken=skip_broken,
        training=training,
    )


def standard_protocol(source: DataSource, task: DataTask, resolution: int | None = None) -> Protocol:
    """Return the standard protocol for a dataset, which for small images is their own."""
    if task == "detection":
        return protocol_at(resolution, task)
    own = source.preprocessing
    return protocol_at(None, task, preprocessing=own.resized(resolution) if resolution else own)


def _protocol_of(recipe: Recipe, source: DataSource, task: DataTask) -> Protocol:
    """Return the protocol of the evaluation after a training."""
    protocol = standard_protocol(source, task, recipe.resolution)
    protocol = protocol.model_copy(update={"channels_last": recipe.channels_last})
    own = recipe.validation.model_dump(include={"resize", "interpolation"})
    return protocol.model_copy(update={"preprocessing": protocol.preprocessing.model_copy(update=own)})


def training_job(
    model: str,
    source: DataSource,
    recipe: Recipe,
    *,
    machine: Machine = Machine(),  # noqa: B008  # frozen
    seed: int = 0,
    skip_broken: bool = False,
    backbone: LocalWeights | None = None,
    initial: LocalWeights | None = None,
    splits: tuple[Split, Split] | None = None,
) -> AnyJob:
    """Make the training of a network by a recipe, with an evaluation in float32 at the recipe's resolution.

    ``splits`` are the splits for training and evaluation [default: read them from the source].
    Both are reduced to the recipe's numbers of images.

    Raises:
        UsageError: there is no such dataset, or it is for another task; or timm is missing.
        DataError: it is not what it claims to be, or its splits have different categories.
        NothingMeasuredError: no object is annotated.
    """
    task = load_registry().model(model).task
    if recipe.needs_timm and find_spec("timm") is None:
        raise UsageError(f"{recipe.needs_timm} of the recipe needs timm: pip install 'sdabench[timm]'")
    train, split = splits or (source.read("train", task), source.read("val", task))
    if isinstance(train, CocoSplit) and isinstance(split, CocoSplit):
        if difference := category_difference(train, split):
            raise DataError(f"{source}: {difference}; use two splits of one dataset")
        train = train.with_annotations()
    if isinstance(train, ImageSplit) and isinstance(split, ImageSplit) and train.own_classes:
        unknown = sorted(set(split.occurring) - set(train.occurring))
        if unknown:
            raise DataError(
                f"{train.root} has no training images of {list_names(unknown)}, which {split.root} has for "
                "validation; add some, or remove these classes"
            )
    train, split = train.subset(recipe.train_images), split.subset(recipe.val_images)
    spec = _spec(
        model,
        source,
        split,
        train_dataset=train.describe(),
        protocol=_protocol_of(recipe, source, task),
        recipe=recipe,
        weights=Weights(source=TRAINED_HERE),
        backbone=backbone and weights_of_spec(backbone),
        initial=initial and weights_of_spec(initial),
        seed=seed,
    )
    job: AnyJob = Job(
        spec,
        split,
        train,
        machine=machine,
        backbone=path_of(backbone),
        initial=path_of(initial),
        skip_broken=skip_broken,
    )
    return replace(job, left_out=job.check())
