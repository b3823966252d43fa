"""The runs of the page: their records, recipes, environments and training curves."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdabench.data.official import plural
from sdabench.nested import flattened
from sdabench.paths import results_dir
from sdabench.records.record import Record, stored_record_files
from sdabench.records.store import records_of
from sdabench.report.summary import (
    METRICS,
    describe_dataset,
    describe_protocol,
    describe_training,
    standard_error_text,
)
from sdabench.tools.report.charts import Chart, curves_chart
from sdabench.tools.report.grid import Cell, Grid, Group, Head, Note


@dataclass(frozen=True)
class Run:
    """Records that were read from one path, which the page calls ``label``."""

    path: Path
    label: str
    records: Sequence[Record]

    @property
    def succeeded(self) -> bool:
        """Whether any job succeeded; frames of measured values refuse a run without."""
        return any(record.failure is None for record in self.records)

    @property
    def summary(self) -> str:
        failed = sum(record.failure is not None for record in self.records)
        networks = len({record.model for record in self.records})
        comparable = sum(record.comparable for record in self.records)
        counted = f"{plural(len(self.records), 'record')} of {plural(networks, 'network')}"
        jobs = plural(failed, "job")
        beside = f"{comparable or 'none':{',' * bool(comparable)}} may stand beside the paper"
        return f"{counted}; {beside}{f'; {jobs} failed' if failed else ''}"


@dataclass(frozen=True)
class Details:
    """A titled list of values, such as a recipe, and the networks that it belongs to."""

    title: str
    items: Sequence[tuple[str, str]]
    networks: Sequence[str]


@dataclass(frozen=True)
class RunSection:
    id: str
    run: Run
    grid: Grid
    recipes: Sequence[Details]
    environments: Sequence[Details]
    curves: Chart | None


def read_runs(paths: Iterable[Path]) -> list[Run]:
    """Read the records of runs, each once; without any, those of ``results/``.

    Raises:
        UsageError: a run has no records.
        SdabenchError: records are damaged.
    """
    given = list({path.resolve(): path for path in paths}.values())
    if given:
        return [Run(path, str(path), records_of(path)) for path in given]
    parent = results_dir().parent
    files = stored_record_files()
    return [Run(file, file.relative_to(parent).as_posix(), records_of(file)) for file in files]


def newest(runs: Iterable[Run]) -> str:
    """Return the date of the newest record, YYYY-MM-DD."""
    return max(record.created for run in runs for record in run.records)[:10]


def run_section(run: Run, number: int) -> RunSection:
    name = f"run-{number}"
    notes = [_record_note(record, f"{name}-record-{index}") for index, record in enumerate(run.records)]
    logs = (*run.path.glob("metrics.jsonl"), *run.path.glob("training/*/metrics.jsonl"))
    curves = curves_chart(run.path, f"{name}-curves") if logs else None  # it imports torch
    grid = _records_grid(run, name, notes)
    recipes = [(record.model, record.recipe) for record in run.records]
    environments = [(record.model, record.environment) for record in run.records]
    return RunSection(
        name, run, grid, _details(recipes, "Recipe"), _details(environments, "Environment"), curves
    )


def _records_grid(run: Run, name: str, notes: Sequence[Note]) -> Grid:
    measured = dict.fromkeys(key for record in run.records for key in record.metrics)
    seeds = len({record.seed for record in run.records}) > 1
    heads = [Head("network"), Head("task"), *([Head("seed", numeric=True)] if seeds else [])]
    heads += [Head(METRICS.get(key, key), "measured (%)", True) for key in measured]
    heads += [Head("images", numeric=True), Head("recipe"), Head("beside the paper")]
    groups: dict[str, list[list[Cell]]] = {}
    for record, note in zip(run.records, notes, strict=True):
        cells = [Cell(record.model, link=f"#{record.model}"), Cell(record.task)]
        cells += [Cell("–" if record.seed is None else str(record.seed), record.seed)] if seeds else []
        cells += [_metric_cell(record, key) for key in measured]
        cells.append(Cell(f"{record.samples:,}", record.samples))
        cells.append(Cell(str((record.recipe or {}).get("name", "given weights"))))
        words = "failed" if record.failure else "yes" if record.comparable else "no"
        cells.append(Cell(words, opens=note.id))
        groups.setdefault(record.task, []).append(cells)
    return Grid(
        f"{name}-records",
        f"Records of {run.label}",
        heads,
        [Group("", rows) for rows in groups.values()],
        (),
        notes,
    )


def _metric_cell(record: Record, key: str) -> Cell:
    if key not in record.metrics:
        return Cell("–")
    error = standard_error_text(record, key)
    return Cell(f"{record.metrics[key]:.2f}{f' ± {error}' if error else ''}", record.metrics[key])


def _record_note(record: Record, name: str) -> Note:
    """List what a record states apart from its recipe and environment."""
    items: list[tuple[str, str]] = []
    if record.failure is not None:
        items.append(("Failure", f"{record.failure.kind}: {record.failure.message}"))
    items += [("Obstacle", each) for each in record.obstacles if record.failure is None]
    items += [("Remark", each) for each in record.remarks]
    items.append(("Dataset", describe_dataset(record.dataset)))
    if record.protocol is not None:
        items.append(("Protocol", describe_protocol(record.protocol)))
    if record.training is not None and record.train_dataset is not None:
        items.append(("Training", describe_training(record).removeprefix(f"{record.model}: ")))
    digests = {
        "Spec digest": record.spec_digest,
        "Weights digest": record.weights.sha256,
        "Dataset digest": record.dataset.fingerprint_sha256 or record.dataset.listing_sha256,
        "Predictions digest": record.predictions_sha256,
        "Revision": record.git_revision,
    }
    items += [(label, digest) for label, digest in digests.items() if digest]
    items += [("Weights", record.weights.source), ("Created", record.created)]
    items.append(("Wall time", f"{record.wall_seconds:,.1f} s"))
    return Note(name, f"{record.model}, {record.task}", items)


def _details(values: Iterable[tuple[str, dict[str, Any] | None]], kind: str) -> list[Details]:
    """List different values once, each with the networks whose records have it."""
    distinct: dict[str, tuple[dict[str, Any], dict[str, None]]] = {}
    for model, value in values:
        if value:
            key = json.dumps(value, sort_keys=True)
            distinct.setdefault(key, (value, {}))[1][model] = None
    return [
        Details(
            _title(value, kind), [(key, _text(each)) for key, each in flattened(value).items()], list(models)
        )
        for value, models in distinct.values()
    ]


def _title(value: dict[str, Any], kind: str) -> str:
    if kind == "Recipe":
        return f"Recipe {value.get('name', 'unnamed')}"
    packages = value.get("packages") or {}
    torch = packages.get("torch") if isinstance(packages, dict) else None
    return f"Environment: {value.get('device', 'unknown device')}, torch {torch or 'unknown'}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
