"""Resolve the values of ``--weights`` and ``--backbone-weights`` to local files."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from sdabench.cli.parameters import ParsedType, option
from sdabench.data.description import Preprocessing, Resizing
from sdabench.errors import SdabenchError, UsageError
from sdabench.processes import STARTED_BY, note
from sdabench.progress import progress
from sdabench.registry import unknown
from sdabench.registry.sources import canonical, file_name, is_source
from sdabench.weights.fetch.weights_cache import FetchDisplay
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
    from sdabench.training.job import AnyJob
    from sdabench.training.run_folder import TrainingRun

SOURCE_HELP = (
    "SOURCE is a file, the folder of a training run, torchvision:NAME, timm:NAME or URL#sha256=DIGEST"
)


WEIGHTS = ParsedType(parse, "SOURCE", files=True)
Wrapper = Annotated[str | None, option(
    "--wrapper", metavar="KEY", group="Data and weights", advanced=True,
    help="Key or prefix of the weights inside the checkpoint, e.g. ema; . for the top level")]  # fmt: skip


@dataclass(frozen=True)
class FetchedWeights:
    """Weights, or the error of fetching them. The job raises the error, so that a record stores it."""

    weights: LocalWeights
    run: "TrainingRun | None" = None
    error: SdabenchError | None = None

    def check(self) -> LocalWeights:
        """Return the weights, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.weights


def fetch_weights(source: WeightsSource, model: str | None, download: bool = True) -> FetchedWeights:
    """Fetch the file of a source; if it is the folder of a training run of ``model``, add that run.

    ``download`` is False for a dry run, which uses a cached file as it is and does not need one.
    """
    path = Path(source.name)
    if model is not None and source.kind == "file" and path.is_dir():
        from sdabench.training.run_folder import find_run, read_run

        folder = find_run(path, model)
        run = read_run(folder)
        return FetchedWeights(LocalWeights.of_file(folder / next(iter(run.weights.values()))), run)
    if model is not None:
        check_timm_network(source, model)
    local = locate(source)
    if not download and source.kind != "file":
        return FetchedWeights(local)
    try:
        return FetchedWeights(resolve(source, FetchDisplay(partial(progress, unit="bytes"), note), model))
    except SdabenchError as error:
        return FetchedWeights(local, error=error)


def report_other_protocol(weights: LocalWeights | None, own: Preprocessing | Resizing) -> None:
    """Report on stderr if the publisher of the weights measured them with another protocol."""
    published = weights and weights.published
    if not published or not isinstance(own, Preprocessing) or STARTED_BY in os.environ:
        return
    if difference := published.difference(own):
        accuracy = f"; {published.accuracy}" if published.accuracy else ""
        note(f"{difference}{accuracy}. 'sdabench eval --protocol source' uses the publisher's protocol.")


def report_class_order(job: "AnyJob") -> None:
    """Report on stderr if the outputs of the weights are not known to be the classes in their order."""
    if job.weights is not None and job.weights.is_file() and STARTED_BY not in os.environ:
        from sdabench.weights.classes import describe_order

        try:
            line = describe_order(job.weights, job.split)
        except SdabenchError:  # the job raises it, so that a record stores it
            return
        if line:
            note(line)


def weights_by_model(
    models: Iterable[str], values: Sequence[str], option: str, download: bool = True
) -> dict[str, LocalWeights]:
    """Return the weights of each network, from the values of an option.

    Args:
        values: a folder, ``NAME=SOURCE``, or both; ``NAME=SOURCE`` takes precedence. A file that is missing
            in the folder is an error of that network only.
        download: False for a dry run.

    Raises:
        UsageError: a name is not one of these networks, or weights are given for some networks only.
        SdabenchError: a source cannot be fetched.
    """
    models = list(dict.fromkeys(models))
    folders = [Path(text).expanduser() for text in values if Path(text).expanduser().is_dir()]
    named = dict(
        _parse_named(text, option, models) for text in values if not Path(text).expanduser().is_dir()
    )
    if len(folders) > 1:
        raise UsageError(f"{option} takes at most one folder; name other weights as NAME=SOURCE")
    for name in named:
        if name not in models:
            listing = f"this run has {', '.join(models[:5])}{', …' * (len(models) > 5)}"
            raise UsageError(f"{option}: {unknown('network', name, models, listing)}")
    without = [model for model in models if model not in named] if values and not folders else []
    if without:
        others = f" and {len(without) - 1} more" if len(without) > 1 else ""
        raise UsageError(
            f"{option} names no weights for '{without[0]}'{others}; add {option} {without[0]}=SOURCE, or "
            "select networks with --models"
        )
    folder = folders[0] if folders else None
    return {model: _weights_of(model, named, folder, download) for model in models if values}


def _weights_of(
    model: str, named: Mapping[str, WeightsSource], folder: Path | None, download: bool
) -> LocalWeights:
    if model in named:
        return fetch_weights(named[model], model, download).check()
    assert folder is not None
    candidates = [folder / f"{file_name(model)}{suffix}" for suffix in SUFFIXES]
    there = next((path for path in candidates if path.is_file()), None)
    if there is None and _has_training(folder, model):
        return fetch_weights(WeightsSource("file", str(folder)), model).check()
    return LocalWeights.of_file(there or candidates[0])


def _has_training(folder: Path, model: str) -> bool:
    from sdabench.training.run_folder import TRAININGS, training_folders

    trainings = training_folders(folder / TRAININGS, model)
    return any((each / "run.json").is_file() for each in (folder, *trainings))


def _parse_named(text: str, option: str, models: Sequence[str]) -> tuple[str, WeightsSource]:
    if is_source(text):
        for sign in (found.start() for found in re.finditer("=", text)):  # a name can have equals signs
            with suppress(UsageError):
                if (name := canonical(text[:sign])) in models:
                    return name, parse(text[sign + 1 :])
    name, equals, source = text.partition("=")
    if not equals or not (name.isidentifier() or is_source(name)):
        raise UsageError(f"{option} {text} is not a folder; for the weights of one network use NAME={text}")
    return name, parse(source)
