"""The tables of the paper, what they imply, what the text states, and where each number comes from."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sdabench.claims.implied import ImpliedVerdict
from sdabench.claims.statements import JudgedStatement
from sdabench.claims.tables import ComparedTable
from sdabench.claims.verdicts import Name, Outcome
from sdabench.registry import Registry, Table
from sdabench.registry.schema import Column
from sdabench.report.audit import MEANINGS as COUNT_MEANINGS
from sdabench.report.cells import measured_number, number, signed
from sdabench.report.figures.names import row_dicts
from sdabench.report.implied import ROLES, implied_sheet
from sdabench.report.statements import MEANINGS as STATEMENT_MEANINGS
from sdabench.report.statements import compared_metric, count_text, difference_text
from sdabench.report.summary import METRICS, PREFIXES
from sdabench.report.tables import table_sheet
from sdabench.report.trainings import TOLERANCE_NOTE
from sdabench.tex import Tex
from sdabench.tools.report.answer import MEANINGS
from sdabench.tools.report.grid import Cell, Grid, Group, Head, Note

# Printed numbers decide a statement, but confirm no network, so that the verdict itself is limited.
STATEMENT_OUTCOMES: dict[Name, Outcome] = {
    "supported": "holds", "open": "open", "contradicted": "fails", "not testable": "unknown",
}  # fmt: skip

BETTER = {True: "yes", False: "no", None: "not significant"}
Digests = Mapping[tuple[str, str], Sequence[str]]  # task and network: spec digests of records


def table_grid(compared: ComparedTable, claims: pd.DataFrame) -> Grid:
    """Show a table of the paper: each column with the paper's number, ours and the verdict, if measured."""
    table = compared.table
    found = {(row["group"], row["row"], row["metric"]): row for row in row_dicts(claims)}
    measured = {metric for (_, _, metric), row in found.items() if row["measured"] is not None}
    heads = [Head(table.label_header), *([Head(table.dimension_header)] if table.dimension_header else [])]
    for column in table.columns:
        over = Tex(f"{column.header} ({column.unit})")
        heads += [Head("paper", over, True)]
        heads += [Head("measured", over, True), Head("verdict", over)] if column.key in measured else []
    groups: dict[str, list[list[Cell]]] = {}
    notes: list[Note] = []
    for row in table.rows:
        cells = [Cell(Tex(row.label), link=f"#{row.model}")]
        cells += [Cell(Tex(row.dimension or "–"))] if table.dimension_header else []
        for column in table.columns:
            claim = found.get((row.group, row.label, column.key))
            note = None if claim is None else _claim_note(claim, column, f"why-{table.name}-{len(notes)}")
            cells += _claim_cells(claim, column, column.key in measured, note)
            notes += [note] if note else []
        groups.setdefault(row.group, []).append(cells)
    remarks = [note for note in table_sheet(compared).notes if note != TOLERANCE_NOTE]
    grid_groups = [Group(Tex(name), rows) for name, rows in groups.items()]
    return Grid(f"table-{table.name}", table.title, heads, grid_groups, remarks, notes)


def _claim_cells(
    claim: dict[str, Any] | None, column: Column, measured: bool, note: Note | None
) -> list[Cell]:
    if claim is None:
        return [Cell("–")] * (3 if measured else 1)
    paper = Cell(number(claim["paper"], column.decimals), claim["paper"], claim["bold"])
    if not measured:
        return [paper]
    value = _measured(claim, column)
    opens = note.id if note else ""
    return [paper, value, Cell(claim["verdict"], outcome=claim["outcome"], opens=opens)]


def _measured(claim: dict[str, Any], column: Column) -> Cell:
    value = claim["measured"]
    return Cell("–") if value is None else Cell(measured_number(value, column), value)


def _claim_note(claim: dict[str, Any], column: Column, name: str) -> Note | None:
    """Explain the verdict on a claim; None if nothing was measured."""
    if claim["measured"] is None:
        return None
    unit = "" if column.unit == "%" else f" {column.unit}"
    paper = f"{number(claim['paper'], column.decimals)}{unit}{', printed bold' * claim['bold']}"
    under = f", counted as {claim['convention']}" if claim["convention"] else ""
    meaning = COUNT_MEANINGS.get(claim["verdict"]) or MEANINGS[claim["outcome"]]
    items = [
        ("Paper", paper),
        ("Measured", f"{_exact(claim['measured'], column)}{unit}{under}"),
        ("Measured − paper", f"{signed(claim['delta'], max(column.decimals, 3))}{unit}"),
        ("Verdict", f"{claim['verdict']}: {meaning}"),
    ]
    if claim["low"] is not None:
        items.append(("95 % interval", f"{claim['low']:.2f} to {claim['high']:.2f}"))
        items.append(("Trainings", str(claim["trainings"])))
    if claim["p"] is not None:
        items.append(("p, uncorrected", f"{claim['p']:.2g}"))
    if claim["explanation"] and claim["verdict"] != "match":
        items.append(("Explanation", claim["explanation"]))
        items += [("Source", claim["source"])] if claim["source"] else []
    title = Tex(f"{claim['row']}: {column.header} ({column.unit})")
    return Note(name, title, items, plain=claim["verdict"] == "match")


def _exact(value: float, column: Column) -> str:
    """Format a measured value with all digits of an exact count, else with three decimals."""
    digits = {"M": 6, "G": 9}.get(column.unit, 3)
    return f"{value:,.{digits}f}"


def statements_grid(judged: Sequence[JudgedStatement]) -> Grid:
    """Show what the text states, and how many of the printed comparisons support it."""
    rows, notes = [], []
    for each in judged:
        note = Note(f"why-{each.name}", each.statement.statement, _statement_items(each))
        notes.append(note)
        printed = f"{each.as_printed} of {len(each.comparisons)}" if each.comparisons else "none printed"
        verdict = Cell(str(each.verdict), outcome=STATEMENT_OUTCOMES[each.verdict.name], opens=note.id)
        shown = Cell(printed, each.as_printed / max(len(each.comparisons), 1))
        rows.append([Cell(each.statement.statement), Cell(each.statement.source), shown, verdict])
    heads = [Head("statement"), Head("source"), Head("comparisons that hold as printed"), Head("verdict")]
    caption = "Statements of the paper, tested with its printed numbers"
    return Grid("statements", caption, heads, [Group("", rows)], STATEMENT_MEANINGS, notes)


def _statement_items(judged: JudgedStatement) -> list[tuple[str, str]]:
    items = [("Test", judged.statement.reading), ("Result", count_text(judged))]
    for comparison, outcome in zip(judged.comparisons, judged.outcomes, strict=True):
        names = f"{comparison.row.label} vs. {comparison.other.label}"
        text = f"{names}: {compared_metric(comparison)} {difference_text(comparison)}"
        items.append((outcome, Tex(text)))
    if judged.statement.experiment:
        items.append(("Experiment", judged.statement.experiment))
    return items


def comparisons_grid(comparisons: pd.DataFrame, verdicts: Sequence[ImpliedVerdict]) -> Grid:
    """Show by how much each network with depth attention is better than its baseline and its control."""
    measured = comparisons["measured"].notna().any()
    heads = [Head("network"), Head("compared with"), Head("metric"), Head("paper Δ", numeric=True)]
    if measured:
        heads += [Head("measured Δ", numeric=True), Head("95 % interval", numeric=True)]
        heads.append(Head("better?"))
    heads.append(Head("verdict"))
    groups: dict[str, list[list[Cell]]] = {}
    for row in row_dicts(comparisons):
        roles = ", ".join(ROLES[role] for role in row["role"].split(", "))
        cells = [
            Cell(row["model"], link=f"#{row['model']}"),
            Cell(f"{row['partner']} ({roles})"),
            Cell(PREFIXES.get(row["task"], "") + METRICS[row["metric"]]),
            _points(row["paper"]),
        ]
        if measured:
            low, high = row["low"], row["high"]
            interval = "–" if low is None else f"{signed(low, 2)} to {signed(high, 2)}"
            better = "" if row["own_low"] is None else BETTER[row["better"]]
            cells += [_points(row["measured"]), Cell(interval, low), Cell(better)]
        cells.append(Cell(row["verdict"] or "not printed", outcome=row["outcome"]))
        groups.setdefault(row["task"], []).append(cells)
    caption = "Improvements that the tables imply, in percentage points"
    remarks = implied_sheet(verdicts).notes
    return Grid("comparisons", caption, heads, [Group(*each) for each in groups.items()], remarks)


def _points(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(signed(value, 2), value)


def provenance_grid(registry: Registry, claims: pd.DataFrame, digests: Digests) -> Grid:
    """List every printed number with its source, its convention and what it was compared with."""
    heads = [Head("network"), Head("column"), Head("paper", numeric=True), Head("measured", numeric=True)]
    heads += [Head("Δ", numeric=True), Head("convention"), Head("verdict"), Head("measured value rests on")]
    groups: dict[str, list[list[Cell]]] = {}
    for row in row_dicts(claims):
        table = registry.tables[row["table"]]
        column = next(each for each in table.columns if each.key == row["metric"])
        delta = row["delta"]
        cells = [
            Cell(Tex(row["row"]), link=f"#{row['model']}"),
            Cell(Tex(column.header)),
            Cell(number(row["paper"], column.decimals), row["paper"], row["bold"]),
            _measured(row, column),
            Cell("–") if delta is None else Cell(signed(delta, column.decimals + 1), delta),
            Cell(row["convention"] or "–"),
            Cell(row["verdict"], outcome=row["outcome"]),
            _rests_on(registry, table, row, digests),
        ]
        groups.setdefault(row["table"], []).append(cells)
    named = [Group(Tex(f"{name}: {registry.tables[name].source}"), rows) for name, rows in groups.items()]
    remarks = [
        "A group names the source of its printed numbers.",
        "Counts are recomputed from the definition of the network, whose sha256 is given. Accuracies and APs "
        "rest on records, which are named by the sha256 of their specs.",
    ]
    return Grid("all-numbers", "Every number that the tables print", heads, named, remarks)


def _rests_on(registry: Registry, table: Table, claim: dict[str, Any], digests: Digests) -> Cell:
    if claim["measured"] is None:
        return Cell("–")
    if claim["convention"]:
        return Cell(f"definition {registry.model(claim['model']).network_sha256[:12]}", code=True)
    specs = digests.get((table.task, claim["model"]), ())
    return Cell(" ".join(f"record {digest[:12]}" for digest in specs), code=True)
