"""Options shared by ``eval``, ``train`` and ``run``: the protocol, the recipe and the dataset."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import click

from sdabench.cli import StoppedBySignalError
from sdabench.cli.options import COUNT, SEED
from sdabench.cli.parameters import ParsedType, option
from sdabench.data.source import DataSource
from sdabench.errors import UsageError
from sdabench.processes import is_main_process
from sdabench.progress import progress
from sdabench.records.spec import Protocol, protocol_at
from sdabench.registry.recipes import RECIPES, Precision, Recipe, load_recipe, recipe_names
from sdabench.registry.schema import DataTask

F = TypeVar("F", bound=Callable[..., Any])
USUAL_RECIPE = {"synthetic": "smoke", "imagenet": "paper", "coco": "coco-1x"}


def _recipes() -> list[str]:
    return sorted({name for task in RECIPES for name in recipe_names(task)})


DATASET = ParsedType(DataSource.parse, "imagenet=PATH|coco=PATH|synthetic[=PATH]")
RECIPE = ParsedType(str, "NAME|FILE", _recipes)


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
        "--resolution", type=click.IntRange(min=32), group="Protocol", advanced=True,
        help="Crop size in pixels, or the short side for detectors")]
    seed: Annotated[int, option(
        "--seed", type=SEED, default=0, group="Protocol",
        help="Random seed of initial weights, data order and augmentation")]
    # fmt: on

    @property
    def precision(self) -> Precision | None:
        """The precision, or None for that of the recipe or of the standard protocol."""
        return "fp32" if self.amp == "off" else self.amp  # type: ignore[return-value]

    def protocol(self, task: DataTask) -> Protocol:
        """Return the protocol for evaluating weights without training."""
        return protocol_at(
            self.resolution,
            task,
            precision=self.precision or "fp32",
            channels_last=bool(self.channels_last),
        )


@dataclass(frozen=True)
class TrainingOptions:
    """Options that select a recipe and override its values."""

    # fmt: off
    recipe_name: Annotated[str | None, option(
        "--recipe", type=RECIPE, group="Protocol",
        help="Training recipe  [default: smoke for synthetic, paper for imagenet, coco-1x for coco]")]
    epochs: Annotated[int | None, option(
        "--epochs", type=COUNT, group="Protocol",
        help="Override the recipe's number of epochs; its milestones are scaled in proportion")]
    accumulate: Annotated[int | None, option(
        "--accumulate", type=COUNT, group="Protocol", advanced=True,
        help="Gradient accumulation steps")]
    skip_broken: Annotated[bool, option(
        "--skip-broken", is_flag=True, group="Protocol", advanced=True,
        help="Skip images that cannot be decoded")]
    # fmt: on

    def recipe(self, source: DataSource, task: DataTask, protocol: ProtocolOptions) -> Recipe:
        """Load the given recipe, or the default one of the dataset, and override it by the options.

        How --epochs scales the schedule is printed to stderr.
        """
        source.check(task)
        loaded = load_recipe(self.recipe_name or USUAL_RECIPE[source.kind], task)
        recipe = loaded.override(
            precision=protocol.precision,
            batch_size=protocol.batch_size,
            channels_last=protocol.channels_last,
            resolution=protocol.resolution,
            epochs=self.epochs,
            accumulate=self.accumulate,
        )
        if (how := recipe.scaling_from(loaded)) and is_main_process():
            click.echo(how.capitalize(), err=True)
        return recipe

    def refuse(self) -> None:
        """Raise a UsageError if an option for training is given."""
        given = {"recipe": self.recipe_name, "epochs": self.epochs, "accumulate": self.accumulate}
        for name, value in given.items():
            if value is not None:
                raise UsageError(f"--{name} is for training; leave out either that or --eval-only")


def report_left_out(lines: Iterable[str | None]) -> None:
    """Report once on stderr which annotations the trainings do not use."""
    for line in dict.fromkeys(lines):
        if line and is_main_process():
            click.echo(line, err=True)


def ensure_generated(source: DataSource, task: DataTask) -> DataSource:
    """Return a dataset with its path, after generating the default one with a progress bar if needed."""
    if source.path is not None:
        return source
    from sdabench.data.synthetic import default_folder, default_plan

    if default_folder(task).is_dir():
        return source.ensure_generated(task=task)
    click.echo(f"Generating the default dataset, once, in {default_folder(task)}", err=True)
    try:
        with progress("generated images", default_plan(task).total, "images") as advance:
            return source.ensure_generated(advance, task)
    except KeyboardInterrupt:
        again = "Rerun the same command to generate the dataset from the start."
        raise StoppedBySignalError(again) from None
