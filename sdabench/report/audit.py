"""Print the audit: the tables, the reason for each verdict other than ``match``, and a summary."""

from collections import Counter
from collections.abc import Collection

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from sdabench.claims.audit import Audit
from sdabench.claims.tables import ClaimVerdict, unmatched_claims
from sdabench.claims.verdicts import NEAR_PCT
from sdabench.complexity.conventions import MODULES_ONLY
from sdabench.report.cells import TONES, number, verdict_cell
from sdabench.report.render import STYLES, Terminal, plain, print_terminal
from sdabench.report.sheet import Heading, Sheet, headings, row
from sdabench.report.tables import counts_modules_only, table_sheet

MEANINGS = {
    "match": "equal at the printed decimals, under the table's convention",
    "match (params)": "equal only if frozen parameters are counted too",
    "match (trainable)": "equal only if frozen parameters are not counted",
    "match (per_call)": "equal only if shared modules are counted at each call",
    "match (macs)": "equal only if convolutions and linear layers alone are counted",
    "match (fvcore)": "equal only if batch norms are counted too, as fvcore does",
    "match (total)": "equal only if batch norms, ReLUs and pooling are counted too",
    "match (mmcv)": "equal only under the convention of mmdetection's get_flops",
    "explained (mislabelled)": "the number of another network than the label names",
    "explained (copied)": "copied from another paper, which counts differently",
    "explained (other input size)": "counted at another input size, which a source states",
    "explained (last digit)": "off by one in the last printed digit",
    "explained (fitted)": "reproduced by a setting that was found by searching",
    "not reproduced": f"no convention gives this number; the nearest is at most {NEAR_PCT} % away",
    "differs": "differs without an explanation that holds",
    "not measured": "the network was not counted",
}


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
        row(verdict_cell(verdicts[words]), claims, numbers[words], MEANINGS[words])
        for words, claims in audit.by_verdict.items()
    ]
    title = f"The paper's {len(audit.claims)} claims about parameters and FLOPs"
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
