"""Accuracy or AP by the size of the objects."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sdabench.data.object_sizes import OBJECTS, read_objects
from sdabench.errors import DataError, UsageError
from sdabench.report.columns import Column, Columns
from sdabench.report.figures import predicted
from sdabench.report.figures.labels import label_ends
from sdabench.report.figures.names import File
from sdabench.report.figures.predicted import Evaluated, evaluated
from sdabench.report.figures.style import LIGHT, Theme, caption, grid
from sdabench.report.frames import Names, Paths, make
from sdabench.report.inspection import size_text
from sdabench.scoring.intervals import accuracy_interval

SIZES = {"ap_s_pct": "small", "ap_m_pct": "medium", "ap_l_pct": "large"}
COLUMNS: Columns = {
    **predicted.COLUMNS,
    "size": Column(
        "str", "size of the object as a share of the short side of the image, or COCO's name of it"
    ),
    "images": Column("Int64", "number of images; missing for AP"),
    "metric": Column("str", "top1_pct, or ap_s_pct, ap_m_pct and ap_l_pct"),
    "value": Column("float64", "accuracy or AP in percent"),
    "low": Column("float64", "lower bound of the 95 % interval over test images, if known"),
    "high": Column("float64", "upper bound of it"),
}


def frame(runs: Paths, models: Names = "*", objects: File | None = None) -> pd.DataFrame:
    """List accuracies by octave of the object size in a generated dataset, or APs by COCO's sizes.

    An octave is a factor of two: objects have 1/8 to 1/4, 1/4 to 1/2, or 1/2 to 1 of the short side. For
    detectors, these are AP of small, medium and large objects, on any dataset.

    Args:
        models: names or wildcards.
        objects: ``objects.csv`` of the generated dataset, by default that of the record.

    Returns:
        One row for each record and size, from small to large: see :data:`COLUMNS`.

    Raises:
        UsageError: there are no predictions, no generated dataset, or classifiers and detectors.
        DataError: ``objects.csv`` does not describe the images.
    """
    found = evaluated(runs, ("classification", "detection", "segmentation"), models)
    kinds = {one.stored.record.task == "classification" for one in found}
    if len(kinds) > 1:
        raise UsageError("the runs have classifiers and detectors; choose some with --models")
    if kinds == {False}:
        return make((row for one in found for row in _precisions(one)), COLUMNS)
    return make((row for one in found for row in _accuracies(one, objects)), COLUMNS)


def draw(data: pd.DataFrame, theme: Theme = LIGHT) -> Figure:
    """Draw a line for each record of :func:`frame`, from small to large objects."""
    sizes, labels = list(data["size"].unique()), list(data["label"].unique())
    classified = (data["metric"] == "top1_pct").all()
    with theme.applied():
        figure = theme.figure(2.3)
        axes = figure.subplots()
        grid(axes, "y")
        ends = []
        for place, label in enumerate(labels):
            (color, marker, *_), of_label = theme.series(place), data[data["label"] == label]
            shift = min(0.06, 0.5 / len(labels)) * (place - (len(labels) - 1) / 2)
            xs = of_label["size"].map(sizes.index) + shift
            axes.vlines(xs, of_label["low"], of_label["high"], color=color, linewidth=0.8)
            [line] = axes.plot(xs, of_label["value"], color=color, marker=marker, label=label)
            ends += [(value, line) for value in of_label["value"].dropna().tail(1)]
        axes.set_xticks(range(len(sizes)), sizes)
        axes.set_xlim(-0.3, len(sizes) - 0.7)
        axes.set_xlabel("object size / short side of the image" if classified else "object size")
        axes.set_ylabel("top-1 (%)" if classified else "AP (%)")
        bars = data["low"].notna().any()
        caption(figure, "Bars: 95 % interval over test images." if bars else "", theme=theme)
        label_ends(figure, axes, ends, theme)
    return figure


def _accuracies(one: Evaluated, objects: File | None) -> Iterable[dict[str, object]]:
    record, predictions = one.stored.record, one.classes()
    file = Path(objects) if objects is not None else _objects_file(one)
    drawn = read_objects(file, "name it with --objects")
    names = [f"{record.dataset.split}/{path}" for path in predictions.paths]
    if unknown := [name for name in names if name not in drawn]:
        raise DataError(f"{file} has no {unknown[0]}; name that of the evaluated dataset with --objects")
    of_image = np.array([drawn[name].octave for name in names])
    for octave in sorted(set(of_image.tolist())):
        right = predictions.hits(1)[of_image == octave]
        interval = accuracy_interval(right)
        yield one.columns | {
            "size": size_text(octave),
            "images": len(right),
            "metric": "top1_pct",
            "value": interval.estimate,
            "low": interval.low,
            "high": interval.high,
        }


def _objects_file(one: Evaluated) -> Path:
    dataset = one.stored.record.dataset
    if dataset.name != "synthetic":
        raise UsageError(
            f"{one.stored.record.model} was evaluated on {dataset.name}, whose object sizes are unknown; "
            "name a run on a generated dataset"
        )
    return Path(dataset.root).parent / OBJECTS


def _precisions(one: Evaluated) -> Iterable[dict[str, object]]:
    record = one.stored.record
    for metric, size in SIZES.items():
        value, error = record.metrics.get(metric), record.standard_errors.get(metric)
        yield one.columns | {
            "size": size,
            "metric": metric,
            "value": value,
            "low": None if value is None or error is None else max(value - 1.96 * error, 0.0),
            "high": None if value is None or error is None else min(value + 1.96 * error, 100.0),
        }
