"""Read ImageNet: class folders named by wnid, or the validation images in one flat folder. Free of torch."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath

from sdabench.data.archives import Place, TarSplit, tar_images
from sdabench.data.folders import ImageSplit, Item, list_images
from sdabench.data.official import imagenet_deviations, val_labels, val_number
from sdabench.data.split import SplitName
from sdabench.data.synthetic.manifest import read_manifest
from sdabench.errors import DataError, SdabenchError, UsageError

WNID_DESCRIPTION = (
    "one of ImageNet's 1000 wnids (such as n01440764); for other classes use --data folder=PATH"
)
LAYOUTS = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")  # folders with the splits; the others are Kaggle's
# Names of the folder of a split; the others are those of ImageNet's archives, and of Hugging Face.
FOLDERS: Mapping[SplitName, Sequence[str]] = {
    "train": ("train", "ILSVRC2012_img_train"),
    "val": ("val", "validation", "ILSVRC2012_img_val"),
}
ARCHIVES: Mapping[SplitName, str] = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
TRAIN_FOLDER = re.compile(r"(ILSVRC\d*_)?(img_)?train(ing)?([^a-z].*)?", re.IGNORECASE)
SYNSET = re.compile(r"_n\d{8}\.", re.ASCII)  # in the file names of Hugging Face
TRAIN_FILE = re.compile(r"(n\d{8})/\1_\d+(_\1)?\.\w+", re.ASCII)  # an official name with any extension


@cache
def class_indices() -> dict[str, int]:
    """Return the index, 0 to 999, of each of the 1000 wnids."""
    text = files("sdabench.data").joinpath("imagenet_wnids.tsv").read_text()
    return {line.split("\t")[0]: index for index, line in enumerate(text.splitlines())}


def split_folder(path: Path, split: SplitName) -> Path | None:
    """Find the folder of a split in a dataset folder; None if there is none."""
    folders = (path / layout / name for layout in LAYOUTS for name in FOLDERS[split])
    return next((folder for folder in folders if folder.is_dir()), None)


def read_imagenet(path: Path, split: SplitName = "val", sizes: Mapping[str, int] | None = None) -> ImageSplit:
    """List the images of ``path/train`` or ``path/val``; validation images can be in ``path`` itself.

    See ``FOLDERS`` and ``LAYOUTS`` for other names of these folders.
    Validation images with official names can lie in one flat folder.

    Raises:
        UsageError: there is no such folder, or it is another kind of dataset.
        DataError: there are no images, files or folders other than class folders with images, or training
            images instead of validation images.
    """
    _check_is_not_generated(path)
    root = split_folder(path, split)
    if (archive := _archive(path, split)) is not None and root is None:
        return _read_archive(archive, split, sizes)
    if root is None and split == "val" and path.is_dir():
        if split_folder(path, "train") is not None:
            raise UsageError(f"{path} has train/ but no val/; add val/ with the validation images")
        root = path
    if root is None:
        raise UsageError(
            f"no dataset folder at {path / split}; --data imagenet=PATH needs a folder with "
            f"{split}/<wnid>/*.JPEG"
        )
    class_of = _class_of_validation_image if split == "val" else lambda name: None
    by_index = _is_by_index(root, sizes)
    labels = {str(label): label for label in range(len(_wnids()))} if by_index else class_indices()
    items = list_images(root, labels, WNID_DESCRIPTION, sizes, class_of)
    found = ImageSplit("imagenet", split, root.resolve(), items, len(_wnids()), class_names=_wnids())
    if sizes is not None:
        return found
    if split == "val":
        _check_are_validation_images(root, items)
        found = _recognized(found, by_index)
    return replace(found, complete=not any(imagenet_deviations(found)))


def _archive(path: Path, split: SplitName) -> Path | None:
    """Return the path itself if it is a file, or the official archive of a split in a folder."""
    archive = path if path.is_file() else path / ARCHIVES[split]
    return archive if archive.is_file() else None


def has_split(path: Path, split: SplitName) -> bool:
    """Return whether a dataset has a folder of a split, or an archive with images of it."""
    if split_folder(path, split) is not None:
        return True
    archive = _archive(path, split)
    return archive is not None and bool(tar_images(archive, FOLDERS, split))


def _read_archive(archive: Path, split: SplitName, sizes: Mapping[str, int] | None) -> ImageSplit:
    """List the images of a split in a tar archive: in class folders, or with official names."""
    places = tar_images(archive, FOLDERS, split)
    if not places:
        raise UsageError(
            f"{archive} has no images of {split}/; name an archive of class folders, or of that split"
        )
    by_index = {path.partition("/")[0] for path in places} == {str(label) for label in range(len(_wnids()))}
    labels = {str(label): label for label in range(len(_wnids()))} if by_index else class_indices()
    found = dict[str, Place]()
    for path, place in places.items():
        folder, _, name = path.rpartition("/")
        of_class = folder
        if folder not in labels and split == "val":
            of_class = _class_of_validation_image(name) or folder
        if of_class not in labels:
            raise DataError(f"{archive} has {path}, which is in no class folder that is {WNID_DESCRIPTION}")
        found[f"{of_class}/{name}"] = place
    paths = sorted(found) if sizes is None else [path for path in sizes if path in found]
    items = tuple(Item(path, found[path].size, labels[path.partition("/")[0]]) for path in paths)
    listed: ImageSplit = TarSplit(
        "imagenet", split, archive.resolve(), items, len(_wnids()), class_names=_wnids(), places=found
    )
    if split == "val" and sizes is None:
        _check_are_validation_images(archive, items)
        listed = _recognized(listed, by_index)
    layout = "; ".join(filter(None, ["a tar archive, without unpacking it", listed.layout]))
    return replace(listed, layout=layout, complete=sizes is None and not any(imagenet_deviations(listed)))


def _is_by_index(root: Path, paths: Iterable[str] | None) -> bool:
    """Return whether the class folders are named 0 to 999, as in ImageNet-V2.

    Raises:
        DataError: only some of these are there, so that they could be other classes.
    """
    if paths is not None:
        return any(path.partition("/")[0].isdecimal() for path in paths)
    try:
        numbers = {name for name in os.listdir(root) if name.isdecimal()}
    except OSError:  # which the listing reports
        return False
    if not numbers or numbers == {str(label) for label in range(len(_wnids()))}:
        return bool(numbers)
    raise DataError(
        f"{root} has {len(numbers):,} folders that are named by numbers, such as {min(numbers)}; they are "
        "taken for ImageNet's classes only if they are 0 to 999: rename them by wnid, or use --data "
        f"folder={root}"
    )


@cache
def subsets() -> dict[str, tuple[int, ...]]:
    """Return the labels of the classes of ImageNet-A and ImageNet-R, among which accuracy is measured."""
    lines = files("sdabench.data").joinpath("imagenet_subsets.tsv").read_text().splitlines()
    pairs = (line.split("\t") for line in lines)
    return {name: tuple(map(int, labels.split())) for name, labels in pairs}


def _recognized(split: ImageSplit, by_index: bool) -> ImageSplit:
    """Add what a variant of ImageNet is taken for, and the classes of A and R as ``candidates``."""
    if by_index:
        return replace(
            split, layout="ImageNet's classes, whose folders are named by index, as in ImageNet-V2"
        )
    labels = tuple(sorted({item.label for item in split.items}))
    for name, own in subsets().items():
        if labels == own:
            layout = f"the {len(own)} classes of {name}, and the best are chosen among these, as is usual"
            return replace(split, layout=layout, candidates=own)
    if all(PurePosixPath(item.path).name.startswith("sketch_") for item in split.items):
        return replace(split, layout="ImageNet-Sketch")
    if not isinstance(split, TarSplit) and not (split.root / split.items[0].path).exists():
        layout = "one flat folder of validation images, with classes by their official numbers"
        return replace(split, layout=layout)
    return split


@cache
def _wnids() -> tuple[str, ...]:
    return tuple(class_indices())


def _class_of_validation_image(name: str) -> str | None:
    """Return the wnid of an official validation image from its file name; None for other names."""
    number = val_number(name)
    if number is None:
        return None
    wnid = _wnids()[val_labels()[number - 1]]
    return wnid if wnid in name or not SYNSET.search(name) else None


def _check_is_not_generated(path: Path) -> None:
    for folder in (path, path.parent):
        with suppress(SdabenchError):
            read_manifest(folder)
            break
    else:
        return
    raise UsageError(f"{folder} is a generated dataset; use --data synthetic={folder}")


def _check_are_validation_images(root: Path, items: Sequence[Item]) -> None:
    """Refuse training images that would be evaluated as validation images.

    Validation images that were held out of the training images, as ``train/`` beside ``val/`` shows, are
    accepted.

    Raises:
        DataError: the folder or its images are those of training.
    """
    folder = root.resolve()
    if TRAIN_FOLDER.fullmatch(folder.name) or ("train" in folder.name and _validation_beside(folder)):
        raise DataError(f"{folder} is a folder of training images; {_name_validation(folder)}")
    training = [item.path for item in items if TRAIN_FILE.fullmatch(item.path)]
    train = split_folder(folder.parent, "train")
    held_out = folder.name in FOLDERS["val"] and train is not None
    if training and not (held_out and train and not any((train / path).exists() for path in training)):
        raise DataError(
            f"{folder} has {len(training):,} images with names of training images ({training[0]}); "
            f"{_name_validation(folder)}"
        )


def _validation_beside(folder: Path) -> Path | None:
    beside = split_folder(folder.parent, "val")
    return None if beside is None or beside.resolve() == folder else beside


def _name_validation(folder: Path) -> str:
    beside = _validation_beside(folder)
    where, name = ("PATH", "val") if beside is None else (folder.parent, beside.name)
    return f"name the folder of the validation images: --data imagenet={where}, with {where}/{name}/"
