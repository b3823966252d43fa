"""``sdabench data``: commands about datasets."""

from importlib import import_module
from pathlib import Path

import click

from sdabench.cli.options import progress

EPILOG = """\b
Examples:
  sdabench data synth --out textures
  sdabench data synth --out textures20 --classes 20 --train 500 --size 256
  sdabench data synth --out shapes --task detection --train 200 --val 50
  sdabench train resnet50 --data synthetic=textures
"""


@click.group("data")
def command() -> None:
    """Generate datasets, and verify them."""


command.add_command(import_module("sdabench.tools.verify.command").command)  # tools are loaded by name


@command.command("synth", epilog=EPILOG)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="A new folder.")
@click.option("--task", type=click.Choice(["classification", "detection"]), default="classification")
@click.option("--classes", type=click.IntRange(2, 20), default=10, show_default=True)
@click.option(
    "--train",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Images for training, of each class; for detection in all.",
)
@click.option(
    "--val",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Images for validation, likewise.",
)
@click.option(
    "--size",
    type=click.IntRange(32, 4096),
    help="Pixels of a side, give or take an eighth.  [default: 160; for detection 480]",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
def synth(out: Path, task: str, classes: int, train: int, val: int, size: int | None, seed: int) -> None:
    """Generate images of textured objects of many sizes, from a seed.

    For classification in ImageNet's layout, with each object's place and size in objects.csv. For
    detection in COCO's layout and JSON: polygons, crowds as RLE, small to large objects, images without
    any, grey ones, and category ids with gaps.
    """
    from sdabench.data.synthetic import write_dataset
    from sdabench.data.synthetic.classification import ClassificationPlan
    from sdabench.data.synthetic.detection import DetectionPlan
    from sdabench.errors import OutputError

    plan: ClassificationPlan | DetectionPlan
    if task == "classification":
        plan = ClassificationPlan(classes, train, val, size or 160, seed)
    else:
        plan = DetectionPlan(classes, train, val, size or 480, seed)
    try:
        with progress(f"{task} images", plan.total, "images") as advance:
            write_dataset(out, plan, advance)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}; name another --out") from None
    click.echo(f"{plan.total:,} images in {out}; use them with --data synthetic={out}")
