"""The runs of the page: their records, recipes, environments, training curves and figures."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdabench.analysis.inspection import has_inspection
from sdabench.data.official import plural
from sdabench.errors import UsageError
from sdabench.nested import flattened
from sdabench.paths import results_dir
from sdabench.records.record import Record, stored_record_files
from sdabench.records.store import distinct_runs, records_of
from sdabench.records.studies import StudyFolder
from sdabench.report.sheet import Cell, Heading, Sheet, headings, row
from sdabench.report.summary import (
    describe_dataset,
    describe_protocol,
    describe_training,
    metric_name,
    standard_error_text,
)
from sdabench.tools.report.charts import Chart, curves_chart
from sdabench.tools.report.claims_grids import Anchors, network_cell
from sdabench.tools.report.grid import Grid, Note
from sdabench.tools.report.inspections import inspection_charts, inspection_grids
from sdabench.tools.report.run_figures import plot_command, run_figures

MOST_RECORDS = 800  # on the page: each takes about 1.4 kB
MOST_BYTES = 1_600_000  # of the figures of all runs: the page stays below 5 MB


@dataclass(frozen=True)
class Run:
    """Records that were read from one path, which the page calls ``label``; before any evaluation, none."""

    path: Path
    label: str
    records: Sequence[Record]

    @property
    def folder(self) -> Path:
        """The output folder."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def succeeded(self) -> bool:
        """Whether any job succeeded; frames of measured values refuse a run without."""
        return any(record.failure is None for record in self.records)

    @property
    def summary(self) -> str:
        if not self.records:
            if has_inspection(self.folder):
                return "No records: networks were inspected, but not evaluated"
            return "No records: no training of this run was evaluated yet"
        failed = sum(record.failure is not None for record in self.records)
        networks = len({record.model for record in self.records})
        comparable = sum(record.comparable for record in self.records)
        counted = f"{plural(len(self.records), 'record')} of {plural(networks, 'network')}"
        jobs = plural(failed, "job")
        compared = f"{comparable or 'none':{',' * bool(comparable)}} comparable with printed numbers"
        return f"{counted}; {compared}{f'; {jobs} failed' if failed else ''}"


@dataclass(frozen=True)
class Details:
    """A titled list of values, such as a recipe, and the networks that it belongs to."""

    title: str
    items: Sequence[tuple[str, str]]
    networks: Sequence[str]


@dataclass(frozen=True)
class RunSection:
    """What the page shows of a run; ``left_out`` says which figures it lacks, and why.

    ``inspected`` are the tables of its inspections.
    """

    id: str
    run: Run
    grid: Grid | None
    details: Sequence[Details]
    charts: Sequence[Chart]
    left_out: Sequence[str]
    inspected: Sequence[Grid] = ()


def read_runs(paths: Iterable[Path]) -> list[Run]:
    """Read the records of runs, each once; without any, those of ``results/``.

    Raises:
        UsageError: a run has neither records nor training curves.
        SdabenchError: records are damaged.
    """
    if runs := distinct_runs(paths):
        return [Run(path, str(path), _records(path)) for path in runs]
    own = results_dir()
    return [
        Run(
            file,
            str(file.relative_to(own.parent)) if file.is_relative_to(own) else str(file),
            records_of(file),
        )
        for file in stored_record_files()
    ]


def _records(path: Path) -> list[Record]:
    try:
        return records_of(path)
    except UsageError:
        if not _has_curves(path) and not has_inspection(path) and not StudyFolder(path).has_study:
            raise
        return []


def _has_curves(folder: Path) -> bool:
    """Return whether a training has logged anything; reading the log imports torch."""
    return any(any(folder.glob(pattern)) for pattern in ("metrics.jsonl", "training/*/metrics.jsonl"))


def newest(runs: Iterable[Run]) -> str:
    """Return the date of the newest record, YYYY-MM-DD; empty without records."""
    return max((record.created for run in runs for record in run.records), default="")[:10]


def run_sections(runs: Sequence[Run], anchors: Anchors, shipped: bool) -> list[RunSection]:
    """Show all runs; ``shipped`` records have neither trainings nor predictions."""
    sections, free = [], MOST_BYTES
    for number, run in enumerate(runs, 1):
        name, shown = f"run-{number}", run.records[-MOST_RECORDS // len(runs) :]
        grid = _records_grid(run, name, shown, anchors) if shown else None
        details = _details(((record.model, record.recipe) for record in run.records), "Recipe")
        details += _details(((record.model, record.environment) for record in run.records), "Environment")
        drawn, left_out = ([], []) if shipped else _charts(run, name)
        charts = []
        for chart in drawn:
            if chart.size <= free:
                charts.append(chart)
                free -= chart.size
            else:
                why = "left out, because the page would be larger than 5 MB"
                left_out.append(f"{chart.title}: {why}; draw it with: {chart.command}")
        inspected = inspection_grids(run.folder, name)
        sections.append(RunSection(name, run, grid, details, charts, left_out, inspected))
    return sections


def _charts(run: Run, name: str) -> tuple[list[Chart], list[str]]:
    """Draw the training curves and the figures of predictions; say which figures a run does not allow."""
    curves = curves_chart(run.folder, f"{name}-curves") if _has_curves(run.folder) else None
    charts = [replace(curves, command=plot_command("curves", run.folder))] if curves else []
    figures, left_out = run_figures(run.path, name) if run.succeeded else ([], [])
    return charts + inspection_charts(run.folder, name) + figures, left_out


def _records_grid(run: Run, name: str, shown: Sequence[Record], anchors: Anchors) -> Grid:
    notes = [_record_note(record, f"{name}-record-{index}") for index, record in enumerate(shown)]
    measured = dict.fromkeys(key for record in shown for key in record.metrics)
    seeds = len({record.seed for record in shown}) > 1
    columns = headings("network", "task") + headings(*["seed"] * seeds, numeric=True)
    columns += [Heading(metric_name(key), "measured (%)", True) for key in measured]
    columns += [Heading("images", numeric=True), *headings("recipe", "comparable with printed numbers")]
    groups: dict[str, list[list[Cell]]] = {}
    for record, note in zip(shown, notes, strict=True):
        words = "failed" if record.failure else "yes" if record.comparable else "no"
        cells = row(
            network_cell(record.model, anchors),
            record.task,
            *(["-" if record.seed is None else record.seed] if seeds else []),
            *(_metric_text(record, key) for key in measured),
            f"{record.samples:,}",
            str((record.recipe or {}).get("name", "given weights")),
            Cell(words, opens=note.id),
        )
        groups.setdefault(record.task, []).append(cells)
    more = len(run.records) - len(shown)
    remarks = [f"{plural(more, 'earlier record')} left out, to keep the page small."] if more else []
    sheet = Sheet(f"Records of {run.label}", columns, list(groups.values()), remarks)
    return Grid(f"{name}-records", sheet, notes=notes)


def _metric_text(record: Record, key: str) -> str:
    if key not in record.metrics:
        return "-"
    error = standard_error_text(record, key)
    return f"{record.metrics[key]:.2f}{f' ± {error}' if error else ''}"


def _record_note(record: Record, name: str) -> Note:
    """List what a record states apart from its recipe and environment."""
    items: list[tuple[str, str]] = []
    if record.failure is not None:
        items.append(("Failure", f"{record.failure.kind}: {record.failure.message}"))
    items += [("Obstacle", each) for each in record.obstacles if record.failure is None]
    items += [("Condition", each) for each in record.remarks]
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
