"""Show the tables of the paper beside the measured values, as sheets."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from math import isnan
from typing import Literal

import pandas as pd

from sdabench.claims.tables import ClaimVerdict, ComparedTable, tables_family
from sdabench.complexity import DEFAULT_INPUT
from sdabench.complexity.conventions import CONVENTIONS, MODULES_ONLY
from sdabench.registry import Table
from sdabench.registry.schema import Column
from sdabench.report.cells import TONES, measured_decimals, number, signed
from sdabench.report.frames import table_frame
from sdabench.report.sheet import Cell, Heading, Sheet
from sdabench.report.summary import condition_notes
from sdabench.report.trainings import TOLERANCE_NOTE, remark_notes, training_notes
from sdabench.tex import Tex

Mark = Literal["paper", "best", "none"]
PARTS = ("paper", "measured", "Δ", "±", "verdict")
OTHER_CONVENTION = "Where a verdict names another convention, measured and Δ are counted under it."


def table_sheet(
    compared: ComparedTable, brief: bool = False, mark: Mark = "paper", parts: Sequence[str] = PARTS
) -> Sheet:
    """Show the paper's number, the measured value, their difference and the verdict for each column.

    A column without any measured value shows the paper's numbers alone. A number that matches under another
    convention is measured under it.

    Args:
        brief: show size and cost alone, without notes on source and conditions.
        mark: ``paper`` shows bold what is bold in the paper: the best accuracy or AP of each group, except
            for one slip (Mask-RCNN's AP of small objects, 24.2 instead of 25.2). ``best`` marks the best
            and second best number of each group, see :func:`ranked`. Measured numbers take part only if
            they are counted under the table's own convention.
        parts: of each column, among :data:`PARTS`.
    """
    table, frame = compared.table, table_frame(compared)
    columns = table.counted if brief else table.columns
    measured = {column.key for column in columns if frame[column.key, "measured"].notna().any()}
    dimension = table.dimension_header if not brief else None
    shown_parts: dict[str, list[str]] = {}
    headings = [Heading(table.label_header), *([Heading(dimension)] if dimension else [])]
    for column in columns:
        over = Tex(f"{column.header} ({column.unit})")
        shown_parts[column.key] = _parts(column, column.key in measured, parts)
        headings += [Heading(part, over, numeric=part != "verdict") for part in shown_parts[column.key]]
    groups = []
    for _, group in frame.groupby("group", sort=False):
        shown = [[Cell(Tex(label)) for label in group.index.get_level_values("label")]]
        if dimension:
            shown.append([Cell(Tex(text or "-")) for text in group.index.get_level_values("dimension")])
        for column in columns:
            cells = _column_cells(group, column, mark)
            shown += [cells[part] for part in shown_parts[column.key]]
        groups.append([list(row) for row in zip(*shown, strict=True)])
    notes = [] if brief else _notes(table, measured, mark)
    if table.plugin:
        notes.insert(0, table.paper.reference)
    notes += [*_convention_notes(compared, measured), *_input_notes(compared)]
    if not brief and counts_modules_only(compared.claims):
        notes.append(MODULES_ONLY)
    if not brief:
        notes += [*_training_notes(compared, "±" in parts), *condition_notes(compared.conditions)]
    return Sheet(table.title, headings, groups, notes)


def counts_modules_only(claims: Iterable[ClaimVerdict]) -> bool:
    """Return whether a measured value is a total that counts no functions."""
    return any(claim.convention in CONVENTIONS and claim.measured is not None for claim in claims)


def _parts(column: Column, measured: bool, wanted: Sequence[str]) -> list[str]:
    """List the parts of a column that are shown."""
    if not measured:
        return ["paper"]
    return [part for part in wanted if part != "±" or column.convention is None]


def _column_cells(group: pd.DataFrame, column: Column, mark: Mark) -> dict[str, list[Cell]]:
    """Return the cells of a group for one column of the paper, by part."""

    def texts(part: str, decimals: int, write: Callable[[float, int], str] = number) -> list[Cell]:
        missing = "" if part in ("Δ", "±") else "-"
        return [
            Cell(missing if isnan(value) else write(value, decimals)) for value in group[column.key, part]
        ]

    paper = texts("paper", column.decimals)
    measured = texts("measured", measured_decimals(column))
    if mark == "paper":
        paper = [
            replace(cell, bold=bold) for cell, bold in zip(paper, group[column.key, "bold"], strict=True)
        ]
    elif mark == "best":
        paper = ranked(paper, column.higher_is_better)
        measured = ranked(
            measured, column.higher_is_better, list(group[column.key, "other_convention"].isna())
        )
    verdicts = [
        Cell(words, tone=TONES[outcome]) if isinstance(words, str) else Cell()
        for words, outcome in zip(group[column.key, "verdict"], group[column.key, "outcome"], strict=True)
    ]
    differences, tolerances = texts("Δ", column.decimals, signed), texts("±", 2)
    return {"paper": paper, "measured": measured, "Δ": differences, "±": tolerances, "verdict": verdicts}


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


def _input_notes(compared: ComparedTable) -> Iterator[str]:
    """Name the input size of each row that is not counted at the usual one, such as some of timm's."""
    usual = DEFAULT_INPUT["classification" if compared.table.task == "classification" else "detection"]
    for row in compared.rows:
        if row.input not in (None, usual):
            own, others = ("x".join(map(str, size[:0:-1])) for size in (row.input, usual))
            yield Tex(f"{row.row.label}: counted at {own}, its own input size; other networks at {others}.")


def _training_notes(compared: ComparedTable, tolerance: bool) -> list[str]:
    judged = [(key, each) for row in compared.rows for key, each in row.judged.items()]
    notes = training_notes(judged, tables_family([compared]))
    notes = [TOLERANCE_NOTE, *notes] if notes and tolerance else notes
    return [*map(Tex, [*notes, *remark_notes(compared.records)])]


def _legend(columns: Iterable[Column]) -> str:
    lowest = ", ".join(column.header for column in columns if not column.higher_is_better)
    highest = ", ".join(column.header for column in columns if column.higher_is_better)
    return (
        f"Bold: best of a group, underlined: second best (lowest {lowest}; highest {highest}). "
        "Printed numbers and measured ones are ranked separately."
    )
