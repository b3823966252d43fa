"""Show the plan of a suite: jobs, resolved values, and estimates of time and disk space."""

from collections.abc import Iterator
from typing import Any

from sdabench.data.description import DatasetInfo
from sdabench.nested import flattened
from sdabench.records.spec import RANDOM, TRAINED_HERE, Protocol
from sdabench.registry.recipes import WORDS
from sdabench.report.sheet import Cell, Heading, Sheet, headings, row
from sdabench.report.summary import describe_dataset, describe_protocol
from sdabench.runs.estimate import PROBES, Plan, PlannedJob, PlannedPart


def plan_sheet(plan: Plan) -> Sheet:
    """Show one row for each job; recipe, data and totals are notes."""
    columns = [Heading("model"), Heading("seed", numeric=True), Heading("state")]
    columns += headings("time", "disk", numeric=True)
    evaluated = [job for job in plan.jobs if job.weights and job.weights["source"] != TRAINED_HERE]
    if evaluated:
        columns.append(Heading("weights"))
    rows = [[*_cells(job), *([Cell(_weights(job))] if evaluated else [])] for job in plan.jobs]
    return Sheet("Plan", columns, [rows], list(_notes(plan)))


def _cells(job: PlannedJob) -> list[Cell]:
    state = Cell("has a record", tone="good") if job.done else Cell("to do")
    if job.trained and not job.done:
        state = Cell("trained", tone="good")
    elif job.step and not job.done:
        state = Cell(f"resumes at step {job.step}", tone="good")
    if job.done and not job.seconds:
        return row(job.model, job.seed, state, "", "")
    return row(job.model, job.seed, state, duration(job.seconds), size(job.disk_bytes))


def _weights(job: PlannedJob) -> str:
    """Name the source of the weights and the start of their digest."""
    weights = job.weights or {}
    source, digest = str(weights.get("source", "")), weights.get("sha256")
    if source == RANDOM:
        return RANDOM
    return f"{source} ({f'sha256 {digest[:12]}' if digest else 'not read yet'})"


def _notes(plan: Plan) -> Iterator[str]:
    for part in plan.parts:
        if part.train_dataset is not None:
            yield f"Train on {describe_dataset(DatasetInfo(**part.train_dataset))}: {_steps(part)}."
        if part.warning:
            yield f"{part.warning[0].upper()}{part.warning[1:]}."
        yield f"Evaluate on {describe_dataset(DatasetInfo(**part.dataset))}."
        if part.recipe is not None:
            yield f"Recipe {part.recipe['name']} for {part.task}: {_values(part.recipe)}."
        protocol = describe_protocol(Protocol(**part.protocol))
        yield f"Protocol for {part.task}: {protocol}; batch size {part.batch_size}."
    shared = f", which share {plan.lanes}" if plan.lanes < plan.at_once else ""
    yield f"Device {plan.device}, {plan.at_once} at a time{shared}; output in {plan.output}."
    machine = (
        "this machine" if plan.measured_on == plan.device else "the CPU of this machine, which has no GPU"
    )
    probes = " and ".join(part.probe for part in plan.parts)
    scaled = any(part.probe in PROBES.values() for part in plan.parts)
    how = ", scaled by multiply-adds; a network can take half or twice as long" if scaled else ""
    yield (
        f"Estimated total: {duration(plan.seconds)}, and up to {size(plan.disk_bytes)} of disk space. Times "
        f"are those of {probes} on {machine}{how}."
    )


def _steps(part: PlannedPart) -> str:
    micro_batches = f" in {part.micro_batches} micro-batches" if part.micro_batches > 1 else ""
    batches = f"batches of {part.recipe['batch_size']}{micro_batches}" if part.recipe else ""
    return f"{part.steps_per_epoch:,} steps per epoch, {part.steps:,} in all, with {batches}"


def _values(recipe: dict[str, Any]) -> str:
    values = {key: value for key, value in recipe.items() if key not in WORDS | {"name"}}
    return ", ".join(f"{key} {value}" for key, value in flattened(values).items())


def duration(seconds: float) -> str:
    """Format a duration in the unit that fits: ``45 s``, ``12 min``, ``3.5 h``, ``2.1 d``."""
    for unit, length in (("d", 86400), ("h", 3600)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
