"""Options shared by ``eval``, ``train`` and ``run``: the protocol, the recipe and the dataset."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import click

from sdabench.cli import StoppedBySignalError
from sdabench.cli.options import COUNT, MAX_PIXELS, PIXELS, SEED, FiniteRange
from sdabench.cli.parameters import OneOf, ParsedType, option
from sdabench.data.description import INTERPOLATIONS, Preprocessing, Resizing
from sdabench.data.source import DataSource
from sdabench.errors import UsageError
from sdabench.models.inputs import Triple
from sdabench.processes import note
from sdabench.progress import progress
from sdabench.records.spec import Protocol, protocol_at
from sdabench.registry.recipes import RECIPES, Precision, Recipe, load_recipe, recipe_names
from sdabench.registry.schema import DataTask
from sdabench.registry.sources import is_source
from sdabench.terminal import echo
from sdabench.training.job import Machine
from sdabench.training.trackers import TrackerName, check_trackers
from sdabench.weights.local import LocalWeights
from sdabench.weights.weights_source import is_published

if TYPE_CHECKING:
    from sdabench.data.split import Split
    from sdabench.training.run_folder import TrainingRun

F = TypeVar("F", bound=Callable[..., Any])
MAX_SHORT_SIDE = Preprocessing.at(MAX_PIXELS).resize
USUAL_RECIPE = {
    "synthetic": "smoke",
    "imagenet": "paper",
    "folder": "imagenet-120e",
    "parquet": "imagenet-120e",
    "webdataset": "imagenet-120e",
    "cifar10": "cifar",
    "cifar100": "cifar",
    "fashion-mnist": "cifar",
    "coco": "coco-1x-unscaled",
}


def _recipes() -> list[str]:
    return sorted({name for task in RECIPES for name in recipe_names(task)})


DATASET = ParsedType(
    DataSource.parse,
    "KIND=PATH|synthetic",
)
RECIPE = ParsedType(str, "NAME|FILE", _recipes)

# fmt: off
SkipBroken = Annotated[bool, option(
    "--skip-broken", is_flag=True, group="Protocol", advanced=True,
    help="Skip images that cannot be decoded; such an evaluation is not compared with the paper")]
# fmt: on


@dataclass(frozen=True)
class ProtocolOptions:
    """Options for the protocol of an evaluation; a training uses them to override its recipe."""

    # fmt: off
    batch_size: Annotated[int | None, option(
        "--batch-size", type=COUNT, group="Protocol", help="Images per batch")]
    amp: Annotated[str | None, option(
        "--amp", type=click.Choice(["off", "bf16", "fp16"]), group="Protocol",
        help="Data type of automatic mixed precision")]
    channels_last: Annotated[bool | None, option(
        "--channels-last/--no-channels-last", default=None, group="Protocol", advanced=True,
        help="Use the channels_last memory format")]
    resolution: Annotated[int | None, option(
        "--resolution", type=PIXELS, group="Protocol", advanced=True,
        help="Crop size in pixels, or the short side for detectors")]
    seed: Annotated[int, option(
        "--seed", type=SEED, default=0, group="Protocol",
        help="Random seed of initial weights, data order and augmentation")]
    # fmt: on

    @property
    def precision(self) -> Precision | None:
        """The precision, or None for that of the recipe or of the standard protocol."""
        return "fp32" if self.amp == "off" else self.amp  # type: ignore[return-value]

    def protocol(self, task: DataTask, base: Protocol | None = None) -> Protocol:
        """Return the protocol for evaluating weights: ``base`` with the values of these options.

        ``base`` is by default the standard protocol of the task.
        """
        base = base or protocol_at(None, task)
        values: dict[str, Any] = {"precision": self.precision, "channels_last": self.channels_last}
        if self.resolution is not None:
            values["preprocessing"] = base.preprocessing.resized(self.resolution)
        given = {name: value for name, value in values.items() if value is not None}
        return base.model_copy(update=given)


@dataclass(frozen=True)
class PreprocessingOptions:
    """Options for the protocol that weights were published with."""

    # fmt: off
    base: Annotated[str | None, option(
        "--protocol", type=click.Choice(["standard", "source"]), group="Protocol",
        help="Preprocess as the standard or as the publisher of the weights does  [default: standard; "
        "source for weights of a training run, and for networks by source with their library's weights]")]
    resize: Annotated[int | None, option(
        "--resize", type=PIXELS, group="Protocol", advanced=True,
        help="Short side in pixels before the crop  [default: in proportion to --resolution]")]
    crop_pct: Annotated[float | None, option(
        "--crop-pct", type=FiniteRange(min=0.1, max=1), metavar="FRACTION", group="Protocol", advanced=True,
        help="Crop size as a fraction of the short side, as in timm; instead of --resize")]
    interpolation: Annotated[str | None, option(
        "--interpolation", type=click.Choice(INTERPOLATIONS), metavar="NAME", group="Protocol",
        advanced=True, help=f"Filter for resizing with Pillow: {', '.join(INTERPOLATIONS)}")]
    mean: Annotated[Triple | None, option(
        "--mean", type=FiniteRange(0, 1), nargs=3, metavar="R G B", group="Protocol", advanced=True,
        help="Mean that is subtracted from pixels between 0 and 1")]
    std: Annotated[Triple | None, option(
        "--std", type=FiniteRange(0, 1, min_open=True), nargs=3, metavar="R G B", group="Protocol",
        advanced=True, help="Standard deviation that pixels are divided by")]
    # fmt: on

    def protocol_of_source(
        self, weights: LocalWeights | None, run: "TrainingRun | None", task: DataTask, model: str
    ) -> Protocol | None:
        """Return the protocol of the source of the weights, or None for the standard protocol.

        It is the default for weights that the library of a network by source publishes.

        Raises:
            UsageError: --protocol source, but the protocol of the source is unknown.
        """
        theirs = is_source(model) and weights is not None and is_published(weights.source)
        if self.base == "standard" or (self.base is None and run is None and not theirs):
            return None
        if run is not None:
            return run.spec.protocol
        if weights is None or weights.published is None or task == "detection":
            own = "" if task == "detection" else "; name it with --resize, --resolution, --interpolation, …"
            raise UsageError(
                "--protocol source needs weights whose protocol is known: torchvision:NAME, timm:NAME or a "
                f"training run{own}"
            )
        if self.base is None:
            note(f"{weights.published}; --protocol standard uses that of the paper.")
        return protocol_at(None, task, preprocessing=weights.published.preprocessing)

    def override(self, protocol: Protocol) -> Protocol:
        """Return a protocol with the values of these options.

        Raises:
            UsageError: the options contradict each other, or are not for detectors.
        """
        names = ("resize", "crop_pct", "interpolation", "mean", "std")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        images = protocol.preprocessing
        if isinstance(images, Resizing):
            if not given:
                return protocol
            name = next(iter(given)).replace("_", "-")
            raise UsageError(f"--{name} is for classifiers; for a detector, --resolution sets the short side")
        if (fraction := given.pop("crop_pct", None)) is not None:
            if self.resize is not None:
                raise UsageError("--resize and --crop-pct both set the short side; leave out one of them")
            given["resize"] = math.floor(images.crop / fraction)
        elif self.resize is not None and self.resize < images.crop:
            raise UsageError(
                f"--resize {self.resize} is smaller than the crop of {images.crop} pixels, which would get "
                "a black border; choose at least the crop, or a smaller --resolution"
            )
        images = images.model_copy(update=given)
        if images.resize > MAX_SHORT_SIDE:
            raise UsageError(
                f"the short side before the crop of {images.crop:,} pixels would be {images.resize:,}, more "
                f"than {MAX_SHORT_SIDE:,}; choose a larger --crop-pct or a smaller --resolution"
            )
        return protocol.model_copy(update={"preprocessing": images})


@dataclass(frozen=True)
class TrainingOptions:
    """Options that select a recipe and override its values."""

    # fmt: off
    recipe_name: Annotated[str | None, option(
        "--recipe", type=RECIPE, group="Protocol",
        help="Training recipe  [default: by kind of dataset, such as paper for imagenet]")]
    epochs: Annotated[int | None, option(
        "--epochs", type=COUNT, group="Protocol",
        help="Override the recipe's number of epochs; its milestones are scaled in proportion")]
    accumulate: Annotated[int | None, option(
        "--accumulate", type=COUNT, group="Protocol", advanced=True,
        help="Gradient accumulation steps")]
    eval_every: Annotated[int | None, option(
        "--eval-every", type=COUNT, metavar="STEPS", group="Protocol", advanced=True,
        help="Steps between further validations within epochs")]
    shuffle_window: Annotated[int | None, option(
        "--shuffle-window", type=COUNT, metavar="IMAGES", group="Protocol", advanced=True,
        help="Read shards sequentially, for slow file systems, and shuffle within this many images")]
    cudnn_benchmark: Annotated[bool | None, option(
        "--cudnn-benchmark/--no-cudnn-benchmark", default=None, group="Machine", advanced=True,
        help="Let cuDNN select algorithms by timing  [default: for classification networks, unless "
        "--deterministic]")]
    skip_broken: SkipBroken
    track: Annotated[tuple[TrackerName, ...], option(
        "--track", multiple=True, type=OneOf("tracker", get_args(TrackerName)), group="Output",
        callback=lambda context, option, names: _installed(names),
        metavar="TRACKER", help="Copy the logs too: tensorboard or mlflow")]
    tensorboard: Annotated[bool, option(
        "--tensorboard", is_flag=True, group="Output", advanced=True, help="Same as --track tensorboard",
        callback=lambda context, option, given: bool(_installed(("tensorboard",) if given else ())))]
    # fmt: on

    def recipe(self, source: DataSource, task: DataTask, protocol: ProtocolOptions) -> Recipe:
        """Load the given recipe, or the default one of the dataset, and override it by the options.

        How --epochs or a recipe file scales the schedule is printed to stderr.
        """
        source.check(task)
        recipe = load_recipe(self.recipe_name or USUAL_RECIPE[source.kind], task).override(
            precision=protocol.precision,
            batch_size=protocol.batch_size,
            channels_last=protocol.channels_last,
            resolution=protocol.resolution,
            epochs=self.epochs,
            accumulate=self.accumulate,
            eval_every=self.eval_every,
            shuffle_window=self.shuffle_window,
        )
        for how in recipe.scalings:
            note(how.capitalize())
        return recipe

    def apply_to(self, machine: Machine) -> Machine:
        """Return a machine with these trackers and this choice of cuDNN's algorithms."""
        names = dict.fromkeys((*self.track, "tensorboard") if self.tensorboard else self.track)
        own = {"trackers": tuple(names), "cudnn_benchmark": self.cudnn_benchmark}
        return machine.model_copy(update=own)

    def refuse(self) -> None:
        """Raise a UsageError if an option for training is given."""
        given = {"recipe": self.recipe_name, "epochs": self.epochs, "accumulate": self.accumulate}
        given |= {"eval-every": self.eval_every, "shuffle-window": self.shuffle_window}
        prefix = "no-" if self.cudnn_benchmark is False else ""
        given[f"{prefix}cudnn-benchmark"] = self.cudnn_benchmark is not None
        for name, value in {**given, "track": self.track, "tensorboard": self.tensorboard}.items():
            if value:
                raise UsageError(f"--{name} is for training; leave out either that or --eval-only")


def _installed(names: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
    check_trackers(names)
    return names


def report_annotations(split: "Split", left_out: Iterable[str | None] = ()) -> None:
    """Report on stderr what was read: unusual layouts, what trainings leave out, annotations with id 0, and
    wrong labels.
    """
    from sdabench.data.annotations import ID_ZERO
    from sdabench.data.coco import CocoSplit
    from sdabench.data.folders import ImageSplit
    from sdabench.data.official import mislabeled, plural

    for line in filter(None, dict.fromkeys(left_out)):
        note(line)
    if split.layout is not None:
        note(f"{split.root}: read as {split.layout}.")
    if isinstance(split, CocoSplit) and split.has_id_zero:
        note(f"{split.annotations_file}: {ID_ZERO}.")
    if isinstance(split, ImageSplit) and (wrong := mislabeled(split)):
        note(
            f"{plural(len(wrong), 'image')} of {len(split.items):,} in {split.root} "
            f"{'is' if len(wrong) == 1 else 'are'} in another class folder than the official image of that "
            "name: the accuracy is wrong; 'sdabench data verify' names them"
        )


def ensure_generated(source: DataSource, task: DataTask) -> DataSource:
    """Return a dataset with its path, after generating the default one with a progress bar if needed."""
    if source.path is not None:
        return source
    from sdabench.data.synthetic import default_folder, default_plan, has_default

    if has_default(task):
        return source.ensure_generated(task=task)
    echo(f"Generating the default dataset, once, in {default_folder(task)}", err=True)
    try:
        with progress("generated images", default_plan(task).total, "images") as advance:
            return source.ensure_generated(advance, task)
    except KeyboardInterrupt:
        again = "Rerun the same command to generate the dataset from the start."
        raise StoppedBySignalError(again) from None
