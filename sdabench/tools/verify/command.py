"""``sdabench data verify``."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from sdabench.cli.help import Command
from sdabench.cli.machine import choose_device
from sdabench.cli.options import COUNT, MODEL, PIXELS, WORKERS, AsJson, Offline, echo_json
from sdabench.cli.parameters import argument, declared, option
from sdabench.cli.sources import SOURCE_HELP, WEIGHTS, fetch_weights, report_other_protocol
from sdabench.cli.work import DATASET, ensure_generated
from sdabench.data.folders import ImageSplit
from sdabench.data.source import DataSource
from sdabench.data.split import SplitName
from sdabench.errors import SdabenchError, UsageError
from sdabench.progress import progress
from sdabench.records.spec import protocol_at
from sdabench.registry import load_registry
from sdabench.resources import cores
from sdabench.training.job import Machine, evaluation_job, standard_protocol
from sdabench.weights.weights_source import WeightsSource

if TYPE_CHECKING:
    from torch import nn

    from sdabench.data.split import Split
    from sdabench.tools.verify.file_inspection import FileFinding

EPILOG = """\b
Examples:
  sdabench data verify imagenet=PATH
  sdabench data verify imagenet=PATH --split val --complete
  sdabench data verify coco=PATH --json > report.json
  sdabench data verify synthetic=textures --split val --fingerprint SHA256
  sdabench data verify imagenet=PATH --split val --probe resnet50 --weights FILE

\b
Exit codes:
  0   sound, complete or not
  4   not what it claims to be: broken files, another fingerprint, --complete
      but incomplete, labels in another order
  5   the predictions of --probe do not depend on the classes
"""
FEW_IMAGES = 200  # this process decodes so many before DataLoader workers have started


@click.command("verify", cls=Command, epilog=EPILOG)
@declared
def command(
    source: Annotated[DataSource, argument(metavar="DATASET", type=DATASET)],
    names: Annotated[tuple[SplitName, ...], option(
        "--split", type=click.Choice(["train", "val"]), multiple=True,
        help="Split to verify; may be repeated  [default: all that exist]")],
    complete: Annotated[bool, option(
        "--complete", is_flag=True, help="Require the complete official splits")],
    fingerprint: Annotated[str | None, option(
        "--fingerprint", metavar="SHA256", help="Require this fingerprint of a split")],
    workers: Annotated[int | None, option(
        "--workers", type=WORKERS, group="Machine",
        help="Number of DataLoader workers  [default: all cores]")],
    model: Annotated[str | None, option(
        "--probe", type=MODEL, group="Label order",
        help="Test the order of the labels with this model")],
    weights: Annotated[WeightsSource | None, option(
        "--weights", type=WEIGHTS, group="Label order",
        help=f"Weights of that model. {SOURCE_HELP}")],
    probe_images: Annotated[int, option(
        "--probe-images", type=COUNT, default=5, group="Label order",
        help="Number of images of each class that the model predicts")],
    resolution: Annotated[int, option(
        "--resolution", type=PIXELS, default=224, group="Label order",
        help="Side of the model's input in pixels")],
    device: Annotated[str | None, option(
        "--device", metavar="DEVICE", group="Machine",
        help="Device of the model: cpu, cuda or cuda:N  [default: auto]")],
    _offline: Offline,
    as_json: AsJson,
) -> None:  # fmt: skip
    """Verify a dataset: counts, names, broken, duplicate and leaked files.

    DATASET is a value of --data, such as imagenet=PATH or folder=PATH. Every file is decoded. The report
    includes the fingerprint that records store.

    Class folders in another order than the classes of the weights give every image a wrong label. --probe
    detects this from the predictions of a trained model.
    """
    task = source.own_task()
    if (model is None) != (weights is None):
        raise UsageError("--probe MODEL and --weights FILE need each other; add the missing one")
    if model is not None and "detection" in (task, load_registry().model(model).task):
        raise UsageError("--probe needs a model and a dataset for classification")
    source = ensure_generated(source, task)
    names = tuple(dict.fromkeys(names)) or source.splits()
    fingerprint = _checked(fingerprint, names)
    splits = {name: source.read(name, task) for name in names}
    probe = None if model is None or weights is None else _probe(model, weights, splits, resolution)

    from sdabench.tools.verify.file_inspection import inspect_files
    from sdabench.tools.verify.reports import (
        DatasetReport,
        find_leakage,
        find_other_categories,
        verify_split,
    )

    files, reports = {}, []
    for name, split in splits.items():
        total = len(split.items)
        with progress(f"{split.dataset} {name}", total, "images") as advance:
            files[name] = inspect_files(split, _workers(workers, total), advance)
        reports.append(verify_split(split, files[name], official=complete, fingerprint=fingerprint))
    between = find_leakage(splits, files), find_other_categories(splits)
    report = DatasetReport(tuple(reports), tuple(filter(None, between)))
    if model is not None and probe is not None:
        from sdabench.tools.verify.label_order import first_of_each_class, infer_label_order
        from sdabench.weights.classes import with_classes_of

        name = "val" if "val" in splits else "train"
        network, path = probe
        images = first_of_each_class(_decodable(splits[name], files[name]), probe_images)
        images = with_classes_of(path, images)
        total = len(images.items)
        machine = Machine(device=choose_device(device), workers=_workers(workers, total))
        protocol = standard_protocol(source, "classification", resolution)
        job = evaluation_job(model, source, images, machine=machine, protocol=protocol)
        try:
            with progress(f"predictions of {model}", total, "images") as advance:
                report = replace(report, label_order=infer_label_order(network, job, advance))
        except SdabenchError as error:  # print the rest of the report
            report = replace(report, failure=error)
    if as_json:
        echo_json(report.as_json())
    else:
        from sdabench.tools.verify.view import print_report

        print_report(report)
    if report.error is not None:
        raise report.error


def _checked(fingerprint: str | None, names: Sequence[SplitName]) -> str | None:
    if fingerprint is None:
        return None
    if not re.fullmatch("[0-9a-fA-F]{64}", fingerprint):
        raise UsageError(f"--fingerprint {fingerprint} is not a sha256, which has 64 hexadecimal digits")
    if len(names) > 1:
        raise UsageError("--fingerprint applies to one split; add --split train or --split val")
    return fingerprint.lower()


def _probe(
    model: str, source: WeightsSource, splits: "dict[SplitName, Split]", resolution: int
) -> "tuple[nn.Module, Path]":
    """Return the network with its weights, and their file."""
    from sdabench import create_model, load_weights
    from sdabench.weights.classes import with_classes_of

    weights = fetch_weights(source, model).check()
    report_other_protocol(weights, protocol_at(resolution, "classification").preprocessing)
    split = splits.get("val") or splits["train"]
    assert isinstance(split, ImageSplit)
    classes = with_classes_of(weights.path, split).num_classes
    return load_weights(create_model(model, num_classes=classes), weights.path), weights.path


def _workers(workers: int | None, images: int) -> int:
    """Return the number of DataLoader workers, by default all cores if there are many images."""
    if workers is not None:
        return workers
    return cores() if images > FEW_IMAGES else 0


def _decodable(split: "Split", files: "Sequence[FileFinding]") -> ImageSplit:
    """Return the split without broken files."""
    assert isinstance(split, ImageSplit)
    items = (item for item, file in zip(split.items, files, strict=True) if file.broken is None)
    return replace(split, items=tuple(items))
