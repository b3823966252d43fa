"""Show the table of a run: training losses, accuracies beside the paper's, and verdicts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import mean, stdev

from sdabench.claims.accuracy import RowVerdicts, rows_family
from sdabench.claims.tables import accuracy_columns
from sdabench.data.official import plural
from sdabench.records.conditions import differences
from sdabench.records.record import Record
from sdabench.registry import Table
from sdabench.registry.schema import Column
from sdabench.report.cells import number, tolerance, verdict_cell
from sdabench.report.sheet import Cell, Heading, Sheet
from sdabench.report.summary import condition_notes, describe_dataset, standard_error_text
from sdabench.report.trainings import TOLERANCE_NOTE, training_notes
from sdabench.tex import Tex

_Column = tuple[Heading, Callable[[RowVerdicts], Cell]]
METRIC_NAMES = {"classification": "accuracy", "detection": "box AP", "segmentation": "mask AP"}


def accuracy_sheet(table: Table, rows: Sequence[RowVerdicts]) -> Sheet:
    """Show one row for each model, with measurements or the reason why there are none.

    With several seeds, a row shows mean and standard deviation.

    Args:
        table: the tables of the task, joined by :func:`sdabench.claims.accuracy.joined`, for the columns.
        rows: the rows of :func:`sdabench.claims.accuracy.run_verdicts`.
    """
    records = [record for row in rows for record in row.records]
    trained = any(record.training for record in records)
    columns: list[_Column] = [
        (Heading("network"), lambda row: Cell(row.row.label)),
        (Heading("model"), lambda row: Cell(row.row.model)),
        *(_training_columns() if trained else []),
        *(column for metric in accuracy_columns(table) for column in _metric_columns(table, metric, rows)),
    ]
    if _have_seeds(rows):
        columns.append((Heading("seeds", numeric=True), _seeds_cell))
    if any(note_cell(row.records).text for row in rows):
        columns.append((Heading("note"), lambda row: note_cell(row.records)))
    groups: dict[str, list[list[Cell]]] = {}
    for row in rows:
        groups.setdefault(row.row.group, []).append([cell(row) for _, cell in columns])
    name = METRIC_NAMES[table.task]
    title = f"Training and {name}" if trained else name[0].upper() + name[1:]
    notes = measurement_notes([record for row in rows for record in row.measured])
    judged = training_notes([pair for row in rows for pair in row.by_metric.items()], rows_family(rows))
    notes += [TOLERANCE_NOTE, *judged] if judged else []
    return Sheet(title, [heading for heading, _ in columns], list(groups.values()), notes)


def _have_seeds(rows: Iterable[RowVerdicts]) -> bool:
    return any(len(row.records) > 1 for row in rows)


def _seeds_cell(row: RowVerdicts) -> Cell:
    return Cell(str(len(row.compared or row.measured)) if row.records else "")


def _training_columns() -> list[_Column]:
    over = "training loss"
    return [
        (Heading("first step", over, numeric=True), lambda row: _loss_cell(row, "first_loss")),
        (Heading("last epoch", over, numeric=True), lambda row: _loss_cell(row, "last_loss")),
        (Heading("result", over), lambda row: result_cell(row.measured)),
    ]


def _loss_cell(row: RowVerdicts, name: str) -> Cell:
    losses = [getattr(record.training, name) for record in row.measured if record.training is not None]
    return Cell(number(mean(losses) if losses else None, 3))


def result_cell(records: Sequence[Record]) -> Cell:
    """State whether the networks of all seeds fit and are sound; empty if that was not checked."""
    trainings = [record.training for record in records if record.training is not None]
    fits = [training.fits for training in trainings]
    unsound = sum(bool(training.unsound) for training in trainings)
    verb = "fit" if any(record.task == "classification" for record in records) else "fall"
    faults = []
    if False in fits:
        faults.append(f"does not {verb}" if len(fits) == 1 else f"{fits.count(False)} do not {verb}")
    if unsound:
        faults.append("unsound" if len(fits) == 1 else f"{unsound} unsound")
    if faults:
        return Cell(", ".join(faults), tone="bad")
    if True in fits:
        return Cell(f"{verb}s", tone="good")
    return Cell("sound", tone="good") if any(each.unsound is not None for each in trainings) else Cell()


def _metric_columns(table: Table, metric: Column, rows: Sequence[RowVerdicts]) -> Iterator[_Column]:
    """Yield the columns of an accuracy or AP that the records need: paper, measured, spread, verdict."""
    records = [record for row in rows for record in row.records]
    over, key, decimals = Tex(f"{metric.header} ({metric.unit})"), metric.key, metric.decimals

    def values(row: RowVerdicts) -> list[float]:
        """Return the values that the verdict rests on; those of all records if none may be compared."""
        known = row.compared or row.measured
        return [record.metrics[key] for record in known if key in record.metrics]

    def paper(row: RowVerdicts) -> Cell:
        return Cell(number(row.row.reported.get(key), decimals), bold=key in row.row.bold)

    def measured(row: RowVerdicts) -> Cell:
        return Cell(number(mean(values(row)) if values(row) else None, decimals))

    def deviation(row: RowVerdicts) -> Cell:
        return Cell(number(stdev(values(row)), 2) if len(values(row)) > 1 else "")

    def error(row: RowVerdicts) -> Cell:
        return Cell(standard_error_text(row.measured[0], key) if values(row) else "")

    if any(record.dataset.name != "synthetic" for record in records):
        yield Heading("paper", over, numeric=True), paper
    yield Heading("measured", over, numeric=True), measured
    if _have_seeds(rows):
        yield Heading("± std", over, numeric=True), deviation
    elif table.task == "classification" or any(record.standard_errors for record in records):
        yield Heading("± s.e.", over, numeric=True), error
    if any(record.comparable for record in records):
        yield Heading("±", over, numeric=True), lambda row: Cell(tolerance(row.by_metric[key]))
        yield Heading("verdict", over), lambda row: verdict_cell(row.by_metric[key].verdict)


def note_cell(records: Sequence[Record]) -> Cell:
    """State why the records of a network have no number, or what limits it; empty if nothing does."""
    failures = [record for record in records if record.failure is not None]
    if failures:
        failure = failures[0].failure
        assert failure is not None
        unexpected = f" ({failure.kind})" if failure.traceback else ""
        seed = f" with seed {failures[0].seed}" if len(records) > 1 else ""
        return Cell(f"failed{seed}{unexpected}: {failure.message}", tone="bad")
    if not records:
        return Cell("not measured", tone="dim")
    unsound = [record.training.unsound for record in records if record.training and record.training.unsound]
    if unsound:
        first, *others = unsound[0]
        return Cell(f"{first}{f'; {len(others)} more faults in the record' if others else ''}", tone="bad")
    left_out = max(len(record.dataset.skipped) for record in records)
    if left_out:
        return Cell(f"without {left_out} broken validation images", tone="fair")
    skipped = sum(record.training.skipped_images for record in records if record.training is not None)
    if skipped:
        return Cell(f"skipped broken images {plural(skipped, 'time')}", tone="fair")
    return Cell("" if records[0].weights.trained else "random weights", tone="dim")


def measurement_notes(records: Sequence[Record]) -> list[str]:
    """List how the numbers of a table were measured; ``records`` are those of successful jobs."""
    notes = [_training_note(record) for record in records if record.training is not None]
    notes += [f"Measured on {describe_dataset(record.dataset)}." for record in records]
    notes += [sentence for record in records for sentence in (*record.obstacles, *record.remarks)]
    if any(record.standard_errors for record in records):
        notes.append("The standard errors of AP are estimated by a bootstrap over the images.")
    if any(record.training is not None and record.training.frozen is False for record in records):
        notes.append("The detectors were trained from random weights, so no layer was frozen.")
    return list(dict.fromkeys([*notes, *condition_notes(differences(records))]))


def _training_note(record: Record) -> str:
    recipe, dataset = record.recipe, record.train_dataset
    assert recipe is not None
    assert dataset is not None
    note = (
        f"Trained with the recipe {recipe['name']} for {plural(recipe['epochs'], 'epoch')} on "
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
    if record.training is not None and record.training.unsound is not None:
        note += " Each network's gradients, batch norms, blocks and attention were checked before training."
    return note
