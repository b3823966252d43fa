"""What a run measured: accuracies beside those of the README, and whether networks fit what they train on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from sdabench.claims.comparison import judge_metric
from sdabench.claims.verdicts import NOT_MEASURED
from sdabench.data.description import DatasetInfo
from sdabench.records.record import Record
from sdabench.registry import Row, Table
from sdabench.registry.schema import Column
from sdabench.report.comparison import number, verdict_cell
from sdabench.report.table import Cell, Heading, Sheet

WHAT = {"classification": "accuracy", "detection": "AP of boxes", "segmentation": "AP of masks"}
NAMES = {"imagenet": "ImageNet", "coco": "COCO 2017"}
METRICS = {
    "top1_pct": "top-1", "top5_pct": "top-5",
    "ap_pct": "AP", "ap50_pct": "AP50", "ap75_pct": "AP75",
    "ap_s_pct": "AP small", "ap_m_pct": "AP medium", "ap_l_pct": "AP large",
}  # fmt: skip
Records = Mapping[str, Sequence[Record]]  # of each network, one for each seed


@dataclass(frozen=True)
class _Shape:
    """Which columns the records call for."""

    columns: list[Column]
    readme: bool  # README's numbers, which are of the real datasets
    errors: bool  # standard errors, of which at least some may be known
    verdicts: bool
    trained: bool
    seeds: bool

    @classmethod
    def of(cls, table: Table, records: Iterable[Sequence[Record]]) -> "_Shape":
        every = [record for group in records for record in group]
        return cls(
            columns=[column for column in table.columns if column.convention is None],
            readme=any(record.dataset.name != "synthetic" for record in every),
            errors=table.task == "classification" or any(record.standard_errors for record in every),
            verdicts=any(record.comparable for record in every),
            trained=any(record.training for record in every),
            seeds=any(len(group) > 1 for group in records),
        )

    @property
    def headings(self) -> list[Heading]:
        headings = [Heading("network"), Heading("model")]
        if self.trained:
            over = "training loss"
            headings += [Heading("first", over, True), Heading("last", over, True), Heading("", over)]
        for column in self.columns:
            over = f"{column.header} ({column.unit})"
            headings += [Heading("README", over, True)] if self.readme else []
            headings += [Heading("here", over, True)]
            if self.seeds or self.errors:
                headings += [Heading("± std" if self.seeds else "± s.e.", over, True)]
            headings += [Heading("verdict", over)] if self.verdicts else []
        return [*headings, *([Heading("seeds", numeric=True)] if self.seeds else []), Heading("note")]


def accuracy_sheet(
    tables: Sequence[Table], models: Sequence[str], records: Records
) -> tuple[Sheet, list[str]]:
    """Each network of ``models`` once, in README order, with its records or the reason it has none.

    Several records of a network are of several seeds: their mean, and their standard deviation.

    Returns:
        The sheet, and the names of the verdicts in it.
    """
    shape = _Shape.of(tables[0], list(records.values()))
    verdicts: list[str] = []
    groups: dict[str, list[list[Cell]]] = {}
    for row in _once(tables, models):
        of_row = records.get(row.model, ())
        cells = [Cell(row.label), Cell(row.model), *(_training_cells(of_row) if shape.trained else [])]
        for column in shape.columns:
            cells += _accuracy_cells(row, column, of_row, shape, verdicts)
        if shape.seeds:
            cells.append(Cell(str(len(_good(of_row))) if of_row else ""))
        groups.setdefault(row.group, []).append([*cells, _note(of_row)])
    every = [record for group in records.values() for record in group]
    what = WHAT[tables[0].task]
    title = f"Training and {what}" if shape.trained else what[0].upper() + what[1:]
    return Sheet(title, shape.headings, list(groups.values()), _notes(every)), verdicts


def _once(tables: Sequence[Table], models: Sequence[str]) -> Iterator[Row]:
    seen = set()
    for row in (row for table in tables for row in table.rows):
        if row.model in models and row.model not in seen:
            seen.add(row.model)
            yield row


def _good(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record.failure is None]


def _training_cells(records: Sequence[Record]) -> list[Cell]:
    trainings = [record.training for record in _good(records) if record.training is not None]
    if not trainings:
        return [Cell("-"), Cell("-"), Cell("")]
    fits = [training.fits for training in trainings]
    verb = "fit" if records[0].task == "classification" else "fall"
    words = Cell("")
    if False in fits:
        words = Cell(
            f"does not {verb}" if len(fits) == 1 else f"{fits.count(False)} do not {verb}", tone="bad"
        )
    elif True in fits:
        words = Cell(f"{verb}s", tone="good")
    losses = (mean(t.first_loss for t in trainings), mean(t.last_loss for t in trainings))
    return [*(Cell(number(loss, 3)) for loss in losses), words]


def _accuracy_cells(
    row: Row, column: Column, records: Sequence[Record], shape: _Shape, verdicts: list[str]
) -> list[Cell]:
    good = _good(records)
    values = [record.metrics[column.key] for record in good if column.key in record.metrics]
    cells = []
    if shape.readme:
        cells.append(Cell(number(row.reported[column.key], column.decimals), bold=column.key in row.bold))
    cells.append(Cell(number(mean(values) if values else None, column.decimals)))
    if shape.seeds:
        cells.append(Cell(number(stdev(values), 2) if len(values) > 1 else ""))
    elif shape.errors:
        cells.append(Cell(_error(good[0], column.key) if values else ""))
    reported = row.reported[column.key]
    of_seeds = [judge_metric(reported, column, record) for record in good] or [NOT_MEASURED]
    verdicts += [verdict.name for verdict in of_seeds]
    if shape.verdicts:
        same = len(set(of_seeds)) == 1
        cells.append(verdict_cell(of_seeds[0]) if same else Cell(" / ".join(map(str, of_seeds)), tone="fair"))
    return cells


def _error(record: Record, metric: str) -> str:
    """The standard error; nothing where nothing, or everything, was right and it says nothing."""
    error = record.standard_error(metric)
    return "" if error is None or record.metrics[metric] in (0, 100) else f"{error:.2f}"


def _has_errors(record: Record) -> bool:
    return any(record.standard_error(metric) is not None for metric in record.metrics)


def _note(records: Sequence[Record]) -> Cell:
    failures = [record for record in records if record.failure is not None]
    if failures:
        failure = failures[0].failure
        assert failure is not None
        unexpected = f" ({failure.kind})" if failure.traceback else ""
        which = f" with seed {failures[0].seed}" if len(records) > 1 else ""
        return Cell(f"failed{which}{unexpected}: {failure.message}", tone="bad")
    if not records:
        return Cell("not measured", tone="dim")
    skipped = sum(record.training.skipped_images for record in records if record.training is not None)
    if skipped:
        return Cell(f"skipped broken images {skipped} times", tone="fair")
    return Cell("" if records[0].weights.trained else "random weights", tone="dim")


def _notes(records: Sequence[Record]) -> list[str]:
    good = _good(records)
    notes = [_training_note(record) for record in good if record.training is not None]
    notes += [f"Measured on {describe_dataset(record.dataset)}." for record in good]
    if any(not record.weights.trained for record in good):
        notes.append("Random weights are no trained weights, and no claim is tested by them.")
    if any(record.dataset.name == "synthetic" for record in good):
        notes.append(f"These are generated images: no {WHAT[good[0].task]} of the README is tested by them.")
    elif any(not record.dataset.complete for record in good):
        notes.append("Only the whole validation set is compared with the README.")
    elif any(not record.comparable for record in good):
        notes.append("Only the paper's recipe, on the whole training set, is compared with the README.")
    if any(record.standard_errors for record in good):
        notes.append("The standard error of an AP is that of a bootstrap over the images.")
    if any(record.comparable and record.metrics and not _has_errors(record) for record in good):
        notes.append("The standard error of an AP is not known here: within is equal at the printed decimal.")
    if any(record.training is not None and record.training.frozen is False for record in good):
        notes.append("The detectors began with random weights, so that nothing in them was frozen.")
    return list(dict.fromkeys(notes))


def _training_note(record: Record) -> str:
    recipe, dataset = record.recipe, record.train_dataset
    assert recipe is not None
    assert dataset is not None
    name, epochs = recipe["name"], recipe["epochs"]
    note = f"Trained by the recipe {name} for {epochs} epochs on {describe_dataset(dataset)}."
    if recipe["fit_below"] is not None:
        share = f"below {100 * recipe['fit_below']:g} %"
        if record.task == "classification":
            note += f" A network fits them if its loss in the last epoch is {share} of that of chance."
        else:
            note += f" A loss falls if its mean over the last epoch is {share} of that of the first step."
    return note


def describe_dataset(dataset: DatasetInfo) -> str:
    """The dataset as what it is."""
    samples = f"{dataset.samples:,}"
    if dataset.complete:
        what = "validation" if dataset.split == "val" else "training"
        return f"the {NAMES[dataset.name]} {what} set ({samples} images)"
    if dataset.name == "synthetic":
        return f"{samples} generated images of {dataset.classes} classes"
    if dataset.name == "unknown":
        return f"{samples} images of {dataset.classes} classes"
    if dataset.name == "coco":
        return f"{samples} images with {dataset.classes} categories, in {dataset.root}"
    return f"{samples} images of {dataset.classes} of the 1000 classes, in {dataset.root}"


def describe_metrics(record: Record) -> str:
    """One line: each metric, with its standard error where one is known, and the dataset."""
    words = []
    for key, value in record.metrics.items():
        error = _error(record, key)
        words.append(f"{METRICS[key]} {value:.2f} %" + (f" ± {error}" if error else ""))
    what = {"detection": " boxes", "segmentation": " masks"}.get(record.task, "")
    fitted = record.fitted_batch_size
    memory = f"; only {fitted} of {record.batch_size} images at a time fitted into memory" if fitted else ""
    return f"{record.model}:{what} {', '.join(words)}, on {describe_dataset(record.dataset)}{memory}"


def describe_training(record: Record) -> str:
    """One line: from which loss to which, and whether that fits the training images."""
    training = record.training
    assert training is not None
    assert record.train_dataset is not None
    words = {True: ", which fits them", False: ", which does not fit them"}
    if record.task != "classification":
        words = {True: " (it falls)", False: " (it does not fall)"}
    fits = "" if training.fits is None else words[training.fits]
    frozen = {None: "", True: "; backbone frozen as the paper's", False: "; nothing frozen"}[training.frozen]
    return (
        f"{record.model}: loss {training.first_loss:.3f} to {training.last_loss:.3f}{fits}, in "
        f"{training.epochs} epochs of {describe_dataset(record.train_dataset)}{frozen}"
    )
