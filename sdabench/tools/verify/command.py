"""``sdabench data verify``."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from sdabench.cli.machine import choose_device, offline_option
from sdabench.cli.options import ModelName, echo_json, json_option, progress
from sdabench.cli.sources import SOURCE_HELP, WeightsOption, fetched, tell_difference
from sdabench.cli.work import DataOption, located
from sdabench.data.folders import ImageSplit
from sdabench.data.source import DataSource
from sdabench.data.split import SplitName
from sdabench.errors import DataError, NothingMeasuredError, SdabenchError, UsageError
from sdabench.records.spec import protocol_at
from sdabench.registry import load_registry
from sdabench.resources import cores
from sdabench.training.job import ClassificationJob, Machine, evaluation_job
from sdabench.weights.source import WeightsSource

if TYPE_CHECKING:
    from torch import nn

    from sdabench.data.official import Issue
    from sdabench.data.split import Split
    from sdabench.tools.verify.file_findings import FileFinding
    from sdabench.tools.verify.label_order import LabelOrder
    from sdabench.tools.verify.split_report import SplitReport

EPILOG = """\b
Examples:
  sdabench data verify imagenet=PATH
  sdabench data verify imagenet=PATH --split val --complete
  sdabench data verify coco=PATH --json > report.json
  sdabench data verify synthetic=textures --split val --fingerprint SHA256
  sdabench data verify imagenet=PATH --split val --probe resnet50 --weights FILE

\b
Exit codes: 0 sound, though it may be a part only; 4 the data are not what they
claim (broken files, another fingerprint, --complete and not whole, labels in
another order); 5 the probe's predictions do not follow the classes.
"""
FEW_IMAGES = 200  # which one process has decoded before others are there


@click.command("verify", epilog=EPILOG)
@click.argument("source", metavar="DATASET", type=DataOption())
@click.option(
    "--split",
    "names",
    type=click.Choice(["train", "val"]),
    multiple=True,
    help="May be given twice.  [default: every one that is there]",
)
@click.option("--complete", is_flag=True, help="Claims that each is the whole official split.")
@click.option("--fingerprint", metavar="SHA256", help="Claims that a split has this fingerprint.")
@click.option("--workers", type=click.IntRange(min=0), help="Processes that decode.  [default: all cores]")
@click.option("--probe", "model", type=ModelName(), help="Asks this network for the order of the labels.")
@click.option("--weights", type=WeightsOption(), help="Of that network. " + SOURCE_HELP)
@click.option(
    "--probe-images",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Images of each class that it looks at.",
)
@click.option(
    "--resolution",
    type=click.IntRange(min=32),
    default=224,
    show_default=True,
    help="Side of its crop, in pixels.",
)
@click.option("--device", help="Where it computes: cpu, cuda or cuda:N.  [default: cuda where there is one]")
@offline_option
@json_option
def command(
    source: DataSource,
    names: tuple[SplitName, ...],
    complete: bool,
    fingerprint: str | None,
    workers: int | None,
    model: str | None,
    weights: WeightsSource | None,
    probe_images: int,
    resolution: int,
    device: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """See whether a dataset is what it claims to be.

    DATASET is imagenet=PATH, coco=PATH, synthetic=PATH or synthetic. Every file is decoded; what is broken,
    doubled, both in training and validation, or not as in the official dataset is named, and the
    fingerprint printed that records have too.

    Which class an image belongs to, no file says. --probe asks a network that was trained on such classes
    whether the labels are in the order of its weights.
    """
    task = source.own_task()
    if (model is None) != (weights is None):
        raise UsageError("--probe and --weights go together: a network, and the file of its weights")
    if model is not None and "detection" in (task, load_registry().model(model).task):
        raise UsageError("--probe is about classes: it takes a network and a dataset for classification")
    source = located(source, task)
    names = tuple(dict.fromkeys(names)) or source.splits()
    claimed = _digest(fingerprint, names)
    splits = {name: source.read(name, task) for name in names}
    network = None if model is None or weights is None else _network(model, weights, splits, resolution)

    files = _inspected(splits, workers)
    reports, leaks = _reports(splits, files, complete, claimed)
    order, failure = None, None
    if model is not None and network is not None:
        name: SplitName = "val" if "val" in splits else "train"
        useful = _useful(workers, probe_images * splits[name].classes)
        job = evaluation_job(
            model,
            source,
            _sound(splits[name], files[name]),
            machine=Machine(device=choose_device(device), workers=useful),
            protocol=protocol_at(resolution, "classification"),
        )
        try:
            order = _probed(network, job, probe_images)
        except SdabenchError as error:  # what was found before it is shown all the same
            failure = error
    verdict = _verdict(reports, order, failure)
    if as_json:
        echo_json(
            {
                "sound": verdict is None,
                "splits": [report.as_json() for report in reports],
                "remarks": [leak.as_json() for leak in leaks],
                "probe": order and order.as_json(),
            }
        )
    else:
        _show(reports, leaks, order)
    if verdict is not None:
        raise verdict


def _digest(text: str | None, names: Sequence[SplitName]) -> str | None:
    if text is None:
        return None
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise UsageError(f"--fingerprint {text} is no sha256, which has 64 hexadecimal digits")
    if len(names) > 1:
        raise UsageError("--fingerprint is of one split; say which, with --split train or --split val")
    return text.lower()


def _network(
    model: str, source: WeightsSource, splits: "dict[SplitName, Split]", resolution: int
) -> "nn.Module":
    from sdabench import create_model, load_weights

    classes = next(iter(splits.values())).num_classes
    weights = fetched(source, model).check()
    tell_difference(weights, protocol_at(resolution, "classification").preprocessing)
    return load_weights(create_model(model, num_classes=classes), weights.path)


def _useful(workers: int | None, images: int) -> int:
    """How many processes; by default all cores, where there are images enough to keep them busy."""
    if workers is not None:
        return workers
    return cores() if images > FEW_IMAGES else 0


def _inspected(splits: "dict[SplitName, Split]", workers: int | None) -> "dict[SplitName, list[FileFinding]]":
    from sdabench.tools.verify.file_loading import inspect_files

    files = {}
    for name, split in splits.items():
        with progress(f"{split.dataset} {name}", len(split.items), "images") as advance:
            files[name] = inspect_files(split, _useful(workers, len(split.items)), advance)
    return files


def _reports(
    splits: "dict[SplitName, Split]",
    files: "dict[SplitName, list[FileFinding]]",
    complete: bool,
    fingerprint: str | None,
) -> "tuple[list[SplitReport], list[Issue]]":
    from sdabench.tools.verify.split_report import leakage, verify_split

    reports = [
        verify_split(split, files[name], official=complete, fingerprint=fingerprint)
        for name, split in splits.items()
    ]
    if len(splits) < 2:
        return reports, []
    leak = leakage(splits["train"], files["train"], splits["val"], files["val"])
    return reports, [leak] if leak else []


def _sound(split: "Split", files: "Sequence[FileFinding]") -> ImageSplit:
    """The split without its broken files."""
    assert isinstance(split, ImageSplit)
    items = (item for item, file in zip(split.items, files, strict=True) if file.broken is None)
    return replace(split, items=tuple(items))


def _probed(network: "nn.Module", job: ClassificationJob, images: int) -> "LabelOrder":
    from sdabench.tools.verify.label_order import few_of_each_class, probe

    total = len(few_of_each_class(job.split, images).items)
    with progress(f"probe by {job.model}", total, "images") as advance:
        return probe(network, job, images, advance)


def _verdict(
    reports: "Sequence[SplitReport]", order: "LabelOrder | None", failure: SdabenchError | None
) -> SdabenchError | None:
    """The error that the command ends with, after everything was shown."""
    errors = [f"{report.dataset.split}: {error.words}" for report in reports for error in report.errors]
    if order is not None and order.order == "other":
        errors.append(order.words)
    if errors:
        rest = f" (the first of {len(errors)} errors)" if len(errors) > 1 else ""
        return DataError(errors[0] + rest + (f"; the probe failed: {failure}" if failure else ""))
    if order is not None and order.order == "unknown":
        return NothingMeasuredError(order.words)
    return failure


def _show(reports: "Sequence[SplitReport]", leaks: "Sequence[Issue]", order: "LabelOrder | None") -> None:
    from sdabench.tools.verify.view import print_order, print_remarks, print_split

    for report in reports:
        print_split(report)
    print_remarks(leaks)
    if order is not None:
        print_order(order)
