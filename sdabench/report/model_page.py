"""Print the page of a model."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from rich.padding import Padding
from rich.text import Text

from sdabench.claims.model_page import ModelPage
from sdabench.claims.tables import ClaimVerdict, unmatched_claims
from sdabench.complexity.conventions import MODULES_ONLY
from sdabench.registry.schema import Counter
from sdabench.report.audit import reason
from sdabench.report.cells import difference, measured_number, number, tolerance, verdict_cell
from sdabench.report.render import Terminal, plain, print_terminal
from sdabench.report.sheet import Cell, Heading, Sheet, headings, row
from sdabench.report.summary import describe_metrics, describe_training
from sdabench.tex import Tex

COUNTERS: tuple[Counter, ...] = ("params", "trainable", "per_call", "macs", "total", "mmcv")
RELATIONS = {
    "baseline": "baseline",
    "like for like": "control (the same network without depth attention)",
    "baseline of": "baseline of",
    "like for like of": "control of",
}


def print_page(page: ModelPage) -> None:
    console = Terminal()

    def section(title: str, lines: Iterable[str]) -> None:
        console.print(Text(f"\n{title}", style="bold"))
        for line in lines:
            console.print(Padding(Text(line), (0, 0, 0, 2), expand=False))

    console.print(Text.assemble((page.name, "bold"), f"  {plain(page.model.title)}"))
    if page.model.note:
        console.print(Text(page.model.note))
    section("Lineage", _lineage(page))
    if page.stages:
        console.print()
        print_terminal(_structure(page))
    counters = COUNTERS if page.count.fvcore is None else (*COUNTERS, "fvcore")
    counts = ", ".join(f"{counter} {page.count.value(counter):,}" for counter in counters)
    section(f"Counts at {'x'.join(map(str, page.count.input[:0:-1]))}", [counts, MODULES_ONLY])
    for sheet in _claims(page):
        console.print()
        print_terminal(sheet)
    if reasons := [
        f"{plain(claim.column.header)}: {reason(claim)}" for claim in unmatched_claims(page.claims)
    ]:
        section("Numbers that do not simply match", reasons)
    section("Records", _records(page))
    if page.differences:
        section("Differences from the authors' code", page.differences)
    section("Papers", [plain(paper.reference) for paper in page.papers] or ["none known"])
    section("Sources", page.model.sources or ["none named"])


def _lineage(page: ModelPage) -> Iterator[str]:
    for relation, names in page.relatives.items():
        if names:
            yield f"{RELATIONS[relation]}: {', '.join(names)}"
    control = page.counts.get(page.model.like_for_like or "")
    if control is not None:
        params, macs = page.count.params - control.params, page.count.macs - control.macs
        yield f"depth attention adds {params:,} parameters and {macs:,} multiply-adds to {control.model}"
    if page.model.backbone:
        yield f"backbone: {page.model.backbone}"
    if not any(page.relatives.values()):
        yield "no other model is compared with it"


def _structure(page: ModelPage) -> Sheet:
    over = "depth attention"
    columns = headings("stage", "blocks", "channels", "stride", numeric=True)
    columns += [Heading("module", over), *headings("fused maps", "hidden", over=over, numeric=True)]
    rows = []
    for stage in page.stages:
        kind = f" ({stage.kind})" if stage.kind not in (None, "learned") else ""
        module = stage.attention and stage.attention + kind
        attention = (value or "-" for value in (module, stage.fused, stage.hidden))
        rows.append(row(stage.stage, stage.blocks, stage.channels, stage.stride, *attention))
    return Sheet("Structure", columns, [rows])


def _claims(page: ModelPage) -> Iterator[Sheet]:
    """Yield a sheet for each table of the paper that has the model."""
    columns = [Heading("claim"), *headings("paper", "measured", "Δ", "±", numeric=True), Heading("verdict")]
    for (table, label), claims in groupby(page.claims, key=lambda claim: (claim.table, claim.row.label)):
        rows = [_claim_cells(claim) for claim in claims]
        yield Sheet(f"Claims of the table {table}, row {plain(label)}", columns, [rows])


def _claim_cells(claim: ClaimVerdict) -> list[Cell]:
    column, decimals = claim.column, claim.column.decimals
    delta = difference(claim.reported, claim.measured, decimals)
    numbers = number(claim.reported, decimals), measured_number(claim.measured, column), delta
    tolerated = tolerance(claim.judged)
    return row(Tex(f"{column.header} ({column.unit})"), *numbers, tolerated, verdict_cell(claim.verdict))


def _records(page: ModelPage) -> Iterator[str]:
    for record in page.records:
        if record.failure is not None:
            text = f"failed: {record.failure.message}"
        else:
            text = f"{describe_training(record)}; " if record.training and record.train_dataset else ""
            text += describe_metrics(record)
        yield f"{record.created[:10]}: {text.replace(f'{page.name}: ', '')}"
    if not page.records:
        yield "none; sdabench train, eval and run write records"
