"""Show the tables of the paper beside the measured values, as sheets or CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from sdabench.claims.tables import ClaimVerdict, ComparedRow, ComparedTable, tables_family
from sdabench.complexity.conventions import CONVENTIONS, MODULES_ONLY
from sdabench.registry import Table
from sdabench.registry.schema import Column
from sdabench.report.cells import difference, measured_number, number, tolerance, verdict_cell
from sdabench.report.sheet import Cell, Heading, Sheet
from sdabench.report.summary import condition_notes
from sdabench.report.trainings import TOLERANCE_NOTE, remark_notes, training_notes
from sdabench.terminal import csv_text
from sdabench.tex import Tex

Mark = Literal["paper", "best", "none"]
CSV_COLUMNS = ("reported", "measured", "delta", "verdict", "other_convention")  # of each column of the paper
OTHER_CONVENTION = "Where a verdict names another convention, measured and Δ are counted under it."


def table_sheet(compared: ComparedTable, brief: bool = False, mark: Mark = "paper") -> Sheet:
    """Show the paper's number, the measured value, their difference and the verdict for each column.

    A column without any measured value shows the paper's numbers alone. A number that matches under another
    convention is measured under it.

    Args:
        brief: show size and cost alone, without notes on source and conditions.
        mark: ``paper`` shows bold what is bold in the paper: the best accuracy or AP of each group, except
            for one slip (Mask-RCNN's AP of small objects, 24.2 instead of 25.2). ``best`` marks the best
            and second best number of each group, see :func:`ranked`. Measured numbers take part only if
            they are counted under the table's own convention.
    """
    table, rows = compared.table, compared.rows
    columns = table.counted if brief else table.columns
    measured = {column.key for column in columns if any(row.measured[column.key] is not None for row in rows)}
    dimension = table.dimension_header if not brief else None
    headings = [Heading(table.label_header), *([Heading(dimension)] if dimension else [])]
    for column in columns:
        over = Tex(f"{column.header} ({column.unit})")
        headings.append(Heading("paper", over, numeric=True))
        if column.key in measured:
            headings += [Heading("measured", over, numeric=True), Heading("Δ", over, numeric=True)]
            if column.convention is None:
                headings.append(Heading("±", over, numeric=True))
            headings.append(Heading("verdict", over))
    groups: dict[str, list[ComparedRow]] = {}
    for row in rows:
        groups.setdefault(row.row.group, []).append(row)
    cells = []
    for group in groups.values():
        shown = [[Cell(row.row.label) for row in group]]
        shown += [[Cell(row.row.dimension or "-") for row in group]] if dimension else []
        for column in columns:
            shown += _column_cells(group, column, column.key in measured, mark)
        cells.append([list(row) for row in zip(*shown, strict=True)])
    notes = [] if brief else _notes(table, measured, mark)
    notes += _convention_notes(compared, measured)
    if not brief and counts_modules_only(compared.claims):
        notes.append(MODULES_ONLY)
    notes += [] if brief else [*_training_notes(compared), *condition_notes(compared.conditions)]
    return Sheet(table.title, headings, cells, notes)


def counts_modules_only(claims: Iterable[ClaimVerdict]) -> bool:
    """Return whether a measured value is a total that counts no functions."""
    return any(claim.convention in CONVENTIONS and claim.measured is not None for claim in claims)


def _column_cells(
    group: Sequence[ComparedRow], column: Column, with_measured: bool, mark: Mark
) -> list[list[Cell]]:
    """Return the cells of a group for one column: reported, measured, difference and verdict."""
    key = column.key
    reported = [
        Cell(number(row.row.reported[key], column.decimals), bold=mark == "paper" and key in row.row.bold)
        for row in group
    ]
    measured = [Cell(measured_number(row.measured[key], column)) for row in group]
    if mark == "best":
        reported = ranked(reported, column.higher_is_better)
        own = [row.other_convention(key) is None for row in group]
        measured = ranked(measured, column.higher_is_better, own)
    if not with_measured:
        return [reported]
    differences = [
        Cell(difference(row.row.reported[key], row.measured[key], column.decimals)) for row in group
    ]
    shown = [reported, measured, differences]
    if column.convention is None:
        shown.append([Cell(tolerance(row.judged.get(key))) for row in group])
    return [*shown, [verdict_cell(row.verdicts[key]) for row in group]]


def ranked(
    cells: Sequence[Cell], higher_is_better: bool, comparable: Sequence[bool] | None = None
) -> list[Cell]:
    """Show the best printed number bold, and underline the second best.

    Equal numbers get the same mark. If several numbers are best, none is second best. Dashes, and numbers
    that are not ``comparable``, are ignored, and a single number gets no mark.
    """
    numbers = [
        float(cell.text) if counts and cell.text != "-" else None
        for cell, counts in zip(cells, comparable or [True] * len(cells), strict=True)
    ]
    order = sorted((value for value in numbers if value is not None), reverse=higher_is_better)
    if len(order) < 2:
        return list(cells)
    best, second = order[:2]
    return [
        replace(cell, bold=value == best, underline=value == second != best)
        for cell, value in zip(cells, numbers, strict=True)
    ]


def _notes(table: Table, measured: set[str], mark: Mark) -> list[str]:
    conventions = [f"{column.convention} for {column.header}" for column in table.counted]
    unmeasured = [column.header for column in table.columns if column.key not in measured]
    notes = [
        f"Source of the paper's numbers: {table.source}.",
        f"Counting conventions of this table: {', '.join(conventions)}.",
        *([f"Not measured in any row: {', '.join(unmeasured)}."] if unmeasured else []),
        *([_legend(table.columns)] if mark == "best" else []),
        *(f"{row.label}: {row.note}" for row in table.rows if row.note),
    ]
    return [*map(Tex, notes)]


def _convention_notes(compared: ComparedTable, measured: set[str]) -> list[str]:
    """Explain measured values under another convention, which only the verdict of a match names."""
    notes: dict[str, None] = {}
    for row in compared.rows:
        for column in compared.table.counted:
            counter, verdict = row.other_convention(column.key), row.verdicts[column.key]
            if column.key in measured and counter is not None and verdict is not None:
                unnamed = Tex(f"{row.row.label}: its {column.header} are counted under {counter}.")
                notes[OTHER_CONVENTION if verdict.name == "match" else unnamed] = None
    return list(notes)


def _training_notes(compared: ComparedTable) -> list[str]:
    judged = [(key, each) for row in compared.rows for key, each in row.judged.items()]
    notes = training_notes(judged, tables_family([compared]))
    notes = [TOLERANCE_NOTE, *notes] if notes else []
    return [*map(Tex, [*notes, *remark_notes(compared.records)])]


def _legend(columns: Iterable[Column]) -> str:
    lowest = ", ".join(column.header for column in columns if not column.higher_is_better)
    highest = ", ".join(column.header for column in columns if column.higher_is_better)
    return (
        f"Bold: best of a group, underlined: second best (lowest {lowest}; highest {highest}). "
        "The paper's numbers and the measured ones are ranked separately."
    )


def tables_csv(tables: Iterable[ComparedTable]) -> str:
    """Format tables as CSV: one line for each row, with unrounded numbers.

    Every column of the paper has five columns; the last names the convention of the measured value, if it
    is not that of the column. Dashes, and columns that a table does not have, are empty.
    With several tables, the first column names the table.
    """
    tables = list(tables)
    keys = dict.fromkeys(column.key for compared in tables for column in compared.table.columns)
    names = ["table"] if len(tables) > 1 else []
    names += ["label", "group", "dimension", "model", "bold"]
    names += [f"{key}_{kind}" for key in keys for kind in CSV_COLUMNS]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for compared in tables:
        writer.writerows({"table": compared.table.name} | _csv_line(row) for row in compared.rows)
    return text.getvalue()


def _csv_line(compared: ComparedRow) -> dict[str, object]:
    row = compared.row
    texts = {"label": row.label, "group": row.group, "dimension": row.dimension or "", "model": row.model}
    line: dict[str, object] = {key: csv_text(text) for key, text in texts.items()}
    line["bold"] = " ".join(row.bold)
    for key, reported in row.reported.items():
        measured = compared.measured[key]
        delta = None if reported is None or measured is None else measured - reported
        line |= {f"{key}_reported": reported, f"{key}_measured": measured}
        line |= {f"{key}_delta": delta, f"{key}_verdict": compared.verdicts[key]}
        line[f"{key}_other_convention"] = compared.other_convention(key)
    return line
