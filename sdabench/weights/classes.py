"""Map the outputs of weights to the classes of a dataset by name; the number of classes is no identity.

Weights that sdabench trained store the classes that they were trained on: in the metadata of a safetensors
file, and in a checkpoint of a training.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from sdabench.data.classes import ClassList, coco_categories
from sdabench.data.coco import CocoSplit
from sdabench.data.split import Split
from sdabench.errors import WeightsError
from sdabench.weights.read import read_checkpoint

KEY = "classes"


def metadata_of(classes: ClassList | None) -> dict[str, str]:
    """Return the metadata of a safetensors file that names the classes of its weights."""
    return {KEY: classes.model_dump_json()} if classes and classes.names else {}


def read_classes(path: Path) -> ClassList | None:
    """Read the classes that weights were trained on; None if their file does not name them.

    Raises:
        SdabenchError: the file cannot be read; see :func:`sdabench.weights.read.read_checkpoint`.
    """
    try:
        with safe_open(path, "pt") as file:
            return ClassList.model_validate_json((file.metadata() or {}).get(KEY, ""))
    except ValidationError:
        return None
    except (SafetensorError, OSError):
        checkpoint = read_checkpoint(path)
    try:
        return ClassList.model_validate(checkpoint[KEY]) if isinstance(checkpoint, Mapping) else None
    except (KeyError, ValidationError):
        return None


def class_order(path: Path, split: Split) -> tuple[int, ...] | None:
    """Return the index in a split's classes of each output of weights; None if the weights name no classes.

    Weights of a detector with 80 or, with gaps, 90 or 91 outputs are taken for COCO's categories.

    Raises:
        WeightsError: the weights have other classes; the message names them.
        SdabenchError: the file cannot be read.
    """
    classes = ClassList.of(split)
    own = read_classes(path)
    if own is not None and classes.names:
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
    if order is None:
        if split.dataset == "imagenet":
            return None
        return f"{path} does not name its classes: they are taken to be the dataset's, in the same order."
    if order == tuple(range(len(order))):
        return None
    return f"{path} has the classes of the dataset in another order: its outputs are mapped by name."


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
