"""The options that ``eval``, ``train`` and ``run`` share, and what they mean."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sdabench.cli.help import ParamType, option
from sdabench.cli.machine import machine_from
from sdabench.cli.options import Seed, progress
from sdabench.data.description import Preprocessing, Resizing
from sdabench.data.source import DataSource
from sdabench.data.split import Split
from sdabench.errors import UsageError
from sdabench.registry import load_registry
from sdabench.registry.recipes import RECIPES, Recipe, load_recipe, recipe_names
from sdabench.registry.schema import DataTask
from sdabench.training.jobs import EVALUATION_BATCH, EvaluationJob, preprocessing_at
from sdabench.weights.local import LocalWeights

F = TypeVar("F", bound=Callable[..., Any])
USUAL_RECIPE = {"synthetic": "smoke", "imagenet": "paper", "coco": "coco-1x"}


class DataOption(ParamType):
    """A dataset: its kind and its folder."""

    name = "dataset"
    shape = "imagenet=PATH|coco=PATH|synthetic[=PATH]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> DataSource:
        if isinstance(value, DataSource):
            return value
        try:
            return DataSource.parse(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


class RecipeOption(ParamType):
    """A recipe's name or file; completed by the shell."""

    name = "recipe"
    shape = "NAME|FILE"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        names = {name for task in RECIPES for name in recipe_names(task) if name.startswith(incomplete)}
        return [click.shell_completion.CompletionItem(name) for name in sorted(names)]


PROTOCOL = (
    option("--batch-size", type=click.IntRange(min=1), group="Protocol", help="Images per batch"),
    option(
        "--amp", type=click.Choice(["off", "bf16", "fp16"]), group="Protocol",
        help="Data type of automatic mixed precision",
    ),
    option(
        "--channels-last/--no-channels-last", default=None, group="Protocol", advanced=True,
        help="Use the channels_last memory format",
    ),
    option(
        "--resolution", type=click.IntRange(min=32), group="Protocol", advanced=True,
        help="Crop size in pixels, or the short side for detectors",
    ),
    option(
        "--seed", type=Seed(), default=0, show_default=True, group="Protocol",
        help="Random seed of initial weights, data order and augmentation",
    ),
)  # fmt: skip
DATA = (
    option(
        "--data", type=DataOption(), default="synthetic", show_default=True, group="Data",
        help="Dataset; synthetic without PATH is generated once",
    ),
)  # fmt: skip
TRAINING = (
    option(
        "--recipe", "recipe_name", type=RecipeOption(), group="Protocol",
        help="Training recipe  [default: smoke for synthetic, paper for imagenet, coco-1x for coco]",
    ),
    option(
        "--epochs", type=click.IntRange(min=1), group="Protocol",
        help="Override the recipe's number of epochs",
    ),
    option(
        "--accumulate", type=click.IntRange(min=1), group="Protocol", advanced=True,
        help="Gradient accumulation steps",
    ),
    option(
        "--skip-broken", is_flag=True, group="Protocol", advanced=True,
        help="Skip images that cannot be decoded",
    ),
)  # fmt: skip


def with_options(*groups: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for add in reversed([add for group in groups for add in group]):
            command = add(command)
        return command

    return decorate


def recipe_from(
    source: DataSource, task: DataTask, name: str | None, amp: str | None, **changes: Any
) -> Recipe:
    """The recipe that is asked for, or the dataset's usual one, with the values that the options change."""
    source.check(task)
    recipe = load_recipe(name or USUAL_RECIPE[source.kind], task)
    return recipe.override(precision=amp and precision_of(amp), **changes)


def precision_of(amp: str | None) -> str:
    return "fp32" if amp in (None, "off") else str(amp)


def evaluation_from(
    model: str,
    source: DataSource,
    split: Split,
    weights: LocalWeights | None,
    *,
    seed: int,
    batch_size: int | None,
    amp: str | None,
    channels_last: bool | None,
    resolution: int | None,
    at_once: int = 1,
    cpus: int | None = None,
    **machine: Any,
) -> EvaluationJob:
    """The evaluation that the options of ``PROTOCOL`` ask for."""
    task = load_registry().model(model).task
    usual = {"classification": Preprocessing().crop, "detection": Resizing().short}
    return EvaluationJob(
        model=model,
        source=source,
        split=split,
        weights=weights,
        machine=machine_from(len(split.items), at_once, cpus, **machine),
        batch_size=batch_size or EVALUATION_BATCH[task],
        precision=precision_of(amp),  # type: ignore[arg-type]
        channels_last=bool(channels_last),
        preprocessing=preprocessing_at(resolution or usual[task], task),
        seed=seed,
    )


def located(source: DataSource, task: DataTask) -> DataSource:
    """The dataset with its path; the default one is made now, with a bar, if it is not there yet."""
    if source.path is not None:
        return source
    from sdabench.data.synthetic import default_folder, default_plan

    if default_folder(task).is_dir():
        return source.located(task=task)
    click.echo(f"Making the default dataset, once, in {default_folder(task)}", err=True)
    with progress("generated images", default_plan(task).total, "images") as advance:
        return source.located(advance, task)


def folder_option(default: Path | None, shown: str) -> Callable[[F], F]:
    return option(
        "--output",
        type=click.Path(file_okay=False, path_type=Path),
        default=default,
        group="Output",
        help=f"Folder for all output files  [default: {shown}]",
    )
