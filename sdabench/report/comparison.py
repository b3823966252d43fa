"""The README's tables beside our measurements, as a sheet."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from sdabench.claims.comparison import ComparedRow
from sdabench.claims.verdicts import Verdict, rounded
from sdabench.registry import Table
from sdabench.registry.schema import Column
from sdabench.report.table import Cell, Heading, Sheet, Tone

Mark = Literal["readme", "best", "none"]
TONES: dict[str, Tone] = {
    "match": "good",
    "within": "good",
    "better": "good",
    "explained": "fair",
    "differs": "bad",
    "worse": "bad",
    "not measured": "dim",
}


def comparison_sheet(
    table: Table, rows: Sequence[ComparedRow], brief: bool = False, mark: Mark = "readme"
) -> Sheet:
    """README, ours, difference and verdict for each column; ours is left out where nothing was measured.

    Args:
        brief: size and cost alone, and no notes.
        mark: what stands out: what is bold in the README, or the ``best`` of each group, as :func:`ranked`
            has it, or nothing. The README's bold is the best accuracy or AP of each group, but for one slip
            (Mask-RCNN's AP of small objects, 24.2 instead of 25.2).
    """
    columns = table.counted if brief else table.columns
    measured = {column.key for column in columns if any(row.measured[column.key] is not None for row in rows)}
    dimension = table.dimension_header if not brief else None
    headings = [Heading(table.label_header), *([Heading(dimension)] if dimension else [])]
    for column in columns:
        over = f"{column.header} ({column.unit})"
        headings.append(Heading("README", over, numeric=True))
        if column.key in measured:
            headings += [Heading("ours", over, numeric=True), Heading("Δ", over, numeric=True)]
            headings.append(Heading("verdict", over))
    groups: dict[str, list[ComparedRow]] = {}
    for compared in rows:
        groups.setdefault(compared.row.group, []).append(compared)
    cells = []
    for group in groups.values():
        blocks = [[[Cell(compared.row.label)] for compared in group]]
        if dimension:
            blocks.append([[Cell(compared.row.dimension or "-")] for compared in group])
        blocks += [_claims(group, column, column.key in measured, mark) for column in columns]
        cells.append([[cell for block in row for cell in block] for row in zip(*blocks, strict=True)])
    return Sheet(table.title, headings, cells, [] if brief else _notes(table, measured, mark))


def _claims(group: Sequence[ComparedRow], column: Column, measured: bool, mark: Mark) -> list[list[Cell]]:
    """A column's cells, for each row of a group."""
    key = column.key
    # One digit more than the README where we count exactly, so that its last digit can be judged.
    digits = column.decimals + (column.convention is not None)
    reported = [Cell(number(compared.row.reported[key], column.decimals)) for compared in group]
    ours = [Cell(number(compared.measured[key], digits)) for compared in group]
    if mark == "readme":
        reported = [
            replace(cell, bold=key in compared.row.bold)
            for cell, compared in zip(reported, group, strict=True)
        ]
    elif mark == "best":
        reported, ours = ranked(reported, column.higher_is_better), ranked(ours, column.higher_is_better)
    if not measured:
        return [[cell] for cell in reported]
    differences = [
        Cell(difference(compared.row.reported[key], compared.measured[key], column.decimals))
        for compared in group
    ]
    verdicts = [verdict_cell(compared.verdicts[key]) for compared in group]
    return [list(cells) for cells in zip(reported, ours, differences, verdicts, strict=True)]


def ranked(cells: Sequence[Cell], higher_is_better: bool) -> list[Cell]:
    """Numbers as printed, the best of them bold and the second best underlined.

    Equal ones share the mark, and where several are the best none is second. A dash has no place, and a
    number that stands alone has nothing to be better than.
    """
    numbers = [None if cell.text == "-" else float(cell.text) for cell in cells]
    order = sorted((value for value in numbers if value is not None), reverse=higher_is_better)
    if len(order) < 2:
        return list(cells)
    best, second = order[:2]
    return [
        replace(cell, bold=value == best, underline=value == second != best)
        for cell, value in zip(cells, numbers, strict=True)
    ]


def _notes(table: Table, measured: set[str], mark: Mark) -> list[str]:
    conventions = [f"{column.header}: {column.convention}" for column in table.counted]
    unmeasured = [column.header for column in table.columns if column.key not in measured]
    return [
        f"README: {table.source}.",
        f"The table's own conventions: {', '.join(conventions)}.",
        *([f"Not measured in any row: {', '.join(unmeasured)}."] if unmeasured else []),
        *([_marks(table.columns)] if mark == "best" else []),
        *(f"{row.label}: {row.note}" for row in table.rows if row.note),
    ]


def _marks(columns: Iterable[Column]) -> str:
    lowest = ", ".join(column.header for column in columns if not column.higher_is_better)
    highest = ", ".join(column.header for column in columns if column.higher_is_better)
    return (
        f"Bold is the best of a group and underlined the second best: the lowest {lowest}, the highest "
        f"{highest}. The README's numbers and ours are ranked apart."
    )


def verdict_cell(verdict: Verdict | None) -> Cell:
    return Cell("") if verdict is None else Cell(str(verdict), tone=TONES[verdict.name])


def number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{rounded(value, decimals):.{decimals}f}"


def difference(reported: float | None, ours: float | None, decimals: int) -> str:
    """Ours minus the README's, with its sign; empty where there are not both."""
    if reported is None or ours is None:
        return ""
    return signed(ours - reported, decimals)


def signed(value: float, decimals: int) -> str:
    """With its sign; a zero has none."""
    value = rounded(value, decimals)
    return f"{value:+.{decimals}f}".replace("-", "−") if value else f"{0:.{decimals}f}"


def comparison_csv(table: Table, rows: Sequence[ComparedRow]) -> str:
    """One line a row, numbers unrounded, four columns for each of the README's; a dash is empty."""
    return _csv([(table, rows)], [])


def comparisons_csv(compared: Sequence[tuple[Table, Sequence[ComparedRow]]]) -> str:
    """The same of several tables, which the first column names; empty is also what a table has not."""
    return _csv(compared, ["table"])


def _csv(compared: Sequence[tuple[Table, Sequence[ComparedRow]]], first: list[str]) -> str:
    text = io.StringIO()
    keys = dict.fromkeys(column.key for table, _ in compared for column in table.columns)
    parts = ("reported", "measured", "delta", "verdict")
    names = [*first, "label", "group", "dimension", "model", "bold"]
    names += [f"{key}_{part}" for key in keys for part in parts]
    writer = csv.DictWriter(text, names, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for table, rows in compared:
        writer.writerows({"table": table.name} | _csv_line(each) for each in rows)
    return text.getvalue()


def _csv_line(compared: ComparedRow) -> dict[str, object]:
    row = compared.row
    line: dict[str, object] = {"label": row.label, "group": row.group, "dimension": row.dimension}
    line |= {"model": row.model, "bold": " ".join(row.bold)}
    for key, reported in row.reported.items():
        ours = compared.measured[key]
        delta = None if reported is None or ours is None else ours - reported
        line |= {f"{key}_reported": reported, f"{key}_measured": ours}
        line |= {f"{key}_delta": delta, f"{key}_verdict": compared.verdicts[key]}
    return line
