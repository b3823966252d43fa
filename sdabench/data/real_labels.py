"""ReaL labels of ImageNet's validation images: any number of right classes for each image. Free of torch.

Beyer et al., Are we done with ImageNet?, 2020. ``real.json`` lists the class indices of the 50,000 official
images in the order of their numbers. Images without labels are left out, and the best class of another image
is right if it is among its labels.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdabench.data.official import CLASSES, VAL_IMAGES, val_number
from sdabench.errors import DataError, UsageError
from sdabench.json_files import parse_json


def read_real_labels(path: Path) -> list[list[int]]:
    """Read the labels of all validation images, in the order of their numbers.

    Raises:
        UsageError: there is no such file.
        DataError: it is another file.
    """
    try:
        labels = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(
            f"no file of labels at {path}; name real.json of google-research's repository"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}; download real.json again") from None
    if not (isinstance(labels, list) and len(labels) == VAL_IMAGES and all(map(_is_labels, labels))):
        raise DataError(
            f"{path} has no ReaL labels: {VAL_IMAGES:,} lists of class indices from 0 to {CLASSES - 1}; "
            "download real.json again"
        )
    return labels


def _is_labels(value: object) -> bool:
    return isinstance(value, list) and all(type(label) is int and 0 <= label < CLASSES for label in value)


def real_hits(paths: Sequence[str], best: NDArray[np.int64], labels: Sequence[Sequence[int]]) -> list[bool]:
    """Return for each image with labels whether its best class (N,) is among them.

    Raises:
        UsageError: an image has no official name, or none has a label.
    """
    hits = []
    for path, label in zip(paths, best.tolist(), strict=True):
        number = val_number(path)
        if number is None:
            raise UsageError(
                f"--labels is for official validation images, and {path} has another name; leave it out"
            )
        if labels[number - 1]:
            hits.append(label in labels[number - 1])
    if not hits:
        raise UsageError("--labels has no label for any of these images; evaluate others")
    return hits
