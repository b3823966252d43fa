"""``sdabench data``."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import click

from sdabench.cli.help import Command, Group
from sdabench.cli.options import COUNT, FOLDER, SEED
from sdabench.cli.parameters import argument, declared, option
from sdabench.cli.work import DATASET
from sdabench.data.source import DataSource
from sdabench.progress import progress
from sdabench.terminal import echo

EPILOG = """\b
Examples:
  sdabench data synth --out textures
  sdabench data verify imagenet=PATH --split val --complete
  sdabench data sort FLAT imagenet/val
  sdabench data split flowers flowers-split --val 0.2
  sdabench data shards imagenet=PATH shards
"""
SPLIT_EPILOG = """\b
Examples:
  sdabench data split flowers flowers-split
  sdabench train resnet50 --data folder=flowers-split
"""
SHARDS_EPILOG = """\b
Examples:
  sdabench data shards imagenet=PATH shards
  sdabench train sda_resnet50 --data webdataset=shards
"""
SORT_EPILOG = """\b
Examples:
  sdabench data sort ILSVRC2012_img_val imagenet/val
  sdabench eval resnet50 --data imagenet=imagenet --weights FILE
"""
SYNTH_EPILOG = """\b
Examples:
  sdabench data synth --out textures
  sdabench data synth --out textures20 --classes 20 --train 500 --size 256
  sdabench data synth --out shapes --task detection --train 200 --val 50
  sdabench train resnet50 --data synthetic=textures
"""


@click.group("data", cls=Group, epilog=EPILOG)
def command() -> None:
    """Generate, verify, sort, split and pack datasets."""


command.add_command(import_module("sdabench.tools.verify.command").command)  # tools are loaded by name


@command.command("synth", cls=Command, epilog=SYNTH_EPILOG)
@declared
def synth(
    out: Annotated[Path, option("--out", type=FOLDER, required=True, help="New or empty dataset folder")],
    task: Annotated[str, option(
        "--task", type=click.Choice(["classification", "detection"]), default="classification",
        help="Task of the dataset")],
    classes: Annotated[int, option(
        "--classes", type=click.IntRange(2, 20), default=10, help="Number of classes")],
    train: Annotated[int, option(
        "--train", type=COUNT, default=200,
        help="Number of training images: per class, or in total for detection")],
    val: Annotated[int, option(
        "--val", type=COUNT, default=50,
        help="Number of validation images: per class, or in total for detection")],
    size: Annotated[int | None, option(
        "--size", type=click.IntRange(32, 4096),
        help="Mean side length of the images in pixels; sides vary by an eighth  [default: 160; 480 for "
        "detection]")],
    names: Annotated[tuple[str, ...], option(
        "--class", multiple=True, metavar="NAME", advanced=True,
        help="Class to generate, e.g. disc_rings; classification only  [default: the first --classes]")],
    octaves: Annotated[tuple[int, ...], option(
        "--octave", type=click.IntRange(-8, -1), multiple=True, advanced=True,
        help="Object sizes: -1 for 1/2 to 1 of the short side, -2 for 1/4 to 1/2, and so on; "
        "classification only  [default: -1, -2, -3]")],
    seed: Annotated[int, option("--seed", type=SEED, default=0, help="Random seed of the images")],
) -> None:  # fmt: skip
    """Generate images of textured objects of many sizes.

    Images are real JPEG files and depend only on the seed. For classification, they have ImageNet's layout,
    with the position and size of each object in objects.csv. For detection, they have COCO's layout and JSON
    format: polygons, crowds as RLE, small to large objects, images without objects, grayscale images, and
    category ids with gaps.
    """
    from sdabench.data.synthetic import write_dataset
    from sdabench.data.synthetic.classification import OCTAVES, ClassificationPlan
    from sdabench.data.synthetic.detection import DetectionPlan
    from sdabench.errors import UsageError
    from sdabench.files import write_errors

    plan: ClassificationPlan | DetectionPlan
    if task == "classification":
        plan = ClassificationPlan(names or classes, train, val, size or 160, seed, octaves=octaves or OCTAVES)
    elif names or octaves:
        raise UsageError("--class and --octave are for --task classification; leave them out")
    else:
        plan = DetectionPlan(classes, train, val, size or 480, seed)
    with (
        write_errors(out, "choose another --out"),
        progress(f"{task} images", plan.total, "images") as advance,
    ):
        write_dataset(out, plan, advance)
    echo(f"{plan.total:,} images in {out}; use them with --data synthetic={out}")


@command.command("sort", cls=Command, epilog=SORT_EPILOG)
@declared
def sort(
    flat: Annotated[Path, argument(type=FOLDER)],
    folder: Annotated[Path, argument(metavar="DEST", type=FOLDER)],
) -> None:
    """Sort ImageNet's validation images into class folders.

    FLAT has ILSVRC2012_val_00000001.JPEG and so on, as downloaded. They are linked to DEST/WNID/, or copied
    where hard links are impossible; nothing in FLAT changes, and no file is replaced. Rerun the same command
    to continue after an interruption. This is for other programs: sdabench reads FLAT itself, too.
    """
    from sdabench.data.imagenet import read_imagenet
    from sdabench.data.sorting import sort_images

    split = read_imagenet(flat)
    with progress("sorted images", len(split.items), "images") as advance:
        linked, copied, there = sort_images(split, folder, advance)
    echo(
        f"{len(split.items):,} images in {folder}: {linked:,} linked, {copied:,} copied, {there:,} already "
        f"there; use them with --data imagenet={folder}"
    )


@command.command("split", cls=Command, epilog=SPLIT_EPILOG)
@declared
def split(
    folder: Annotated[Path, argument(type=FOLDER)],
    out: Annotated[Path, argument(metavar="DEST", type=FOLDER)],
    share: Annotated[float, option(
        "--val", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.2, metavar="SHARE",
        help="Share of the images for validation")],
    seed: Annotated[int, option("--seed", type=SEED, default=0, help="Random seed of the division")],
) -> None:  # fmt: skip
    """Divide class folders into train/ and val/.

    FOLDER has one folder of images per class. From each class, the same share of images is drawn for
    DEST/val; the others are for DEST/train. They are linked, or copied where hard links are impossible;
    nothing in FOLDER changes.
    """
    from sdabench.data.class_folders import read_folder
    from sdabench.data.sorting import divide_images
    from sdabench.data.subset import divided
    from sdabench.files import refuse_full

    refuse_full(out)
    images = read_folder(folder)
    train, val = divided(images, share, seed)
    with progress("images", len(images.items), "images") as advance:
        divide_images({"train": train, "val": val}, out, advance)
    echo(
        f"{len(train.items):,} images in {out / 'train'}, {len(val.items):,} in {out / 'val'}; use them with "
        f"--data folder={out}"
    )


@command.command("shards", cls=Command, epilog=SHARDS_EPILOG)
@declared
def shards(
    source: Annotated[DataSource, argument(metavar="DATASET", type=DATASET)],
    out: Annotated[Path, argument(metavar="DEST", type=FOLDER)],
    images: Annotated[int, option(
        "--images", type=COUNT, default=1000, help="Maximum number of images per shard")],
    seed: Annotated[int, option("--seed", type=SEED, default=0, help="Random seed of the order of images")],
) -> None:  # fmt: skip
    """Pack the images of a classification dataset into shards.

    Writes DEST/train-000000.tar, DEST/val-000000.tar and so on, and the class names. Image files are copied
    byte by byte, in random order. A few large files suit file systems that are slow with many small ones.
    Needs the extra webdataset.
    """
    from sdabench.data.folders import ImageSplit
    from sdabench.data.packing import write_shards
    from sdabench.files import refuse_full

    refuse_full(out)
    splits = {name: source.read(name) for name in source.splits()}
    lists = {name: split for name, split in splits.items() if isinstance(split, ImageSplit)}
    total = sum(len(split.items) for split in lists.values())
    with progress("images", total, "images") as advance:
        count = write_shards(lists, out, images, seed, advance)
    echo(f"{total:,} images in {count:,} shards; use them with --data webdataset={out}")
