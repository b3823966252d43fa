"""The names of classes in stored predictions."""

from collections import defaultdict
from pathlib import PurePosixPath

import numpy as np

from sdabench.records.class_predictions import ClassPredictions


def class_names(predictions: ClassPredictions) -> dict[int, str]:
    """Name each class by the folder that all of its images, and no others, are in; else by its index."""
    folders: defaultdict[int, set[str]] = defaultdict(set)
    for label, path in zip(predictions.labels.tolist(), predictions.paths, strict=True):
        folders[label].add(PurePosixPath(path).parent.name)
    single = {label: min(names) for label, names in folders.items() if len(names) == 1}
    named = {label: name for label, name in single.items() if name and [*single.values()].count(name) == 1}
    known = {*folders, *np.unique(predictions.top5[:, 0]).tolist()}
    return {label: named.get(label, str(label)) for label in sorted(known)}
