"""The accuracies of a run, beside those that the README claims."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sdabench.data.description import DatasetInfo
from sdabench.evidence.compare import judge_metric
from sdabench.evidence.records import Record
from sdabench.evidence.verdicts import standard_error_pct
from sdabench.registry import Row, Table
from sdabench.report.comparison import number, verdict_cell
from sdabench.report.table import Cell, Heading, Sheet


def accuracy_sheet(
    tables: Sequence[Table], models: Sequence[str], records: Mapping[str, Record]
) -> tuple[Sheet, list[str]]:
    """Each network of ``models`` once, in README order, with its record or the reason it has none.

    Returns:
        The sheet, and the names of the verdicts in it.
    """
    comparable = any(record.comparable for record in records.values())
    columns = [column for column in tables[0].columns if column.convention is None]
    headings = [Heading("network"), Heading("model")]
    for column in columns:
        over = f"{column.header} ({column.unit})"
        headings += [
            Heading("README", over, True),
            Heading("here", over, True),
            Heading("± s.e.", over, True),
        ]
        headings += [Heading("verdict", over)] if comparable else []
    headings.append(Heading("note"))
    verdicts: list[str] = []
    groups: dict[str, list[list[Cell]]] = {}
    for row in _once(tables, models):
        record = records.get(row.model)
        cells = [Cell(row.label), Cell(row.model)]
        for column in columns:
            reported = row.reported[column.key]
            measured = None if record is None else record.metrics.get(column.key)
            verdict = judge_metric(reported, column, record)
            verdicts.append(verdict.name)
            cells += [
                Cell(number(reported, column.decimals), bold=column.key in row.bold),
                Cell(number(measured, column.decimals)),
                Cell(_error(measured, record)),
                *([verdict_cell(verdict)] if comparable else []),
            ]
        groups.setdefault(row.group, []).append([*cells, _note(record)])
    return Sheet("Accuracy", headings, list(groups.values()), _notes(records.values())), verdicts


def _once(tables: Sequence[Table], models: Sequence[str]) -> Iterator[Row]:
    seen = set()
    for row in (row for table in tables for row in table.rows):
        if row.model in models and row.model not in seen:
            seen.add(row.model)
            yield row


def _error(measured: float | None, record: Record | None) -> str:
    """The standard error; nothing where no image, or every image, was right and it says nothing."""
    if measured is None or record is None or measured in (0, 100):
        return ""
    return f"{standard_error_pct(measured, record.samples):.2f}"


def _note(record: Record | None) -> Cell:
    if record is None:
        return Cell("not built yet", tone="dim")
    if record.failure is not None:
        unexpected = f" ({record.failure.kind})" if record.failure.traceback else ""
        return Cell(f"failed{unexpected}: {record.failure.message}", tone="bad")
    return Cell("" if record.weights.trained else "random weights", tone="dim")


def _notes(records: Iterable[Record]) -> list[str]:
    good = [record for record in records if record.failure is None]
    notes = [
        f"Measured on {text}." for text in dict.fromkeys(describe_dataset(record.dataset) for record in good)
    ]
    if any(not record.weights.trained for record in good):
        notes.append(
            "Random weights are no trained weights: their accuracy is chance, and no claim is tested by it."
        )
    if any(not record.dataset.complete for record in good):
        notes.append("Only the whole ImageNet validation set is compared with the README.")
    return notes


def describe_dataset(dataset: DatasetInfo) -> str:
    """The dataset as what it is."""
    if dataset.complete:
        return f"the ImageNet validation set ({dataset.samples:,} images)"
    return f"{dataset.samples:,} images of {dataset.classes} of the 1000 classes, in {dataset.root}"


def describe_metrics(record: Record) -> str:
    """One line: each metric with its standard error, and the dataset."""
    words = [
        f"{name} {record.metrics[key]:.2f} %"
        + (f" ± {error}" if (error := _error(record.metrics[key], record)) else "")
        for key, name in (("top1_pct", "top-1"), ("top5_pct", "top-5"))
    ]
    return f"{record.model}: {', '.join(words)}, on {describe_dataset(record.dataset)}"
