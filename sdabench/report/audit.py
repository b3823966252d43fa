"""Print the audit: the tables, the reason for each verdict other than ``match``, and a summary."""

from collections import Counter
from collections.abc import Collection

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from sdabench.claims.audit import Audit
from sdabench.claims.tables import ClaimVerdict, unmatched_claims
from sdabench.complexity.conventions import MODULES_ONLY
from sdabench.report.cells import TONES, number, verdict_cell
from sdabench.report.meanings import COUNTS
from sdabench.report.render import STYLES, Terminal, plain, print_terminal
from sdabench.report.sheet import Heading, Sheet, headings, row
from sdabench.report.tables import counts_modules_only, table_sheet


def print_audit(audit: Audit) -> None:
    """Print the tables, the reasons and the number of claims with each verdict."""
    console = Terminal()
    for compared in audit.tables.values():
        print_terminal(table_sheet(compared, brief=True))
        console.print()
    _print_reasons(console, audit)
    columns = [Heading("verdict"), *headings("claims", "numbers", numeric=True), Heading("meaning")]
    verdicts = {str(verdict): verdict for verdict in audit.verdicts}
    numbers = audit.numbers_by_verdict
    rows = [
        row(verdict_cell(verdicts[words]), claims, numbers[words], COUNTS[words])
        for words, claims in audit.by_verdict.items()
    ]
    papers = {compared.table.paper.reference for compared in audit.tables.values()}
    claims = f"{len(audit.claims)} claims about parameters and FLOPs"
    title = f"The paper's {claims}" if len(papers) == 1 else f"{claims} in {len(papers)} papers"
    notes = [MODULES_ONLY] if counts_modules_only(audit.claims) else []
    print_terminal(Sheet(title, columns, [rows], notes))
    console.print(Text(f"Of {len(audit.claims)} claims, {_outcomes(audit.claims)}."))
    repeated = f"Tables share rows: these are {len(audit.numbers)} distinct numbers, of which "
    console.print(Text(f"{repeated}{_outcomes(audit.numbers)}."))


def _print_reasons(console: Console, audit: Audit) -> None:
    console.print(Text("Numbers that do not simply match", style="bold"))
    for claim in unmatched_claims(audit.claims):
        heading = Text.assemble(
            (plain(claim.row.label), "bold"),
            f"  {plain(claim.column.header)} {number(claim.reported, claim.column.decimals)}  ",
            (str(claim.verdict), STYLES[TONES[claim.verdict.outcome]]),
        )
        console.print(heading)
        console.print(Padding(Text(reason(claim)), (0, 0, 0, 4)))
    console.print()


def reason(claim: ClaimVerdict) -> str:
    """Return the explanation of a claim whose verdict is not plain ``match``, with its source."""
    if claim.explanation is None:
        return "The registry has no explanation for this number."
    text, source = claim.explanation.text, claim.explanation.source
    text = f"{text} [{source}]" if source else text
    return f"The explanation no longer holds: {text}" if claim.verdict.name == "differs" else text


def _outcomes(claims: Collection[ClaimVerdict]) -> str:
    names = Counter(claim.verdict.name for claim in claims)
    other_convention = sum(claim.verdict.name == "match" != str(claim.verdict) for claim in claims)
    outcomes = [
        f"{names['match'] - other_convention} match under the table's convention and {other_convention} "
        "under another",
        f"{names['explained']} are explained",
        f"{names['not reproduced']} are not reproduced",
        *([f"{names['not measured']} are not measured"] if names["not measured"] else []),
    ]
    return f"{', '.join(outcomes)}, and {names['differs']} differ"
