"""``sdabench plot``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from sdabench.cli.help import Command, Group
from sdabench.cli.options import EXISTING_FILE, MODEL, PathName
from sdabench.cli.parameters import OneOf, ParsedType, argument, declared, option
from sdabench.errors import NothingMeasuredError, UsageError
from sdabench.files import atomic_write
from sdabench.registry.catalogue import load_catalogue

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".svg", ".pdf", ".png", ".csv")


def _tables() -> list[str]:
    return load_catalogue().tables


def _examples(*arguments: str) -> str:
    return "\n".join(["\b", "Examples:", *(f"  sdabench {each}" for each in arguments)])


def _figure_file(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{text} has no suffix of a figure; use {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise UsageError(f"{text} is a folder; name a file in it, such as {path}/figure.svg")
    return path


# fmt: off
Runs = Annotated[tuple[Path, ...], argument(
    nargs=-1, type=PathName(exists=True), metavar="[RUN]...")]
RequiredRuns = Annotated[tuple[Path, ...], argument(
    nargs=-1, required=True, type=PathName(exists=True), metavar="RUN...")]
Models = Annotated[tuple[str, ...], option(
    "--models", multiple=True, type=MODEL, default=("*",), show_default=False,
    help="Names or wildcards of networks  [default: all]")]
IouTypes = Annotated[Any, option(
    "--iou-type", type=click.Choice(["bbox", "segm"]), default="bbox", help="Match boxes or masks")]
Annotations = Annotated[Path | None, option(
    "--annotations", type=EXISTING_FILE,
    help="COCO annotations file of the evaluated images  [default: of their dataset]")]


@dataclass(frozen=True)
class Output:
    """Where a figure is written, and how it looks."""

    path: Annotated[Path, option(
        "-o", "--output", required=True, type=ParsedType(_figure_file, "FIGURE", files=True), group="Output",
        help="File to write: .svg, .pdf or .png, or .csv for the data")]
    dark: Annotated[bool, option("--dark", is_flag=True, group="Output", help="Draw on a dark background")]
    width: Annotated[Any, option(
        "--width", type=click.Choice(["one", "two"]), default="one", group="Output",
        help="Columns of a two-column paper that the figure spans: 3.4 or 7 inches")]
# fmt: on

    def write(self, module: Any, data: "pd.DataFrame") -> None:
        """Draw the frame of a module of :mod:`sdabench.report.figures`, or write it as CSV."""
        from sdabench.report.figures.style import Theme, save
        from sdabench.report.frames import to_csv

        if data.empty:
            raise NothingMeasuredError("there is nothing to draw; name other runs or networks")
        if self.path.suffix.lower() == ".csv":
            with atomic_write(self.path, "name another -o") as file:
                file.write(to_csv(data).encode(errors="surrogateescape"))
            return
        theme = Theme(self.dark, self.width)
        save(module.draw(data, theme), self.path, theme)


def _report_left_out(runs: Sequence[Path]) -> None:
    """Report on stderr which records of runs are not comparable with the paper, and why."""
    from sdabench.cli.table import report_left_out
    from sdabench.records.store import distinct_runs, records_of

    report_left_out([record for run in distinct_runs(runs) for record in records_of(run)])


@click.group("plot", cls=Group, epilog=_examples(
    "plot pareto -o pareto.pdf",
    "plot pareto --table detection --x params --dark -o detection.svg",
    "plot claims runs/classification -o claims.pdf",
    "plot curves runs/a runs/b --quantity loss -o curves.svg",
))  # fmt: skip
def command() -> None:
    """Draw a figure of a paper's numbers and of runs.

    Figures are SVG, PDF or PNG files of the width of one or two columns of a paper, or CSV files of their
    data. Output is reproducible: the same data give byte-identical files.
    """


def _kind(name: str, *examples: str) -> Callable[[Callable[..., None]], click.Command]:
    """Declare the command of a kind of figure."""
    return command.command(name, cls=Command, epilog=_examples(*examples))


@_kind(
    "pareto",
    "plot pareto -o pareto.pdf",
    "plot pareto runs/classification --x params -o pareto.svg",
    "plot pareto --table detection --y ap_s_pct --width two -o small.pdf",
    "bench 'sda_*' 'resnet*' --mode inference --json > speed.json",
    "plot pareto --x latency --bench speed.json -o latency.png",
)
@declared
def pareto(
    runs: Runs,
    table: Annotated[str, option(
        "--table", type=OneOf("table", _tables), default="classification-multiscale", metavar="TABLE",
        help="Table of the paper: classification-multiscale, classification-attention, detection or "
        "segmentation")],
    x: Annotated[Any, option(
        "--x", type=OneOf("x", ("params", "flops", "latency")), default="flops", help="Cost on the x-axis",
        metavar="[params|flops|latency]")],
    y: Annotated[str | None, option(
        "--y", metavar="METRIC", help="Metric, such as top5_pct or ap_s_pct  [default: the table's first]")],
    models: Models,
    bench: Annotated[Path | None, option(
        "--bench", type=EXISTING_FILE, help="Latencies: the output of 'sdabench bench --json'")],
    output: Output,
) -> None:  # fmt: skip
    """Draw accuracy or AP over parameters, FLOPs or latency.

    Hollow points are the paper's, filled ones are measured by RUN, the --output folders of runs. An arrow
    leads from each control, or else baseline, to its network with depth attention.
    """
    from sdabench.report.figures import pareto

    _report_left_out(runs)
    output.write(pareto, pareto.frame(table, runs, x, y, models, bench))


@_kind(
    "claims",
    "plot claims -o claims.pdf",
    "plot claims runs/classification --table classification-attention \\\n      -o attention.svg",
    "plot claims --metric ap_s_pct --metric ap_l_pct -o sizes.pdf",
)
@declared
def claims(
    runs: Runs,
    table: Annotated[str | None, option(
        "--table", type=OneOf("table", _tables), metavar="TABLE",
        help="Table of the paper, such as classification-attention or detection  [default: all]")],
    models: Models,
    metrics: Annotated[tuple[str, ...], option(
        "--metric", multiple=True, metavar="METRIC",
        help="Metric, such as top5_pct or ap_s_pct  [default: top1_pct and ap_pct]")],
    output: Output,
) -> None:  # fmt: skip
    """Draw the improvements that the tables imply as a forest plot.

    Diamonds are the paper's differences, filled marks those that RUN measured, by their outcome. Thick lines
    are confidence intervals of the expected difference, thin ones intervals of single trainings.
    """
    from sdabench.report.figures import claims

    _report_left_out(runs)
    output.write(claims, claims.frame(runs, table, models, metrics or claims.MAIN))


@_kind(
    "curves",
    "plot curves runs/classification -o curves.pdf",
    "plot curves runs/seed0 runs/seed1 --quantity loss \\\n      --quantity learning_rate -o losses.svg",
)
@declared
def curves(
    runs: RequiredRuns,
    models: Models,
    quantities: Annotated[tuple[str, ...], option(
        "--quantity", multiple=True, metavar="NAME",
        help="Logged quantity, such as loss or learning_rate  [default: loss and the first metric]")],
    output: Output,
) -> None:  # fmt: skip
    """Draw losses and validation metrics of trainings.

    RUN is the --output folder of train or run, or the folder of a single training. Seeds of a network have
    one color, and their mean is a thick line.
    """
    from sdabench.report.figures import curves

    output.write(curves, curves.frame(runs, models, quantities or None))


@_kind(
    "octaves",
    "plot octaves runs/synthetic -o octaves.pdf",
    "plot octaves runs/coco --models 'mask_rcnn_*' -o sizes.svg",
)
@declared
def octaves(
    runs: RequiredRuns,
    models: Models,
    objects: Annotated[Path | None, option(
        "--objects", type=EXISTING_FILE,
        help="File objects.csv of the generated dataset  [default: that of the record]")],
    output: Output,
) -> None:  # fmt: skip
    """Draw accuracy or AP by object size.

    Classifiers need a generated dataset, whose objects.csv has the octave of each object: 1/8 to 1/4, 1/4 to
    1/2, or 1/2 to 1 of the short side. For detectors, these are AP of small, medium and large objects.
    """
    from sdabench.report.figures import octaves

    output.write(octaves, octaves.frame(runs, models, objects))


@_kind("confusion", "plot confusion runs/synthetic --models sda_resnet86 -o confusion.pdf")
@declared
def confusion(runs: RequiredRuns, models: Models, output: Output) -> None:
    """Draw the confusion matrix of one classifier."""
    from sdabench.report.figures import confusion

    output.write(confusion, confusion.frame(runs, models))


@_kind("reliability", "plot reliability runs/a runs/b -o reliability.svg")
@declared
def reliability(runs: RequiredRuns, models: Models, output: Output) -> None:
    """Draw a reliability diagram with the expected calibration error."""
    from sdabench.report.figures import reliability

    output.write(reliability, reliability.frame(runs, models))


@_kind("classes", "plot classes runs/synthetic -o classes.pdf")
@declared
def classes(runs: RequiredRuns, models: Models, output: Output) -> None:
    """Draw the accuracy for each class.

    For more than 40 classes, these are the sorted accuracies.
    """
    from sdabench.report.figures import classes

    output.write(classes, classes.frame(runs, models))


@_kind(
    "pr",
    "plot pr runs/coco --models faster_rcnn_sda_resnet86 -o pr.pdf",
    "plot pr runs/coco --iou-type segm \\\n      --annotations instances_val2017.json -o masks.svg",
)
@declared
def pr(
    runs: RequiredRuns, models: Models, iou_type: IouTypes, annotations: Annotations, output: Output
) -> None:
    """Draw precision over recall of detectors.

    Precision is interpolated and averaged over categories as COCO does, so that its mean is the AP.
    """
    from sdabench.report.figures import pr

    output.write(pr, pr.frame(runs, models, iou_type, annotations))


@_kind(
    "errors",
    "plot errors runs/coco -o errors.pdf",
    "plot errors runs/coco --models 'faster_rcnn_*resnet*' -o errors.csv",
)
@declared
def errors(
    runs: RequiredRuns, models: Models, iou_type: IouTypes, annotations: Annotations, output: Output
) -> None:
    """Draw the types of errors of detectors, and how much AP50 each costs.

    The types are TIDE's (Bolya et al., ECCV 2020): classification, localization, both, duplicate, background
    and missed. Each is fixed on its own.
    """
    from sdabench.report.figures import errors

    output.write(errors, errors.frame(runs, models, iou_type, annotations))


@_kind("depth-weights", "plot depth-weights runs/inspect -o weights.pdf")
@declared
def depth_weights(runs: RequiredRuns, models: Models, output: Output) -> None:
    """Draw the depth weights of each block.

    RUN is the --output folder of 'sdabench inspect'. Marks are means over images and channels, and over
    runs.
    """
    from sdabench.report.figures import depth_weights

    output.write(depth_weights, depth_weights.frame(runs, models))


@_kind(
    "depth-by-size",
    "plot depth-by-size runs/inspect -o sizes.pdf",
    "plot depth-by-size runs/inspect --width two -o stages.pdf",
)
@declared
def depth_by_size(runs: RequiredRuns, models: Models, output: Output) -> None:
    """Draw attention depth by object size.

    RUN is the --output folder of 'sdabench inspect'. With --width two, each stage has a panel.
    """
    from sdabench.report.figures import depth_by_size

    output.write(depth_by_size, depth_by_size.frame(runs, models))


@_kind("receptive-fields", "plot receptive-fields runs/inspect --models '*resnet86' -o fields.pdf")
@declared
def receptive_fields(runs: RequiredRuns, models: Models, output: Output) -> None:
    """Draw the radius of effective receptive fields.

    RUN is the --output folder of 'sdabench inspect'. Thin lines include the gradient through depth weights.
    """
    from sdabench.report.figures import receptive_fields

    output.write(receptive_fields, receptive_fields.frame(runs, models))
