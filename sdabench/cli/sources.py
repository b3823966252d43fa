"""``--weights`` and ``--backbone-weights``: what they take, and how it becomes a file of this machine."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from sdabench.cli.options import progress
from sdabench.data.description import Preprocessing, Resizing
from sdabench.errors import SdabenchError, UsageError
from sdabench.processes import STARTED_BY, is_first_process
from sdabench.registry import unknown
from sdabench.weights.fetch.cache import FetchDisplay
from sdabench.weights.local import LocalWeights
from sdabench.weights.weights_source import (
    SUFFIXES,
    WeightsSource,
    check_timm_network,
    locate,
    parse,
    resolve,
)

if TYPE_CHECKING:
    from sdabench.engine.runs import TrainingRun

SOURCE_HELP = "A file, the folder of a training, torchvision:NAME, timm:NAME or URL#sha256=DIGEST."
SEVERAL_HELP = "a folder of NAME.safetensors, .pth or .pt, or of trainings; or NAME=SOURCE, several times."


class WeightsOption(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Where weights come from; a file's name is completed by the shell."""

    name = "SOURCE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> WeightsSource:
        if isinstance(value, WeightsSource):
            return value
        try:
            return parse(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


@dataclass(frozen=True)
class Fetched:
    """Weights, or why there are none: the error is then that of the work, so that a record tells it."""

    weights: LocalWeights
    run: "TrainingRun | None" = None
    error: SdabenchError | None = None

    def check(self) -> LocalWeights:
        """The weights.

        Raises:
            SdabenchError: there are none.
        """
        if self.error is not None:
            raise self.error
        return self.weights


def fetched(source: WeightsSource, model: str) -> Fetched:
    """The file of a source; if that is the folder of a training of ours of ``model``, also what that was."""
    path = Path(source.name)
    if source.kind == "file" and path.is_dir():
        from sdabench.engine.runs import find_run, read_run

        folder = find_run(path, model)
        run = read_run(folder)
        return Fetched(LocalWeights.of_file(folder / next(iter(run.weights.values()))), run)
    check_timm_network(source, model)
    local = locate(source)
    try:
        return Fetched(resolve(source, FetchDisplay(partial(progress, unit="bytes"), _say)))
    except SdabenchError as error:
        return Fetched(local, error=error)


def local_file(source: WeightsSource) -> Path:
    """The file of a source, whatever network it is of; fetched with a bar.

    Raises:
        SdabenchError: there is none, or it cannot be fetched.
    """
    return resolve(source, FetchDisplay(partial(progress, unit="bytes"), _say)).path


def tell_difference(weights: LocalWeights | None, own: Preprocessing | Resizing) -> None:
    """Says on stderr if the weights' publisher has measured them otherwise than we are about to."""
    published = weights and weights.published
    if published and isinstance(own, Preprocessing) and STARTED_BY not in os.environ:
        difference = published.difference(own)
        if difference:
            _say(f"{difference}{f'; {published.accuracy}' if published.accuracy else ''}.")


def weights_of_each(
    models: Iterable[str], said: Sequence[str], option: str, fetch: bool = True
) -> dict[str, LocalWeights]:
    """The weights of each network, from what is said of several.

    Args:
        said: a folder, ``NAME=SOURCE``, or both; the latter goes first. In the folder a file may be absent,
            which is then the network's own failure.
        fetch: False to leave what is not here where it is, for a plan.

    Raises:
        UsageError: a name is none of these networks, or a network has no weights although others have.
        SdabenchError: what is named cannot be fetched.
    """
    models = list(dict.fromkeys(models))
    folders = [Path(text).expanduser() for text in said if Path(text).expanduser().is_dir()]
    named = dict(_named(text, option) for text in said if not Path(text).expanduser().is_dir())
    if len(folders) > 1:
        raise UsageError(f"{option} takes one folder, and NAME=SOURCE several times")
    for name in named:
        if name not in models:
            listing = f"{option} is for {', '.join(models[:5])}{', …' * (len(models) > 5)}"
            raise UsageError(unknown(f"network in {option}", name, models, listing))
    without = [model for model in models if model not in named] if said and not folders else []
    if without:
        others = f" and {len(without) - 1} more" if len(without) > 1 else ""
        raise UsageError(
            f"{option} names no weights for '{without[0]}'{others}; say {option} {without[0]}=SOURCE, or "
            "choose networks by --models"
        )
    return {model: _of_one(model, named, folders[0] if folders else None, fetch) for model in models if said}


def _of_one(model: str, named: Mapping[str, WeightsSource], folder: Path | None, fetch: bool) -> LocalWeights:
    if model in named:
        check_timm_network(named[model], model)
        local = locate(named[model])
        here = Path(named[model].name).is_dir() or local.path.is_file()
        return fetched(named[model], model).check() if fetch or here else local
    assert folder is not None
    candidates = [folder / f"{model}{suffix}" for suffix in SUFFIXES]
    there = next((path for path in candidates if path.is_file()), None)
    if there is None and _has_training(folder, model):
        return fetched(WeightsSource("file", str(folder)), model).check()
    return LocalWeights.of_file(there or candidates[0])


def _has_training(folder: Path, model: str) -> bool:
    from sdabench.engine.runs import TRAININGS

    return (folder / "run.json").is_file() or any((folder / TRAININGS).glob(f"{model}-*/run.json"))


def _named(text: str, option: str) -> tuple[str, WeightsSource]:
    name, equals, source = text.partition("=")
    if not equals or not name.isidentifier():
        raise UsageError(f"{option} {text} is no folder; for the weights of one network say NAME={text}")
    return name, parse(source)


def _say(line: str) -> None:
    if is_first_process():
        click.echo(line, err=True)
