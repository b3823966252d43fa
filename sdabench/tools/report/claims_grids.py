"""The tables of the paper, what they imply, what the text states, and where each number comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sdabench.claims.implied import ImpliedVerdict
from sdabench.claims.statements import JudgedStatement
from sdabench.claims.tables import ClaimVerdict, ComparedTable
from sdabench.claims.verdicts import Name, Outcome
from sdabench.registry import Registry
from sdabench.registry.schema import Column
from sdabench.report.cells import TONES, difference, measured_number, number, signed, verdict_cell
from sdabench.report.implied import IMPLIED_TITLE, ROLES, difference_cells, difference_headings, implied_notes
from sdabench.report.meanings import meaning
from sdabench.report.sheet import Cell, Sheet, headings, row
from sdabench.report.statements import MEANINGS as STATEMENT_MEANINGS
from sdabench.report.statements import compared_metric, count_text, difference_text, measured_text
from sdabench.report.summary import metric_name
from sdabench.report.tables import table_sheet
from sdabench.tex import Tex
from sdabench.tools.report.grid import Grid, Note

# Printed numbers decide a statement, but confirm no network, so that the verdict itself is limited.
STATEMENT_OUTCOMES: dict[Name, Outcome] = {
    "supported": "holds", "open": "open", "contradicted": "fails", "not testable": "unknown",
    "not measured": "unknown",
}  # fmt: skip

Anchors = Mapping[str, str]  # network: id on the page
Digests = Mapping[tuple[str, str], Sequence[str]]  # task and network: spec digests of records


def network_cell(model: str, anchors: Anchors, text: str = "") -> Cell:
    """Name a network, with a link to what the page knows of it."""
    return Cell(text or model, link=anchors.get(model, ""))


def table_grid(compared: ComparedTable, anchors: Anchors) -> Grid:
    """Show a table of the paper: each column with the paper's number, the measured one and the verdict."""
    sheet = table_sheet(compared, parts=("paper", "measured", "verdict"))
    names = list(dict.fromkeys(each.row.group for each in compared.rows))
    models = [[each.row.model for each in compared.rows if each.row.group == name] for name in names]
    claims = {(each.row.group, each.row.label, _over(each.column)): each for each in compared.claims}
    notes: list[Note] = []

    def explained(group: str, cells: Sequence[Cell], model: str) -> list[Cell]:
        found = [network_cell(model, anchors, cells[0].text)]
        for heading, cell in zip(sheet.headings[1:], cells[1:], strict=True):
            claim = claims.get((group, cells[0].text, heading.over))
            if heading.text == "verdict" and claim and claim.measured is not None:
                notes.append(_claim_note(claim, f"why-{compared.table.name}-{len(notes)}"))
                cell = replace(cell, opens=notes[-1].id)
            found.append(cell)
        return found

    groups = [
        [explained(name, cells, model) for cells, model in zip(group, of_group, strict=True)]
        for name, group, of_group in zip(names, sheet.groups, models, strict=True)
    ]
    made = replace(sheet, groups=groups)
    return Grid(f"table-{compared.table.name}", made, list(map(Tex, names)), notes)


def _over(column: Column) -> str:
    return f"{column.header} ({column.unit})"


def _claim_note(claim: ClaimVerdict, name: str) -> Note:
    """Explain the verdict on a measured claim."""
    column, judged, explanation = claim.column, claim.judged, claim.explanation
    assert claim.measured is not None
    unit = "" if column.unit == "%" else f" {column.unit}"
    bold = ", printed bold" if column.key in claim.row.bold else ""
    under = f", counted as {claim.convention}" if claim.convention else ""
    words = str(claim.verdict)
    digits = {"M": 6, "G": 9}.get(column.unit, 3)  # all of an exact count
    items = [
        ("Paper", f"{number(claim.reported, column.decimals)}{unit}{bold}"),
        ("Measured", f"{claim.measured:,.{digits}f}{unit}{under}"),
        ("Measured − paper", f"{signed(claim.measured - claim.reported, max(column.decimals, 3))}{unit}"),
        ("Verdict", f"{words}: {meaning(claim.verdict)}"),
    ]
    if judged and judged.interval:
        items.append(
            ("95 % interval of another training", f"{judged.interval.low:.2f} to {judged.interval.high:.2f}")
        )
        items.append(("Trainings", str(judged.seeds)))
    if judged and judged.p is not None:
        items.append(("p, uncorrected", f"{judged.p:.2g}"))
    if explanation and words != "match":
        items.append(("Explanation", explanation.text))
        items += [("Source", explanation.source)] if explanation.source else []
    return Note(name, Tex(f"{claim.row.label}: {_over(column)}"), items, printed=words != "match")


def statements_grid(judged: Sequence[JudgedStatement]) -> Grid:
    """Show what the text states, and how many of the printed comparisons support it."""
    columns = headings("statement", "source", "comparisons that hold as printed", "verdict")
    rows, notes = [], []
    for each in judged:
        note = Note(f"why-{each.name}", each.statement.statement, _statement_items(each))
        notes.append(note)
        printed = f"{each.as_printed} of {len(each.comparisons)}" if each.comparisons else "none printed"
        if each.statement.is_measured:
            printed = "measured" if each.evidence and each.evidence.is_complete else "not measured"
        tone = TONES[STATEMENT_OUTCOMES[each.verdict.name]]
        verdict = Cell(str(each.verdict), tone=tone, opens=note.id)
        rows.append(row(each.statement.statement, each.statement.source, printed, verdict))
    title = "Statements of the SDA-xNet paper, tested with printed and measured numbers"
    return Grid("statements", Sheet(title, columns, [rows], STATEMENT_MEANINGS), notes=notes)


def _statement_items(judged: JudgedStatement) -> list[tuple[str, str]]:
    items = [("Test", judged.statement.reading), ("Result", count_text(judged))]
    for comparison, outcome in zip(judged.comparisons, judged.outcomes, strict=True):
        names = f"{comparison.row.label} vs. {comparison.other.label}"
        text = f"{names}: {compared_metric(comparison)} {difference_text(comparison)}"
        items.append((outcome, Tex(text)))
    found = judged.evidence.measured if judged.evidence else ()
    items += [(measured.outcome or "not decided", measured_text(measured)) for measured in found]
    if judged.statement.experiment:
        items.append(("Experiment", judged.statement.experiment))
    return items


def comparisons_grid(verdicts: Sequence[ImpliedVerdict], anchors: Anchors) -> Grid:
    """Show the differences that are printed or measured, with both networks in each row."""
    columns = [*headings("network", "compared with", "metric"), *difference_headings(verdicts)]
    groups: dict[str, list[list[Cell]]] = {}
    meanings: dict[str, None] = {}
    for each in verdicts:
        claim, verdict = each.claim, each.verdict
        if claim.reported is None and each.interval is None:
            continue
        *numbers, shown = difference_cells(each, columns)
        partner = f"{claim.partner} ({', '.join(ROLES[role] for role in claim.roles)})"
        cells = row(
            network_cell(claim.model, anchors), partner, metric_name(claim.column.key, claim.table.task)
        )
        groups.setdefault(claim.table.task, []).append(
            [*cells, *numbers, shown if verdict else Cell("not printed")]
        )
        if verdict and each.interval is not None:
            meanings[f"{verdict}: {meaning(verdict)}."] = None
    sheet = Sheet(IMPLIED_TITLE, columns, list(groups.values()), [*implied_notes(verdicts), *meanings])
    return Grid("comparisons", sheet, list(groups))


def provenance_grid(
    registry: Registry, compared: Sequence[ComparedTable], digests: Digests, anchors: Anchors
) -> Grid:
    """List every printed number with its source, its convention and what it was compared with."""
    columns = headings("network", "column") + headings("paper", "measured", "Δ", numeric=True)
    columns += headings("convention", "verdict", "measured value rests on")
    groups = [
        [
            row(
                network_cell(claim.row.model, anchors, Tex(claim.row.label)),
                Tex(claim.column.header),
                Cell(
                    number(claim.reported, claim.column.decimals),
                    bold=claim.column.key in claim.row.bold,
                ),
                measured_number(claim.measured, claim.column),
                difference(claim.reported, claim.measured, claim.column.decimals + 1) or "-",
                claim.convention or "-",
                verdict_cell(claim.verdict),
                _rests_on(registry, each.table.task, claim, digests),
            )
            for claim in each.claims
        ]
        for each in compared
    ]
    remarks = [
        "A group names the source of its printed numbers.",
        "Counts are recomputed from the definition of the network, whose sha256 is given. Accuracies and APs "
        "rest on records, which are named by the sha256 of their specs.",
    ]
    names = [Tex(f"{each.table.name}: {each.table.source}") for each in compared]
    return Grid("all-numbers", Sheet("Every number that the tables print", columns, groups, remarks), names)


def _rests_on(registry: Registry, task: str, claim: ClaimVerdict, digests: Digests) -> str:
    if claim.measured is None:
        return "-"
    if claim.convention:
        return f"definition {registry.model(claim.row.model).network_sha256[:12]}"
    return " ".join(f"record {digest[:12]}" for digest in digests.get((task, claim.row.model), ()))
