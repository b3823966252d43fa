"""Show the variants of a network in one table: counts, and accuracies if they were trained."""

from collections.abc import Sequence
from itertools import groupby
from statistics import mean, stdev

from sdabench.report.accuracy import measurement_notes, note_cell, result_cell
from sdabench.report.cells import interval_text, number, p_text, signed
from sdabench.report.sheet import Cell, Heading, Sheet, headings, row
from sdabench.tools.ablate.results import AblationRow

ONE_CHOICE = "Each variant differs from {base} in one choice. One multiply-add counts as one operation."

PAIRED = "Δ of accuracy: paired by seed, with a t-test. p: after Holm's correction over the variants."


def ablation_sheet(base: str, rows: Sequence[AblationRow]) -> Sheet:
    """Show a row for each variant, grouped by what is varied; the first row is the network itself."""
    records = [record for each in rows for record in each.records]
    size = "x".join(map(str, rows[0].count.input[:0:-1]))
    columns = [Heading("variant"), Heading("model")]
    columns += headings("count", "Δ", over="parameters", numeric=True)
    columns += headings("count", "Δ", over=f"multiply-adds at {size}", numeric=True)
    notes = [ONE_CHOICE.format(base=base)]
    seeds = any(len(each.accuracies) > 1 for each in rows)
    noted = any(note_cell(each.records).text for each in rows) if records else False
    if records:
        over = "top-1 accuracy (%)"
        columns += headings("measured", *(["± std"] if seeds else []), "Δ", over=over, numeric=True)
        columns += [Heading("95 % interval of Δ", over), Heading("p", over, numeric=True)] if seeds else []
        columns += [Heading("training"), *([Heading("note")] if noted else [])]
        notes += measurement_notes([record for record in records if record.failure is None])
    if seeds:
        notes.append(PAIRED)
    cells = {
        each.variant.name: [
            *_counts(each, is_base=each.variant.name == base),
            *(_accuracy(each, seeds) if records else []),
            *([note_cell(each.records)] if noted else []),
        ]
        for each in rows
    }
    groups = groupby(rows, key=lambda each: each.variant.group)
    shown = [[cells[each.variant.name] for each in group] for _, group in groups]
    return Sheet(f"Variants of {base}", columns, shown, notes)


def _counts(each: AblationRow, is_base: bool) -> list[Cell]:
    changes = [Cell() if is_base else Cell(_change(value)) for value in (each.added_params, each.added_macs)]
    counts = each.count.params, each.count.macs
    numbers = [cell for count, change in zip(counts, changes, strict=True) for cell in (f"{count:,}", change)]
    return row(Cell(each.variant.choice, bold=is_base), each.variant.name, *numbers)


def _change(value: int) -> str:
    return f"{value:+,}".replace("-", "−") if value else "0"


def _accuracy(each: AblationRow, seeds: bool) -> list[Cell]:
    values = each.accuracies
    cells = [Cell(number(mean(values) if values else None, 2))]
    if seeds:
        cells.append(Cell(number(stdev(values), 2) if len(values) > 1 else ""))
    cells.append(Cell("" if each.added_accuracy is None else signed(each.added_accuracy, 2)))
    if seeds:
        estimate = each.difference
        cells.append(Cell("" if estimate is None else interval_text(estimate.interval)))
        cells.append(Cell("" if each.p is None else p_text(each.p)))
    return [*cells, result_cell([record for record in each.records if record.failure is None])]
