"""One page on a network, for the terminal."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter

from rich.padding import Padding
from rich.text import Text

from sdabench.claims.profile import Profile
from sdabench.claims.verdicts import NOT_MEASURED, Verdict
from sdabench.complexity import Count
from sdabench.registry.schema import Counter
from sdabench.report.accuracy import describe_metrics, describe_training
from sdabench.report.comparison import difference, number, verdict_cell
from sdabench.report.render import Terminal, plain, print_terminal
from sdabench.report.table import Cell, Heading, Sheet

COUNTERS: tuple[Counter, ...] = ("params", "trainable", "per_call", "macs", "total", "mmcv")


def print_page(page: Profile) -> None:
    console = Terminal()
    if not console.is_terminal:
        console.width = 110

    def section(title: str, lines: Iterable[str]) -> None:
        console.print(Text(f"\n{title}", style="bold"))
        for line in lines:
            console.print(Padding(Text(plain(line)), (0, 0, 0, 2), expand=False))

    console.print(Text.assemble((page.name, "bold"), f"  {plain(page.model.title)}"))
    if page.model.note:
        console.print(Text(page.model.note))
    section("Lineage", _lineage(page))
    console.print()
    print_terminal(_structure(page))
    section(f"Counts at {'x'.join(map(str, page.count.input[:0:-1]))}", [", ".join(_counts(page.count))])
    for sheet in _claims(page):
        console.print()
        print_terminal(sheet)
    if reasons := _reasons(page):
        section("Why a number is not what its table counts", reasons)
    section("Records", _records(page))
    if page.differences:
        section("What differs from the authors' code", page.differences)
    section("Papers", (paper.reference for paper in page.papers))
    section("Sources", page.model.sources or ["none named"])


def _counts(count: Count) -> Iterator[str]:
    values = {counter: count.value(counter) for counter in COUNTERS}
    values |= {} if count.fvcore is None else {"fvcore": count.fvcore}
    yield from (f"{counter} {value:,}" for counter, value in values.items())


def _lineage(page: Profile) -> Iterator[str]:
    for relation, names in page.relatives.items():
        if names:
            yield f"{relation}: {', '.join(names)}"
    other = page.counts.get(page.model.like_for_like or "")
    if other is not None:
        params, macs = page.count.params - other.params, page.count.macs - other.macs
        yield f"depth attention adds {params:,} parameters and {macs:,} multiply-adds to {other.model}"
    if page.model.backbone:
        yield f"backbone: {page.model.backbone}"
    if not any(page.relatives.values()):
        yield "no network here is compared with it"


def _structure(page: Profile) -> Sheet:
    headings = [Heading(text, numeric=True) for text in ("stage", "blocks", "channels", "stride")]
    headings += [Heading("depth attention"), Heading("maps", numeric=True), Heading("hidden", numeric=True)]
    rows = [
        [
            *(Cell(str(value)) for value in (stage.stage, stage.blocks, stage.channels, stage.stride)),
            Cell(stage.attention or "-"),
            *(Cell(str(value or "-")) for value in (stage.fused, stage.hidden)),
        ]
        for stage in page.stages
    ]
    return Sheet("Structure", headings, [rows])


def _claims(page: Profile) -> Iterator[Sheet]:
    """One sheet for each table that the network stands in."""
    headings = [Heading("claim"), *(Heading(text, numeric=True) for text in ("README", "ours", "Δ"))]
    for table, claims in groupby(page.claims, key=attrgetter("table")):
        rows = []
        label = ""
        for claim in claims:
            label, column = claim.label, claim.column
            decimals = column.decimals
            rows.append(
                [
                    Cell(f"{column.header} ({column.unit})"),
                    Cell(number(claim.reported, decimals)),
                    Cell(number(claim.measured, decimals + (column.convention is not None))),
                    Cell(difference(claim.reported, claim.measured, decimals)),
                    verdict_cell(claim.verdict),
                ]
            )
        yield Sheet(f"Claims of {table}, row {plain(label)}", [*headings, Heading("verdict")], [rows])


def _reasons(page: Profile) -> list[str]:
    """Each once, although a row may stand in two tables."""
    reasons = {
        f"{claim.column.header}: {claim.explanation.text}"
        + (f" [{claim.explanation.source}]" if claim.explanation.source else ""): None
        for claim in page.claims
        if claim.explanation is not None and claim.verdict not in (Verdict("match"), NOT_MEASURED)
    }
    return list(reasons)


def _records(page: Profile) -> Iterator[str]:
    for record in page.records:
        if record.failure is not None:
            words = f"failed: {record.failure.message}"
        else:
            words = f"{describe_training(record)}; " if record.training else ""
            words += describe_metrics(record)
        yield f"{record.created[:10]}: {words.replace(f'{page.name}: ', '')}"
    if not page.records:
        yield "none yet; sdabench train and eval make some"
