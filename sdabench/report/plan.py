"""The plan of a suite: what would be done, by which values, and about how long it takes."""

from collections.abc import Iterator
from typing import Any

from sdabench.data.description import DatasetInfo
from sdabench.report.sheet import Cell, Heading, Sheet
from sdabench.report.summary import describe_dataset
from sdabench.runs.estimate import Plan


def plan_sheet(plan: Plan) -> Sheet:
    """One line a job; the values of the recipe, the data and the totals as notes."""
    headings = [Heading("model"), Heading("seed", numeric=True), Heading("state")]
    headings += [Heading("time", numeric=True), Heading("disk", numeric=True)]
    rows = [
        [
            Cell(job.model),
            Cell(str(job.seed)),
            Cell("has a record", tone="good") if job.done else Cell("to do"),
            Cell("" if job.done else duration(job.seconds)),
            Cell("" if job.done else size(job.disk_bytes)),
        ]
        for job in plan.jobs
    ]
    return Sheet("Plan", headings, [rows], list(_notes(plan)))


def _notes(plan: Plan) -> Iterator[str]:
    for part in plan.parts:
        if part.train_dataset is not None:
            yield f"Train on {describe_dataset(DatasetInfo(**part.train_dataset))}."
        yield f"Evaluate on {describe_dataset(DatasetInfo(**part.dataset))}."
        if part.recipe is not None:
            yield f"Recipe {part.recipe['name']} for {part.task}: {', '.join(_values(part.recipe))}."
    shared = f", which share {plan.lanes}" if plan.lanes < plan.at_once else ""
    yield f"Device {plan.device}, {plan.at_once} at a time{shared}; output to {plan.output}."
    here = "here" if plan.measured_on == plan.device else "here on the CPU, for want of a GPU"
    yield (
        f"In all about {duration(plan.seconds)}, and {size(plan.disk_bytes)} of disk at one time. The times "
        f"are those of {' and '.join(part.probe for part in plan.parts)}, measured {here}, scaled by "
        "multiply-adds; a network can take half or twice as long."
    )


def _values(recipe: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in recipe.items():
        if isinstance(value, dict):
            yield from _values(value, f"{prefix}{key}.")
        elif prefix or key not in ("name", "title", "source"):
            yield f"{prefix}{key} {value}"


def duration(seconds: float) -> str:
    """In the unit that fits: ``45 s``, ``12 min``, ``3.5 h``, ``2.1 d``."""
    for unit, length in (("d", 86400), ("h", 3600)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
