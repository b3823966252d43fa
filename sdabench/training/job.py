"""Jobs: a spec with the images it names and the machine it runs on. Free of torch.

A job is saved to a file that any process can load again; see :mod:`sdabench.runs.worker`.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, ValidationError

from sdabench.data.coco import CocoSplit
from sdabench.data.description import FrozenModel
from sdabench.data.folders import ImageSplit
from sdabench.data.listing import Listing
from sdabench.data.source import DataSource
from sdabench.data.split import Split, SplitName
from sdabench.errors import DataError, SdabenchError
from sdabench.files import atomic_write
from sdabench.hashing import sha256_of_file
from sdabench.records.record import Training
from sdabench.records.spec import (
    RANDOM,
    SPECS,
    TRAINED_HERE,
    AnySpec,
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
from sdabench.registry.yaml_files import describe_error
from sdabench.scoring import DEFAULT_EVALUATOR, Evaluator
from sdabench.weights.local import LocalWeights

SpecT = TypeVar("SpecT", bound=RunSpec)
SplitT = TypeVar("SplitT", bound=Split)
EVALUATION_BATCH: dict[DataTask, int] = {"classification": 64, "detection": 1}
SPECS_FOLDER = "specs"
STORED = ("spec", "machine", "weights", "backbone", "skip_broken", "training")  # fields of a job in its file


class Machine(FrozenModel):
    """Where and how a job runs; nothing here is part of its spec.

    ``workers`` are DataLoader workers per process, ``batch_size`` is that of evaluation (by default the
    task's, or a training's own). ``checkpoint_seconds`` is the pause between two checkpoints within an
    epoch; at the end of one a tenth of it is enough.
    """

    device: str = "cpu"
    workers: int = 0
    world_size: int = 1
    deterministic: bool = False
    checkpoint_seconds: float = 600.0
    evaluator: Evaluator = DEFAULT_EVALUATOR
    batch_size: int | None = None
    tensorboard: bool = False


@dataclass(frozen=True, eq=False)
class Job(Generic[SpecT, SplitT]):
    """A spec, the splits that it names, and the machine.

    ``split`` is evaluated. ``train_split`` is there for a training. ``weights`` are evaluated as they are,
    ``backbone`` initializes a detector's training; both are files of this machine. ``skip_broken`` leaves
    out training images that cannot be decoded. ``training`` says how given weights were trained, if it was
    a training run of this program.
    """

    spec: SpecT
    split: SplitT
    train_split: SplitT | None = None
    machine: Machine = field(default_factory=Machine)
    weights: Path | None = None
    backbone: Path | None = None
    skip_broken: bool = False
    training: Training | None = None

    @property
    def model(self) -> str:
        return self.spec.model

    @property
    def batch_size(self) -> int:
        """Images that are evaluated at a time; of a training, as many as a micro-batch has."""
        recipe = self.spec.recipe
        if self.machine.batch_size is not None:
            return self.machine.batch_size
        if self.spec.trains and recipe is not None and self.spec.task == "classification":
            return recipe.batch_size // recipe.accumulate
        return EVALUATION_BATCH[self.spec.task]

    @property
    def images(self) -> int:
        """How many images the training processes, over all epochs."""
        assert self.spec.recipe is not None
        return self.spec.recipe.epochs * len(self.train.items)

    @property
    def train(self) -> SplitT:
        assert self.train_split is not None, "this job does not train"
        return self.train_split

    def on(self, machine: Machine) -> "Job[SpecT, SplitT]":
        return replace(self, machine=machine)

    def for_model(self, model: str, seed: int, backbone: LocalWeights | None = None) -> "Job[SpecT, SplitT]":
        """The same training of another network, or with another seed."""
        spec = self.spec.with_values(model=model, seed=seed, backbone=backbone and described(backbone))
        return replace(self, spec=spec, backbone=path_of(backbone))

    def check(self) -> None:
        """See :meth:`sdabench.data.coco.CocoSplit.check`."""
        for split in (self.train_split, self.split):
            if isinstance(split, CocoSplit):
                split.check(masks="segmentation" in self.spec.tasks)

    def save(self, output: Path) -> Path:
        """Writes the job to a file in the output folder, beside the listings of its splits."""
        splits = {"val": self.split} | ({"train": self.train} if self.train_split else {})
        folder = output.absolute() / SPECS_FOLDER
        content = JobFile(
            output=output,
            splits={split.split: Listing.write(split, folder / "listings") for split in splits.values()},
            **{name: getattr(self, name) for name in STORED},
        )
        path = folder / f"{self.spec.name}.json"
        with atomic_write(path) as file:
            file.write(content.model_dump_json(indent=1, by_alias=True).encode() + b"\n")
        return path


ClassificationJob = Job[ClassificationSpec, ImageSplit]
DetectionJob = Job[DetectionSpec, CocoSplit]
AnyJob = Job[Any, Any]
AbsolutePath = Annotated[Path, AfterValidator(Path.absolute)]


class JobFile(FrozenModel):
    """The content of ``specs/NAME.json``: a spec, its machine, and where its files are."""

    spec: AnySpec
    machine: Machine
    output: AbsolutePath
    weights: AbsolutePath | None
    backbone: AbsolutePath | None
    skip_broken: bool
    training: Training | None
    splits: dict[SplitName, Listing]

    def job(self) -> AnyJob:
        """Reads the listings; one that is damaged, or whose dataset has changed, is a DataError."""
        source = DataSource.parse(self.spec.data)
        splits = {name: listing.read(source, name, self.spec.task) for name, listing in self.splits.items()}
        return Job(
            split=splits[self.spec.dataset.split],  # type: ignore[index]
            train_split=splits.get("train") if self.spec.trains else None,
            **{name: getattr(self, name) for name in STORED},
        )


def read_job_file(path: Path) -> JobFile:
    """Read a job that :meth:`Job.save` has written; another version's is a SdabenchError."""
    try:
        return JobFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SdabenchError(f"cannot read {path}: {error.strerror}; run the command again") from None
    except ValidationError as error:
        reason = describe_error(error, None)
        raise SdabenchError(f"{path}: {reason}; delete it and run the command again") from None


def path_of(weights: LocalWeights | None) -> Path | None:
    return None if weights is None else weights.path


def described(weights: LocalWeights) -> Weights:
    """Weights as a spec has them, with the digest of their file."""
    try:
        return Weights(source=weights.source, sha256=weights.sha256 or sha256_of_file(weights.path))
    except OSError:  # absent or unreadable: an error of this job, once it starts
        return Weights(source=weights.source)


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
    **provenance: Any,
) -> AnyJob:
    """The evaluation of a network on a split, with given weights or random ones.

    The protocol is by default the usual one of the network's task. ``training`` says how the weights were
    trained; ``provenance`` are further fields of the spec: recipe, training set and backbone behind them.
    """
    task = load_registry().model(model).task
    spec = SPECS[task](
        model=model,
        task=task,
        data=str(source.absolute()),
        dataset=split.describe(),
        protocol=protocol or protocol_at(None, task),
        weights=Weights(source=RANDOM) if weights is None else described(weights),
        seed=seed,
        **provenance,
    )
    return Job(spec, split, machine=machine, weights=path_of(weights), training=training)


def training_job(
    model: str,
    source: DataSource,
    recipe: Recipe,
    *,
    machine: Machine = Machine(),  # noqa: B008  # frozen
    seed: int = 0,
    skip_broken: bool = False,
    backbone: LocalWeights | None = None,
    splits: tuple[Split, Split] | None = None,
) -> AnyJob:
    """The training of a network by a recipe, and its evaluation in float32 at the recipe's resolution.

    ``splits`` are for training and evaluation, by default those of the source, which are then read. Of each
    as many images are taken as the recipe says.

    Raises:
        UsageError: there is no such dataset, or it is for another task.
        DataError: it is not what it claims to be, or its two splits do not go together.
        NothingMeasuredError: no object is annotated.
    """
    task = load_registry().model(model).task
    train, split = splits or (source.read("train", task), source.read("val", task))
    if isinstance(train, CocoSplit) and isinstance(split, CocoSplit):
        if train.categories != split.categories:
            raise DataError(
                f"{train.annotations_file} and {split.annotations_file} list other categories, so that a "
                "detector trained by the one cannot be evaluated by the other"
            )
        train = train.with_annotations()
    train, split = train.subset(recipe.train_images), split.subset(recipe.val_images)
    spec = SPECS[task](
        model=model,
        task=task,
        data=str(source.absolute()),
        dataset=split.describe(),
        train_dataset=train.describe(),
        protocol=protocol_at(recipe.resolution, task, channels_last=recipe.channels_last),
        recipe=recipe,
        weights=Weights(source=TRAINED_HERE),
        backbone=backbone and described(backbone),
        seed=seed,
    )
    job: AnyJob = Job(
        spec, split, train, machine=machine, backbone=path_of(backbone), skip_broken=skip_broken
    )
    job.check()
    return job
