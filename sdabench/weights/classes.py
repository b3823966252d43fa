"""Map the outputs of weights to the classes of a dataset by name; the number of classes is no identity.

Weights that sdabench trained store the classes that they were trained on: in the metadata of a safetensors
file, in an attribute of a state dict that torch.save wrote, and in a checkpoint of a training. Checkpoints of
mmdetection, mmengine and common training scripts name them too.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from sdabench.data.classes import ClassList, coco_categories, list_names
from sdabench.data.coco import CocoSplit
from sdabench.data.folders import ImageSplit
from sdabench.data.imagenet import class_indices
from sdabench.data.split import Split
from sdabench.errors import SdabenchError, WeightsError
from sdabench.weights.entries import find_state
from sdabench.weights.read import read_checkpoint
from sdabench.weights.unpickling import NOTES

KEY = "classes"
IMAGENET_CLASSES = 1000
NAMES = ("classes", "class_names", "class_to_idx")  # keys of other programs, in any case
SETTINGS = ("meta", "dataset_meta", "hyper_parameters")  # mappings that may hold such a key


def metadata_of(classes: ClassList | None) -> dict[str, str]:
    """Return the metadata of a safetensors file that names the classes of its weights."""
    return {KEY: classes.model_dump_json()} if classes and classes.names else {}


def read_classes(path: Path) -> ClassList | None:
    """Read the classes that weights were trained on; None if their file does not name them.

    Raises:
        SdabenchError: the file cannot be read; see :func:`sdabench.weights.read.read_checkpoint`.
    """
    if not path.is_file():  # safetensors would wait for a pipe
        read_checkpoint(path)
    state = path.stat()
    return _read_classes(path, (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=4)
def _read_classes(path: Path, _version: Any) -> ClassList | None:
    """Read the classes once for each version of a file, because a checkpoint is read as a whole."""
    try:
        with safe_open(path, "pt") as file:
            return _of_metadata(file.metadata())
    except (SafetensorError, OSError):
        checkpoint = read_checkpoint(path)
    if (own := _of_metadata(getattr(checkpoint, NOTES, None))) is not None:
        return own
    try:
        return ClassList.model_validate(checkpoint[KEY])
    except (KeyError, TypeError, ValidationError, AttributeError, IndexError):
        names = _find_names(checkpoint) if isinstance(checkpoint, Mapping) else ()
        return ClassList(names=names) if names else None


def _of_metadata(metadata: Any) -> ClassList | None:
    try:
        return ClassList.model_validate_json(metadata[KEY])
    except (KeyError, TypeError, IndexError, ValidationError):
        return None


def _find_names(settings: Mapping[Any, Any]) -> tuple[str, ...]:
    """Find the names of classes in a checkpoint of another program; empty if it has none."""
    items = [(key.lower(), value) for key, value in settings.items() if type(key) is str]
    for key, value in items:
        if key in NAMES and (names := _names_in(value)):
            return names
    below = (_find_names(value) for key, value in items if key in SETTINGS and isinstance(value, Mapping))
    return next(filter(None, below), ())


def _names_in(value: Any) -> tuple[str, ...]:
    """Return names from a list, or from a mapping of each name to its index; empty for other values."""
    if isinstance(value, Mapping):
        if sorted(index for index in value.values() if type(index) is int) != list(range(len(value))):
            return ()
        value = sorted(value, key=value.__getitem__)
    is_names = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return tuple(value) if is_names else ()


def with_classes_of(path: Path, split: ImageSplit) -> ImageSplit:
    """Return a split with the classes of weights, in the order of their names, if these are more.

    The images keep their classes, by name. Weights with 1000 outputs that name no class, or name them in
    words, are taken for ImageNet's if all class folders are named by wnid. A split with all classes of the
    weights, or with a class that they lack, is returned as it is, as for a file that cannot be read.
    """
    try:
        own = read_classes(path)
        unknown = own is None or not set(own.names) & set(class_indices())
        of_imagenet = split.num_classes != IMAGENET_CLASSES and set(split.occurring) <= set(class_indices())
        if unknown and of_imagenet and _has_outputs(path):
            own = ClassList(names=tuple(class_indices()))
    except SdabenchError:  # raised when the job starts, so that a record stores it
        return split
    known = own is None or own.order_in(ClassList.of(split)) is not None
    if own is None or known or own.positions_of(split.occurring) is None:
        return split
    return split.with_classes(sorted(own.names))


def _has_outputs(path: Path) -> bool:
    """Return whether weights have a layer of 1000 outputs."""
    tensors = find_state(read_checkpoint(path), str(path)).tensors.values()
    return any(tensor.ndim in (1, 2) and tensor.shape[0] == IMAGENET_CLASSES for tensor in tensors)


def class_order(path: Path, split: Split) -> tuple[int, ...] | None:
    """Return the index in a split's classes of each output of weights; None if the weights name no classes.

    Weights of a detector with 80 or, with gaps, 90 or 91 outputs are taken for COCO's categories.

    Raises:
        WeightsError: the weights have other classes; the message names them.
        SdabenchError: the file cannot be read.
    """
    classes = ClassList.of(split)
    own = read_classes(path)
    if own is not None and classes.names and not in_english(own, split):
        order = own.order_in(classes)
        if order is None:
            raise WeightsError(
                f"{path} was trained on other classes than those of {split.root}: {own.difference(classes)}; "
                "evaluate it on a dataset of its own classes"
            )
        return order
    return _coco_order(path, split, classes) if isinstance(split, CocoSplit) else None


def describe_order(path: Path, split: Split) -> str | None:
    """Describe in one line how the outputs of weights are mapped to the classes, unless that is usual."""
    order = class_order(path, split)
    few = isinstance(split, ImageSplit) and split.own_classes and split.classes < split.num_classes
    if few and order is not None:
        return (
            f"{path} has {split.num_classes:,} classes, and the dataset {split.classes:,} of them: labels "
            "are mapped by name, and the accuracy is among all classes of the weights."
        )
    if order is None:
        if _is_imagenet(split):
            own = read_classes(path)
            if split.dataset != "imagenet" and own is None:
                return (
                    f"{path} does not name its {split.num_classes:,} classes: they are taken to be "
                    "ImageNet's, because the class folders are named by wnid; labels are mapped by these, "
                    "and the accuracy is among all of them."
                )
            return (
                None
                if own is None
                else (
                    f"{path} names its classes in words ({list_names(own.names)}): they are taken to be "
                    "ImageNet's, in the order of the wnids."
                )
            )
        return f"{path} does not name its classes: they are taken to be the dataset's, in the same order."
    if order == tuple(range(len(order))):
        return None
    return f"{path} has the classes of the dataset in another order: its outputs are mapped by name."


def in_english(own: ClassList, split: Split) -> bool:
    """Return whether weights name ImageNet's classes in words, which identify no wnid: two are 'crane'."""
    return _is_imagenet(split) and not set(own.names) & set(split.class_names)


def _is_imagenet(split: Split) -> bool:
    return split.class_names == tuple(class_indices())


def _coco_order(path: Path, split: CocoSplit, classes: ClassList) -> tuple[int, ...] | None:
    names, count = coco_categories(), split.num_classes
    if count == len(names):
        own = ClassList(names=tuple(names.values()))
        order = own.order_in(classes)
    elif count in (90, 91):  # by id, with outputs for ids that no category has
        own = ClassList(names=tuple(names.get(number, name) for number, name in enumerate(classes.names, 1)))
        order = tuple(range(count)) if own.names == classes.names else None
    else:
        return None
    if order is None:
        raise WeightsError(
            f"{path} does not name its classes and has {count} of them, as weights for COCO do, but "
            f"{split.annotations_file} lists others: {own.difference(classes)}; evaluate it on COCO's"
        )
    return order
