"""``sdabench inspect``."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from sdabench.cli.help import Command
from sdabench.cli.machine import choose_device, report_how_to_resume
from sdabench.cli.options import (
    COUNT,
    FOLDER,
    FRAME_FORMATS,
    MODEL,
    PIXELS,
    SEED,
    AsJson,
    Offline,
    check_formats,
    echo_frame,
    echo_json,
    format_option,
    output_option,
    show,
)
from sdabench.cli.parameters import argument, declared, option
from sdabench.cli.sources import fetch_weights
from sdabench.cli.work import DATASET, ensure_generated
from sdabench.data.source import DataSource
from sdabench.errors import NothingMeasuredError, UsageError
from sdabench.progress import progress
from sdabench.registry import load_registry

if TYPE_CHECKING:
    import pandas as pd

    from sdabench.analysis.inspection import Inspection
    from sdabench.analysis.measure import Settings
    from sdabench.analysis.subjects import Subject

TABLES = ("depth-weights", "depth-by-size", "depth-slopes", "radius-slopes", "receptive-fields")
EPILOG = """\b
Examples:
  sdabench inspect sda_resnet86 --controls
  sdabench inspect sda_resnet86 --weights runs/train -o runs/train
  sdabench inspect sda_resnet50 --weights runs/seed0 --weights runs/seed1 \\
      --data synthetic --images 500
  sdabench inspect sda_resnet86 --data imagenet=PATH --boxes BOXES
  sdabench inspect 'sda_*86' --controls --fields stages \\
      --table receptive-fields --format csv

\b
Output files:
  OUTPUT/inspection.json   what was measured, for plot and report
  OUTPUT/*.svg             figures
  OUTPUT/grad-cam/*.png    overlays of --grad-cam
"""


@click.command("inspect", cls=Command, epilog=EPILOG)
@declared
def command(
    patterns: Annotated[tuple[str, ...], argument(nargs=-1, required=True, type=MODEL, metavar="NAME...")],
    controls: Annotated[bool, option(
        "--controls", is_flag=True, group="Networks",
        help="Inspect the control of each network too: the same without depth attention")],
    sources: Annotated[tuple[str, ...], option(
        "--weights", multiple=True, metavar="[NAME=]SOURCE", group="Data and weights",
        help="Weights, as for eval (repeatable), or a folder with trainings of these networks; untrained by "
        "default")],
    trained_only: Annotated[bool, option(
        "--trained-only", is_flag=True, group="Networks", advanced=True,
        help="Leave out the untrained networks beside those with weights")],
    data: Annotated[DataSource | None, option(
        "--data", type=DATASET, group="Data and weights",
        help="Dataset, as for eval  [default: that of the training run; without weights, noise, for "
        "receptive fields only]")],
    boxes: Annotated[Path | None, option(
        "--boxes", type=FOLDER, group="Data and weights", advanced=True,
        help="Folder with the XML files of ImageNet's boxes  [default: beside the images, as at Kaggle]")],
    images: Annotated[int, option(
        "--images", type=COUNT, default=200, group="Data and weights",
        help="Number of images whose depth weights are measured")],
    fields: Annotated[Any, option(
        "--fields", type=click.Choice(["blocks", "stages", "off"]), default="blocks",
        group="Receptive fields", help="Measure the fields of blocks and stages, of stages, or none")],
    field_images: Annotated[int, option(
        "--field-images", type=COUNT, default=4, group="Receptive fields", advanced=True,
        help="Number of images of which a field is the mean; 20 or more give --table radius-slopes")],
    resolution: Annotated[int | None, option(
        "--resolution", type=PIXELS, group="Protocol",
        help="Crop size in pixels, or the short side for detectors")],
    seed: Annotated[int, option(
        "--seed", type=SEED, default=0, group="Protocol", advanced=True,
        help="Random seed of untrained weights")],
    device: Annotated[str | None, option(
        "--device", metavar="DEVICE", group="Machine", help="Device: cpu, cuda or cuda:N  [default: auto]")],
    _offline: Offline,
    output: Annotated[Path | None, output_option(None)],
    grad_cam: Annotated[int | None, option(
        "--grad-cam", type=COUNT, metavar="N", group="Output",
        help="Write Grad-CAM overlays of N images (needs 'sdabench[insight]')")],
    table: Annotated[str | None, option(
        "--table", type=click.Choice(TABLES), metavar="TABLE", group="Output",
        help=f"Print only one table, with all columns in CSV: {', '.join(TABLES[:-1])} or {TABLES[-1]}")],
    form: Annotated[str, format_option()],
    as_json: AsJson,
) -> None:  # fmt: skip
    """Inspect depth weights and receptive fields of networks.

    NAME is a network or a wildcard. Measured are the weights of depth attention by block, how they follow the
    size of the object (generated data, COCO, ImageNet with boxes), and the effective receptive field of each
    block and stage. Several weights of a network give intervals over runs. Untrained networks use the
    batch-norm statistics of the images.

    Rerun the same command with its --output to resume: networks that are done are skipped.
    """
    check_formats(form, as_json)
    if form in FRAME_FORMATS and table is None:
        raise UsageError(f"--format {form} prints one table; add --table {TABLES[0]}, or use --json")
    if grad_cam is not None and (output is None or (data is None and not sources)):
        raise UsageError("--grad-cam needs images and a folder for them; add --data and --output")
    names = _names(patterns, controls)
    if data is not None:
        data = ensure_generated(data, load_registry().model(names[0]).task)
    from sdabench.analysis.inspect import inspect_all
    from sdabench.analysis.measure import NOISE_SIDE, Settings, work
    from sdabench.analysis.saliency import check_grad_cam
    from sdabench.analysis.subjects import find_weights, make_subjects

    given = [
        each
        for text in sources
        for each in find_weights(text, names, lambda source, model: fetch_weights(source, model).check())
    ]
    subjects = make_subjects(
        names, given, data, images=images, resolution=resolution, untrained=not trained_only, seed=seed
    )
    if grad_cam is not None:
        check_grad_cam(subjects)
    settings = Settings(images, fields, field_images, resolution or NOISE_SIDE, boxes)
    device = choose_device(device)
    total = sum(work(subject, settings) for subject in subjects)
    resumable = nullcontext() if output is None else report_how_to_resume(output)
    with resumable, progress("inspecting", total, "images") as advance:
        inspection = inspect_all(subjects, settings, device, output, advance)
    _print(inspection, form, table, as_json)
    if output is not None:
        _write_figures(inspection, output)
        if grad_cam is not None:
            _write_overlays(subjects, settings, device, output, grad_cam)


def _names(patterns: tuple[str, ...], controls: bool) -> list[str]:
    """Return the selected networks, with ``controls`` each followed by its control."""
    registry = load_registry()
    names = dict.fromkeys(registry.select(patterns))
    if controls:
        pairs = [(name, registry.model(name).like_for_like) for name in names]
        names = dict.fromkeys(each for pair in pairs for each in pair if each)
    return list(names)


def _print(inspection: "Inspection", form: str, table: str | None, as_json: bool) -> None:
    from sdabench.report import inspection as frames
    from sdabench.tools.inspect import view

    made: dict[str, pd.DataFrame] = {}
    for name in TABLES if table is None else [table]:
        made[name] = getattr(frames, name.replace("-", "_"))(inspection)
    if all(frame.empty for frame in made.values()):
        step = "inspect a network with depth attention on a dataset with --data, or measure --fields"
        if table == "radius-slopes":
            step = "it needs depth attention, and the --fields of --field-images 20 or more"
        raise NothingMeasuredError(f"nothing was measured for {table or 'these networks'}; {step}")
    if as_json:
        echo_json({name.replace("-", "_"): _rows(frame) for name, frame in made.items()})
    elif form in FRAME_FORMATS:
        echo_frame(next(iter(made.values())), form)
    else:
        sheets = {name: getattr(view, f"{name.replace('-', '_')}_sheet") for name in made}
        show(*(sheets[name](frame) for name, frame in made.items() if not frame.empty), form=form)


def _rows(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    from sdabench.report.figures.names import row_dicts

    return row_dicts(frame)


def _write_figures(inspection: "Inspection", output: Path) -> None:
    """Write a figure of each kind that the inspection has data for."""
    from sdabench.report.figures import depth_by_size, depth_weights, receptive_fields
    from sdabench.report.figures.style import Theme, save

    theme = Theme(columns="two")
    for module in (depth_weights, depth_by_size, receptive_fields):
        data = module.frame(inspection)
        if not data.empty:
            name = module.__name__.rpartition(".")[2].replace("_", "-")
            save(module.draw(data, theme), output / f"{name}.svg", theme)


def _write_overlays(
    subjects: "list[Subject]", settings: "Settings", device: str, output: Path, number: int
) -> None:
    from sdabench.analysis.saliency import write_overlays

    with progress("Grad-CAM", len(subjects) * number, "images") as advance:
        write_overlays(subjects, settings, output / "grad-cam", number, device, advance)
