"""The audit as a reader meets it: what holds, what holds otherwise, what does not, and why."""

from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from sdabench.claims.comparison import Audit, ComparedRow
from sdabench.claims.verdicts import NOT_MEASURED, Verdict
from sdabench.registry import Table
from sdabench.registry.schema import Column, Explanation
from sdabench.report.comparison import TONES, comparison_sheet, number, verdict_cell
from sdabench.report.render import STYLES, Terminal, plain, print_terminal
from sdabench.report.table import Cell, Heading, Sheet

MEANINGS = {
    "match": "equal at the README's decimals, counted as the table counts",
    "match (params)": "equal only if frozen parameters are counted too",
    "match (trainable)": "equal only if frozen parameters are left out",
    "match (per_call)": "equal only if shared modules are counted at each call",
    "match (macs)": "equal only as convolutions and linear layers",
    "match (fvcore)": "equal only as a total with batch norms (fvcore's)",
    "match (total)": "equal only as a total with batch norms, ReLUs and pooling",
    "match (mmcv)": "equal only as mmdetection's get_flops counts",
    "explained (mislabelled)": "the number of another network than the label names",
    "explained (copied)": "taken over from another paper, which counts otherwise",
    "explained (other input size)": "counted at another input size than the table's",
    "explained (last digit)": "off by one in the last printed digit",
    "explained (fitted)": "reproduced by a setting that was searched for",
    "explained (not reproduced)": "no convention gives it; the nearest is stated",
    "differs": "differs, and nobody has looked yet",
    "not measured": "the network was not counted",
}


def print_audit(tables: Mapping[str, Table], result: Audit) -> None:
    """Verdict counts, the tables, and a reason with evidence for each number that does not simply match."""
    console = Terminal()
    if not console.is_terminal:
        console.width = 110
    for name, rows in result.tables.items():
        print_terminal(comparison_sheet(tables[name], rows, brief=True))
        console.print()
    _print_reasons(console, tables, result)
    headings = [Heading("claims", numeric=True), Heading("verdict"), Heading("which means")]
    verdicts = {str(verdict): verdict for verdict in result.verdicts}
    lines = [
        [Cell(str(claims)), verdict_cell(verdicts[words]), Cell(MEANINGS[words])]
        for words, claims in result.by_verdict.items()
    ]
    title = f"{len(result.verdicts)} claims about size and cost in the README"
    print_terminal(Sheet(title, headings, [lines]))
    console.print(Text(_conclusion(result)))


def _print_reasons(console: Console, tables: Mapping[str, Table], result: Audit) -> None:
    console.print(Text("Why a number is not what its table counts", style="bold"))
    for verdict, column, row in _reasons(tables, result):
        console.print(
            Text.assemble(
                (plain(row.row.label), "bold"),
                f"  {column.header} {number(row.row.reported[column.key], column.decimals)}  ",
                (str(verdict), STYLES[TONES[verdict.name]]),
            )
        )
        console.print(Padding(Text(_reason(verdict, row.row.claims.get(column.key))), (0, 0, 0, 4)))
    console.print()


def _reason(verdict: Verdict, claim: Explanation | None) -> str:
    if claim is None:
        return "No explanation in the registry yet: a finding."
    reason = f"{claim.text} [{claim.source}]" if claim.source else claim.text
    return f"This explanation does not hold today: {reason}" if verdict.name == "differs" else reason


def _reasons(tables: Mapping[str, Table], result: Audit) -> Iterator[tuple[Verdict, Column, ComparedRow]]:
    """The claims that do not simply match, each once although its row may stand in two tables."""
    seen = set()
    for name, rows in result.tables.items():
        for row in rows:
            for column in tables[name].counted:
                verdict = row.verdicts[column.key]
                if verdict in (None, Verdict("match"), NOT_MEASURED):
                    continue
                if (row.row.model, column.key) not in seen:
                    seen.add((row.row.model, column.key))
                    yield verdict, column, row


def _conclusion(result: Audit) -> str:
    names = [verdict.name for verdict in result.verdicts if verdict != NOT_MEASURED]
    as_printed = sum(str(verdict) == "match" for verdict in result.verdicts)
    otherwise = names.count("match") - as_printed
    return (
        f"Of {len(names)} claims, {as_printed} hold as their table counts, {otherwise} hold under "
        f"another convention, {names.count('explained')} are explained, {names.count('differs')} differ."
    )
