"""The table of a run: training losses, accuracies beside the paper's, and verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from sdabench.claims.accuracy import RowVerdicts
from sdabench.claims.tables import accuracy_columns
from sdabench.records.record import Record
from sdabench.registry import Table
from sdabench.registry.schema import Column
from sdabench.report.cells import number, verdict_cell
from sdabench.report.sheet import Cell, Heading, Sheet
from sdabench.report.summary import describe_dataset, standard_error_text

METRIC_NAMES = {"classification": "accuracy", "detection": "box AP", "segmentation": "mask AP"}


@dataclass(frozen=True)
class _Layout:
    """The columns that the records call for."""

    columns: list[Column]
    paper: bool  # the paper's numbers, for real datasets
    errors: bool  # standard errors, some of which may be unknown
    verdicts: bool
    trained: bool
    seeds: bool
    notes: bool

    @classmethod
    def of(cls, table: Table, rows: Sequence[RowVerdicts]) -> "_Layout":
        records = [record for row in rows for record in row.records]
        return cls(
            columns=accuracy_columns(table),
            paper=any(record.dataset.name != "synthetic" for record in records),
            errors=table.task == "classification" or any(record.standard_errors for record in records),
            verdicts=any(record.comparable for record in records),
            trained=any(record.training for record in records),
            seeds=any(len(row.records) > 1 for row in rows),
            notes=any(_note(row.records).text for row in rows),
        )

    @property
    def headings(self) -> list[Heading]:
        headings = [Heading("network"), Heading("model")]
        if self.trained:
            over = "training loss"
            headings += [Heading("first step", over, True), Heading("last epoch", over, True)]
            headings.append(Heading("result", over))
        for column in self.columns:
            over = f"{column.header} ({column.unit})"
            headings += [Heading("paper", over, True)] if self.paper else []
            headings += [Heading("measured", over, True)]
            if self.seeds or self.errors:
                headings += [Heading("± std" if self.seeds else "± s.e.", over, True)]
            headings += [Heading("verdict", over)] if self.verdicts else []
        headings += [Heading("seeds", numeric=True)] if self.seeds else []
        return headings + ([Heading("note")] if self.notes else [])


def accuracy_sheet(table: Table, rows: Sequence[RowVerdicts]) -> Sheet:
    """Show one row for each model, with its measurements or the reason why there are none.

    With several seeds, the measurements are their mean and standard deviation.

    Args:
        table: the first table of the task, for its columns.
        rows: the rows of :func:`sdabench.claims.accuracy.run_verdicts`.
    """
    layout = _Layout.of(table, rows)
    groups: dict[str, list[list[Cell]]] = {}
    for row in rows:
        cells = [Cell(row.row.label), Cell(row.row.model)]
        cells += _training_cells(row.measured) if layout.trained else []
        for column in layout.columns:
            cells += _accuracy_cells(row, column, layout)
        if layout.seeds:
            cells.append(Cell(str(len(row.measured)) if row.records else ""))
        cells += [_note(row.records)] if layout.notes else []
        groups.setdefault(row.row.group, []).append(cells)
    name = METRIC_NAMES[table.task]
    title = f"Training and {name}" if layout.trained else name[0].upper() + name[1:]
    notes = _notes(table, [record for row in rows for record in row.measured])
    return Sheet(title, layout.headings, list(groups.values()), notes)


def _training_cells(records: Sequence[Record]) -> list[Cell]:
    trainings = [record.training for record in records if record.training is not None]
    if not trainings:
        return [Cell("-"), Cell("-"), Cell()]
    fits = [training.fits for training in trainings]
    verb = "fit" if records[0].task == "classification" else "fall"
    result = Cell()
    if False in fits:
        words = f"does not {verb}" if len(fits) == 1 else f"{fits.count(False)} do not {verb}"
        result = Cell(words, tone="bad")
    elif True in fits:
        result = Cell(f"{verb}s", tone="good")
    losses = (mean(t.first_loss for t in trainings), mean(t.last_loss for t in trainings))
    return [*(Cell(number(loss, 3)) for loss in losses), result]


def _accuracy_cells(row: RowVerdicts, column: Column, layout: _Layout) -> list[Cell]:
    key = column.key
    values = [record.metrics[key] for record in row.measured if key in record.metrics]
    cells = []
    if layout.paper:
        cells.append(Cell(number(row.row.reported[key], column.decimals), bold=key in row.row.bold))
    cells.append(Cell(number(mean(values) if values else None, column.decimals)))
    if layout.seeds:
        cells.append(Cell(number(stdev(values), 2) if len(values) > 1 else ""))
    elif layout.errors:
        cells.append(Cell(standard_error_text(row.measured[0], key) if values else ""))
    if layout.verdicts:
        verdicts = row.by_metric[key]
        same = len(set(verdicts)) == 1
        cells.append(verdict_cell(verdicts[0]) if same else Cell(" / ".join(map(str, verdicts)), tone="fair"))
    return cells


def _note(records: Sequence[Record]) -> Cell:
    failures = [record for record in records if record.failure is not None]
    if failures:
        failure = failures[0].failure
        assert failure is not None
        unexpected = f" ({failure.kind})" if failure.traceback else ""
        seed = f" with seed {failures[0].seed}" if len(records) > 1 else ""
        return Cell(f"failed{seed}{unexpected}: {failure.message}", tone="bad")
    if not records:
        return Cell("not measured", tone="dim")
    skipped = sum(record.training.skipped_images for record in records if record.training is not None)
    if skipped:
        return Cell(f"skipped broken images {skipped} times", tone="fair")
    return Cell("" if records[0].weights.trained else "random weights", tone="dim")


def _notes(table: Table, records: Sequence[Record]) -> list[str]:
    """The notes below the table; ``records`` are those of jobs that did not fail."""
    name = METRIC_NAMES[table.task]
    notes = [_training_note(record) for record in records if record.training is not None]
    notes += [f"Measured on {describe_dataset(record.dataset)}." for record in records]
    if any(not record.weights.trained for record in records):
        notes.append("Results of random weights are not compared with the paper.")
    if any(record.dataset.name == "synthetic" for record in records):
        notes.append(f"The {name} on generated images is not compared with the paper.")
    elif any(not record.dataset.complete for record in records):
        notes.append("Only results on the complete validation set are compared with the paper.")
    elif any(not record.comparable for record in records):
        notes.append(
            "Only networks trained with the paper's recipe on the complete training set are compared with "
            "the paper."
        )
    if any(record.standard_errors for record in records):
        notes.append("The standard errors of AP are estimated by a bootstrap over the images.")
    if any(record.comparable and record.metrics and not _has_errors(record) for record in records):
        notes.append("Without a standard error, 'within' means equal at the printed decimals.")
    if any(record.training is not None and record.training.frozen is False for record in records):
        notes.append("The detectors were trained from random weights, so no layer was frozen.")
    return list(dict.fromkeys(notes))


def _has_errors(record: Record) -> bool:
    return any(record.standard_error(metric) is not None for metric in record.metrics)


def _training_note(record: Record) -> str:
    recipe, dataset = record.recipe, record.train_dataset
    assert recipe is not None
    assert dataset is not None
    note = (
        f"Trained with the recipe {recipe['name']} for {recipe['epochs']} epochs on "
        f"{describe_dataset(dataset)}."
    )
    if recipe["fit_below"] is not None:
        limit = f"below {100 * recipe['fit_below']:g} %"
        if record.task == "classification":
            note += (
                f" A network fits them if its mean loss in the last epoch is {limit} of the loss at chance."
            )
        else:
            note += f" A loss falls if its mean in the last epoch is {limit} of the loss in the first step."
    return note
