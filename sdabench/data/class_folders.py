"""Read anybody's images in one folder per class, as torchvision's ImageFolder does. Free of torch."""

import os
from collections.abc import Mapping
from pathlib import Path

from sdabench.data.archives import EXTENSIONS, TarSplit, tar_images
from sdabench.data.folders import ImageSplit, Item
from sdabench.data.official import plural
from sdabench.data.split import SplitName
from sdabench.errors import DataError, UsageError

FOLDERS: Mapping[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "test", "testing"),
}
FORM = "it needs val/CLASS/*.jpg, train/CLASS/*.jpg to train, or CLASS/*.jpg to evaluate only"


def split_folder(path: Path, split: SplitName) -> Path | None:
    """Find the folder of a split: one of ``FOLDERS`` that holds folders and no images; None without one.

    Upper and lower case do not matter.
    """
    try:
        there = {name.lower(): path / name for name in sorted(os.listdir(path))}
    except OSError:  # which the listing reports
        return None
    found = (there[name] for name in FOLDERS[split] if name in there)
    return next((folder for folder in found if _holds_folders(folder)), None)


def read_folder(path: Path, split: SplitName = "val", sizes: Mapping[str, int] | None = None) -> ImageSplit:
    """List the images of a split, or of ``path`` itself if it has no folders of splits.

    The classes are those of all splits, in the order of their names, so that a class has the same label in
    each split. Folders inside of a class folder belong to that class. Files other than images are left out.

    Raises:
        UsageError: there is no such folder, or there is none for this split.
        DataError: there are no class folders with images, or images outside of class folders.
    """
    if path.is_file():
        return _read_archive(path, split, sizes)
    folders = {name: folder for name in FOLDERS if (folder := split_folder(path, name)) is not None}
    if not path.is_dir():
        raise UsageError(f"no dataset folder at {path}; --data folder=PATH: {FORM}")
    mixed = [path / name for name in FOLDERS[split] if (path / name).is_dir()]
    if folders and split not in folders and mixed:
        raise DataError(f"{mixed[0]} has images outside of class folders, or no class folder; {FORM}")
    if folders and split not in folders:
        raise UsageError(f"{path} has no {split}/; {_how_to_split(path, folders)}")
    if split == "train" and not folders:
        raise UsageError(f"{path} has no train/ and val/; {_how_to_split(path, folders)}")
    root = folders.get(split, path)
    if sizes is None:
        listed = {name: _list(folder) for name, folder in (folders or {split: path}).items()}
        sizes, others = listed[split]
        classes = {_class_of(image) for images, _ in listed.values() for image in images}
    else:
        others, classes = 0, {_class_of(image) for image in sizes}
    names = tuple(sorted(classes))
    labels = {name: label for label, name in enumerate(names)}
    items = tuple(Item(image, size, labels[_class_of(image)]) for image, size in sizes.items())
    where = f" in {root.name}/" if folders else ", not divided into train/ and val/"
    left_out = f"; {plural(others, 'other file')} left out" if others else ""
    return ImageSplit(
        "folder", split, root.resolve(), items, len(names), class_names=names, own_classes=True,
        layout=f"{plural(len(names), 'class folder')}{where}{left_out}",
    )  # fmt: skip


def has_split(path: Path, split: SplitName) -> bool:
    """Return whether a dataset has a folder of a split, or is an archive with images of it."""
    return bool(tar_images(path, FOLDERS, split)) if path.is_file() else split_folder(path, split) is not None


def _read_archive(archive: Path, split: SplitName, sizes: Mapping[str, int] | None) -> ImageSplit:
    """List the images of a split in a tar archive of class folders."""
    of_split = {name: tar_images(archive, FOLDERS, name) for name in FOLDERS}
    places = of_split[split]
    if not places:
        raise UsageError(f"{archive} has no images of {split}/; {FORM}")
    if flat := next((image for image in places if "/" not in image), None):
        raise DataError(f"{archive} has images outside of class folders ({flat}); {FORM}")
    names = tuple(sorted({_class_of(image) for images in of_split.values() for image in images}))
    labels = {name: label for label, name in enumerate(names)}
    paths = places if sizes is None else [image for image in sizes if image in places]
    items = tuple(Item(image, places[image].size, labels[_class_of(image)]) for image in paths)
    return TarSplit(
        "folder", split, archive.resolve(), items, len(names), class_names=names, own_classes=True,
        layout=f"{plural(len(names), 'class folder')} in a tar archive, without unpacking it", places=places,
    )  # fmt: skip


def _list(root: Path) -> tuple[dict[str, int], int]:
    """Return the size in bytes of each image by its path, in order, and the number of other files."""
    found, others = dict[str, int](), 0
    try:
        for folder, names, files in os.walk(root, onerror=_raise, followlinks=True):
            names[:] = sorted(name for name in names if not name.startswith("."))
            inside = Path(folder) != root
            if not inside:
                _check_is_not_above(root, names)
            _check_for_loops(root, Path(folder), names)
            for name in files:
                file = Path(folder, name)
                if name.startswith(".") or file.suffix.lower() not in EXTENSIONS:
                    others += not name.startswith(".")
                    continue
                if not inside:
                    raise DataError(f"{root} has images outside of class folders ({name}); {FORM}")
                found[file.relative_to(root).as_posix()] = file.stat().st_size
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise DataError(f"cannot read {reason}; check its permissions, or delete a broken link") from None
    if not found:
        raise DataError(f"{root} has no images ({', '.join(EXTENSIONS)}) in class folders; {FORM}")
    return dict(sorted(found.items())), others


def _raise(error: OSError) -> None:
    raise error


def _check_is_not_above(root: Path, names: list[str]) -> None:
    """Refuse a folder that holds a dataset, whose name would be taken for that of a class."""
    for name in names:
        if split_folder(root / name, "train") or split_folder(root / name, "val"):
            raise UsageError(f"{root / name} has train/ or val/ itself; use --data folder={root / name}")


def _check_for_loops(root: Path, folder: Path, names: list[str]) -> None:
    """Refuse a link to a folder that is being listed, whose images would be listed again and again."""
    for link in filter(Path.is_symlink, (folder / name for name in names)):
        target = link.resolve()
        above = [folder, *(each for each in folder.parents if each.is_relative_to(root))]
        if any(each.resolve().is_relative_to(target) for each in above):
            raise DataError(f"{link} is a link to {target}, which contains it; delete the link")


def _how_to_split(path: Path, folders: Mapping[SplitName, Path]) -> str:
    source = next(iter(folders.values()), path)
    return f"'sdabench data split {source} DEST' makes train/ and val/ of {source}, by links"


def _class_of(path: str) -> str:
    return path.partition("/")[0]


def _holds_folders(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return False
    images = any(Path(entry.name).suffix.lower() in EXTENSIONS and entry.is_file() for entry in visible)
    return not images and any(entry.is_dir() for entry in visible)
