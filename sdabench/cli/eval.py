"""``sdabench eval``."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from sdabench.cli.help import Command
from sdabench.cli.machine import MachineOptions, execute_job, show_plan
from sdabench.cli.options import COUNT, FILE, MODEL, AsJson, DryRun, echo_each, output_option, show
from sdabench.cli.parameters import argument, declared, option
from sdabench.cli.sources import (
    SOURCE_HELP,
    WEIGHTS,
    Wrapper,
    fetch_weights,
    report_class_order,
    report_other_protocol,
)
from sdabench.cli.work import (
    DATASET,
    PreprocessingOptions,
    ProtocolOptions,
    SkipBroken,
    ensure_generated,
    report_annotations,
)
from sdabench.data.source import FORMS, DataSource
from sdabench.errors import UsageError
from sdabench.processes import note
from sdabench.registry import load_registry
from sdabench.registry.sources import is_source
from sdabench.terminal import echo
from sdabench.training.job import evaluation_job, standard_protocol
from sdabench.weights.local import LocalWeights
from sdabench.weights.weights_source import WeightsSource, preprocessing_of

if TYPE_CHECKING:
    from sdabench.data.split import Split
    from sdabench.records.record import Record

EPILOG = """\b
Examples:
  sdabench eval resnet50 --data imagenet=PATH --weights resnet50.pth
  sdabench eval resnet50 --data imagenet=PATH \\
      --weights torchvision:ResNet50_Weights.IMAGENET1K_V2 --protocol source
  sdabench eval sda_resnet86 --data imagenet=PATH --amp bf16 --json
  sdabench eval mask_rcnn_sda_resnet86 --data coco=PATH --weights FILE
  sdabench eval resnet50 --weights runs/train

\b
Output files:
  OUTPUT/records.jsonl    record of the evaluation
  OUTPUT/predictions/     predictions of each image; COCO results for detectors
"""


@click.command("eval", cls=Command, epilog=EPILOG)
@declared
def command(
    name: Annotated[str, argument(type=MODEL)],
    data: Annotated[DataSource | None, option(
        "--data", type=DATASET, group="Data and weights",
        help="Dataset: imagenet, folder, parquet, webdataset, cifar10, cifar100, fashion-mnist or coco, with "
        "=PATH, or synthetic  [default for weights of a training run: the dataset of that run]")],
    limit: Annotated[int | None, option(
        "--limit", type=COUNT, group="Data and weights",
        help="Evaluate only this many images, spread over the classes; the result is not compared with the "
        "paper")],
    labels: Annotated[Path | None, option(
        "--labels", type=FILE, group="Data and weights", advanced=True,
        help="Measure ReaL accuracy too, with the labels in real.json")],
    source: Annotated[WeightsSource | None, option(
        "--weights", type=WEIGHTS, group="Data and weights",
        help=f"Weights to evaluate; random weights by default. {SOURCE_HELP}")],
    wrapper: Wrapper,
    protocol: ProtocolOptions,
    preprocessing: PreprocessingOptions,
    skip_broken: SkipBroken,
    options: MachineOptions,
    output: Annotated[Path, output_option(Path("runs/eval"))],
    per_class: Annotated[bool, option(
        "--per-class", is_flag=True, group="Output", help="Show a detector's AP of each category too")],
    dry_run: DryRun,
    as_json: AsJson,
) -> None:  # fmt: skip
    """Evaluate one network.

    Classification: top-1 and top-5 on ImageNet's validation images, with the standard preprocessing: bilinear
    resize to 8/7 of the crop size (256 for 224), center crop. --protocol source uses that of the publisher
    of the weights; such a result is not compared with the paper. A folder with only some of the 1000
    classes is evaluated with the correct labels.

    Detection: COCO AP of boxes and masks, with the short side resized to 800 pixels and the long side to at
    most 1333.

    Downloaded weights are cached, and verified before each use.
    """
    task = load_registry().model(name).task  # report an unknown name before anything is read
    if per_class and (as_json or task != "detection"):
        raise UsageError("--per-class needs a detector, and no --json; 'sdabench rescore' takes both options")
    if wrapper is not None and source is None:
        raise UsageError("--wrapper names an entry of the file of --weights; add --weights SOURCE")
    found = None if source is None else fetch_weights(source, name, download=not dry_run)
    weights, run = (replace(found.weights, wrapper=wrapper), found.run) if found else (None, None)
    if weights and weights.published is None and run is None and is_source(name):
        weights = replace(weights, published=preprocessing_of(name))
    own = run.spec if run and data is None else None  # a training run is evaluated on its own dataset
    if data is None:
        if own is None:
            if found:
                found.check()
            raise UsageError(f"name the dataset: --data {FORMS}; only a training run has a default dataset")
        data = DataSource.parse(own.data)
    data = ensure_generated(data, task)
    split = data.read("val", task).subset(own.recipe.val_images if own and own.recipe else None)
    split = split.subset(limit)
    if labels is not None:
        _check_labels(labels, split)
    base = preprocessing.protocol_of_source(weights, run, task, name)
    job = evaluation_job(
        name,
        data,
        split,
        weights,
        machine=options.machine(len(split.items), batch_size=protocol.batch_size),
        protocol=preprocessing.override(protocol.protocol(task, base or standard_protocol(data, task))),
        seed=protocol.seed,
        training=run.training if run else None,
        skip_broken=skip_broken,
        labels=labels,
        **(run.provenance if run else {}),
    )
    report_other_protocol(weights, job.spec.protocol.preprocessing)
    report_class_order(job)
    report_annotations(split)
    if dry_run:
        from sdabench.runs.suite import Suite

        if found is not None:
            found.check()
        show_plan(Suite([job], output), as_json, again=True)
        return
    records = execute_job(job, output, lambda: found and found.check())
    if not records:
        return
    from sdabench.report.summary import at_chance

    if at_chance(records[0], classes := job.split.num_classes):
        note(
            f"The accuracy is near chance ({100 / classes:.3g} %): the labels may be in another "
            "order than the classes of the weights, or the preprocessing may be another; 'sdabench data "
            f"verify {data} --split val --probe {name} --weights FILE' tests the order."
        )
    if as_json:
        echo_each(records)
        return
    from sdabench.records.store import RECORDS

    _print_results(records, weights)
    if per_class:
        from sdabench.records.rescoring import StoredRecord, match_detections
        from sdabench.report.coco_scores import class_sheet

        for record in records:
            matched = match_detections(StoredRecord(record, output), None)
            show(class_sheet(matched.score()), form="terminal")
    echo(f"Record: {output / RECORDS}")


def _check_labels(labels: Path, split: "Split") -> None:
    """Check a file of ReaL labels, and that the images are those that it is for, before any prediction."""
    from sdabench.data.official import val_number
    from sdabench.data.real_labels import read_real_labels

    read_real_labels(labels)
    other = next((item.path for item in split.items if val_number(item.path) is None), None)
    if split.dataset != "imagenet" or other:
        what = f"{other} has another name" if split.dataset == "imagenet" else f"these are {split.dataset}'s"
        raise UsageError(f"--labels is for ImageNet's official validation images, and {what}; leave it out")


def _print_results(records: "Sequence[Record]", weights: LocalWeights | None) -> None:
    """Print the metrics, and what else a reader must know of the weights and the protocol."""
    from sdabench.report.summary import describe_metrics, describe_protocol

    for record in records:
        echo(describe_metrics(record))
    first = records[0]
    if first.protocol is not None and not first.preprocessed_as_standard:
        protocol = describe_protocol(first.protocol)
        echo(f"Protocol: {protocol}; only the standard one is compared with the paper.")
    if weights and weights.published and weights.published.accuracy:
        echo(f"{weights.published.accuracy}, which is not measured here.")
    if first.weights.entry is not None:
        echo(f"The weights are the entry '{first.weights.entry}' of the file.")
    if not first.weights.trained:
        echo("The weights are random: this accuracy is at chance and does not measure the network.")
