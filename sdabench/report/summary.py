"""Summarize datasets and records in one line."""

import re
from collections.abc import Iterable, Mapping

from sdabench.data.description import DatasetInfo, Preprocessing
from sdabench.data.official import plural
from sdabench.records.conditions import Difference
from sdabench.records.record import Record
from sdabench.records.spec import Protocol
from sdabench.registry.recipes import used_options
from sdabench.terminal import printable

DATASETS = {"imagenet": "ImageNet", "coco": "COCO 2017"}
METRICS = {
    "top1_pct": "top-1", "top5_pct": "top-5", "real_pct": "ReaL top-1",
    "ap_pct": "AP", "ap50_pct": "AP50", "ap75_pct": "AP75",
    "ap_s_pct": "AP small", "ap_m_pct": "AP medium", "ap_l_pct": "AP large",
}  # fmt: skip
SEEDS = ("seed", "training.seeds")  # fields of a record
PREFIXES = {"detection": "box ", "segmentation": "mask "}  # of an AP, by task


def metric_name(metric: str, task: str | None = None) -> str:
    """Name a metric, such as mask AP50 for a task of which there are several kinds of AP."""
    prefix = PREFIXES.get(task or "", "") if metric.startswith("ap") else ""
    return prefix + METRICS.get(metric, " ".join(printable(metric).split()))


def describe_dataset(dataset: DatasetInfo) -> str:
    """Name the dataset, if it is complete, or its number of images and classes."""
    samples = f"{dataset.samples:,}"
    if dataset.subset_of is not None:
        samples = f"{samples} of {dataset.subset_of:,}"
    if dataset.name == "synthetic":
        return f"{samples} generated images of {dataset.classes} classes"
    if dataset.complete:
        split = "validation" if dataset.split == "val" else "training"
        return f"the {DATASETS.get(dataset.name, dataset.name)} {split} set ({samples} images)"
    if dataset.name == "unknown":
        return f"{samples} images of {dataset.classes} classes"
    if dataset.name == "coco":
        return f"{samples} images with {dataset.classes} categories, in {dataset.root}"
    kind = "ImageNet class" if dataset.name == "imagenet" else "class"
    several = "" if dataset.classes == 1 else "es"
    return f"{samples} images of {dataset.classes} {kind}{several}, in {dataset.root}"


def describe_protocol(protocol: Protocol) -> str:
    """Name the resizing, the precision, and other values that are not the standard ones."""
    images, standard = protocol.preprocessing, type(protocol.preprocessing)()
    if isinstance(images, Preprocessing):
        parts = [f"{images.interpolation} resize to {images.resize}, center crop of {images.crop}"]
    else:
        parts = [f"{images.interpolation} resize to a short side of {images.short}, at most {images.long}"]
    for name in ("mean", "std"):
        if getattr(images, name) != getattr(standard, name):
            parts.append(f"{name} ({', '.join(f'{value:g}' for value in getattr(images, name))})")
    parts.append(protocol.precision)
    return ", ".join([*parts, "channels_last"] if protocol.channels_last else parts)


def standard_error_text(record: Record, metric: str) -> str:
    """Format the standard error; empty at 0 and 100 %, where the estimate is meaningless."""
    error = record.standard_error(metric)
    return "" if error is None or record.metrics[metric] in (0, 100) else f"{error:.2f}"


def describe_metrics(record: Record) -> str:
    """List the metrics with their standard errors, and name the dataset."""
    metrics: list[str] = []
    for key, value in record.metrics.items():
        error = standard_error_text(record, key)
        name = metric_name(key, None if metrics else record.task)  # of several, the first one tells the kind
        metrics.append(f"{name} {value:.2f} %" + (f" ± {error}" if error else ""))
    fitted = record.fitted_batch_size
    memory = f"; batch size reduced from {record.batch_size} to {fitted} to fit into memory" if fitted else ""
    skipped = len(record.dataset.skipped)
    without = f", without {plural(skipped, 'broken image')}" if skipped else ""
    measured_on = f"{describe_dataset(record.dataset)}{without}"
    line = f"{record.model}: {', '.join(metrics)}, on {measured_on}{memory}"
    return " ".join(line.split())  # names of folders may contain line breaks


def condition_notes(conditions: Iterable[Difference]) -> list[str]:
    """Name what differs between the records of a table, apart from networks, their weights and seeds."""
    own = ("backbone", *SEEDS)
    others = [each for each in conditions if each.kind != "compared" and each.field not in own]
    return [f"The records differ in {describe_conditions(others)}."] if others else []


def describe_conditions(conditions: Iterable[Difference]) -> str:
    """Name the fields that differ, each with its different values."""
    return ", ".join(
        f"{each.field} ({', '.join(dict.fromkeys(map(condition_text, each.values)))})" for each in conditions
    )


def condition_text(value: object) -> str:
    """Format the value of a recorded condition; digests are shortened."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):  # a recipe or a dataset, which other records do not have
        return str(value.get("name", "recorded"))
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(str, value))})"
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{32,56}\b", r"\1", str(value))


def at_chance(record: Record, classes: int) -> bool:
    """Return whether trained weights are hardly better than chance on a hundred images or more.

    That is three times chance, or five percentage points above it if there are few classes.
    """
    chance = 100 / classes
    top1 = record.metrics.get("top1_pct", 100.0)
    return record.weights.trained and record.samples >= 100 and top1 < min(3 * chance, chance + 5)


def describe_training(record: Record) -> str:
    """State the first and last training loss, and whether the model fits its training images."""
    training = record.training
    assert training is not None
    assert record.train_dataset is not None
    results = {True: "; the network fits them", False: "; the network does not fit them", None: ""}
    unsound = f"; it is unsound: {'; '.join(training.unsound)}" if training.unsound else ""
    if record.task != "classification":
        results = {True: "; the loss falls", False: "; the loss does not fall", None: ""}
    times = plural(training.skipped_images, "time")
    skipped = f"; broken images skipped {times}, never counted as trained on"
    overflows = f"{training.skipped_steps:,} of {plural(training.steps, 'step')}"
    without_update = f"; {overflows} skipped, because gradients in float16 were not finite"
    options = used_options(record.recipe or {})
    used = f"; training options: {', '.join(options)}" if options else ""
    frozen = {None: "", True: "; backbone frozen as in the paper", False: "; no layer frozen"}
    return (
        f"{record.model}: training loss {training.first_loss:.3f} to {training.last_loss:.3f} in "
        f"{plural(training.epochs, 'epoch')} on {describe_dataset(record.train_dataset)}"
        f"{results[training.fits]}{unsound}{frozen[training.frozen]}{used}"
        f"{skipped if training.skipped_images else ''}{without_update if training.skipped_steps else ''}"
    )
