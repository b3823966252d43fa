"""The README's tables beside our measurements, as a sheet."""

import csv
import io
from collections.abc import Sequence

from sdabench.evidence.compare import ComparedRow
from sdabench.evidence.verdicts import Verdict, rounded
from sdabench.registry import Table
from sdabench.registry.schema import Column
from sdabench.report.table import Cell, Heading, Sheet, Tone

TONES: dict[str, Tone] = {
    "match": "good",
    "within": "good",
    "better": "good",
    "explained": "fair",
    "differs": "bad",
    "worse": "bad",
    "not measured": "dim",
}


def comparison_sheet(table: Table, rows: Sequence[ComparedRow], brief: bool = False) -> Sheet:
    """README, ours, difference and verdict for each column; ours is left out where nothing was measured.

    A brief one has size and cost alone, and no notes.
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
    groups: dict[str, list[list[Cell]]] = {}
    for compared in rows:
        cells = [Cell(compared.row.label), *([Cell(compared.row.dimension or "-")] if dimension else [])]
        for column in columns:
            cells += _claim(compared, column, column.key in measured)
        groups.setdefault(compared.row.group, []).append(cells)
    return Sheet(table.title, headings, list(groups.values()), [] if brief else _notes(table, measured))


def _claim(compared: ComparedRow, column: Column, measured: bool) -> list[Cell]:
    reported, ours = compared.row.reported[column.key], compared.measured[column.key]
    cells = [Cell(number(reported, column.decimals), bold=column.key in compared.row.bold)]
    if measured:
        # One digit more than the README where we count exactly, so that its last digit can be judged.
        cells.append(Cell(number(ours, column.decimals + (column.convention is not None))))
        cells.append(Cell(difference(reported, ours, column.decimals)))
        cells.append(verdict_cell(compared.verdicts[column.key]))
    return cells


def _notes(table: Table, measured: set[str]) -> list[str]:
    conventions = [f"{column.header}: {column.convention}" for column in table.counted]
    unmeasured = [column.header for column in table.columns if column.key not in measured]
    return [
        f"README: {table.source}.",
        f"The table's own conventions: {', '.join(conventions)}.",
        *([f"Not measured in any row: {', '.join(unmeasured)}."] if unmeasured else []),
        *(f"{row.label}: {row.note}" for row in table.rows if row.note),
    ]


def verdict_cell(verdict: Verdict | None) -> Cell:
    return Cell("") if verdict is None else Cell(str(verdict), tone=TONES[verdict.name])


def number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{rounded(value, decimals):.{decimals}f}"


def difference(reported: float | None, ours: float | None, decimals: int) -> str:
    """Ours minus the README's, with its sign; empty where there are not both."""
    if reported is None or ours is None:
        return ""
    value = rounded(ours - reported, decimals)
    return f"{value:+.{decimals}f}".replace("-", "−") if value else f"{0:.{decimals}f}"


def comparison_csv(table: Table, rows: Sequence[ComparedRow]) -> str:
    """One line a row, numbers unrounded, four columns for each of the README's; a dash is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("reported", "measured", "delta", "verdict")
    keys = [column.key for column in table.columns]
    writer.writerow(
        ["label", "group", "dimension", "model", "bold", *(f"{key}_{part}" for key in keys for part in parts)]
    )
    for compared in rows:
        row = compared.row
        line: list[object] = [row.label, row.group, row.dimension or "", row.model, " ".join(row.bold)]
        for key in keys:
            reported, ours, verdict = row.reported[key], compared.measured[key], compared.verdicts[key]
            delta = None if reported is None or ours is None else ours - reported
            line += ["" if value is None else value for value in (reported, ours, delta, verdict)]
        writer.writerow(line)
    return text.getvalue()
