"""``sdabench audit``."""

from typing import Annotated

import click

from sdabench.cli.help import Command
from sdabench.cli.options import (
    FRAME_FORMATS,
    AsJson,
    Recount,
    check_formats,
    echo_frame,
    echo_json,
    format_option,
)
from sdabench.cli.parameters import OneOf, argument, declared
from sdabench.errors import ExitCode
from sdabench.progress import progress
from sdabench.registry import ALL, Registry, load_registry
from sdabench.registry.catalogue import table_names
from sdabench.terminal import echo

EPILOG = """\b
Examples:
  sdabench audit
  sdabench audit detection segmentation
  sdabench audit --json > audit.json
  sdabench audit --format csv > audit.csv
  sdabench audit --recount

\b
Exit codes:
  0   no claim differs
  3   a claim differs without an explanation that holds, or no count is within
      3 % of a number that is not reproduced
"""


@click.command("audit", cls=Command, epilog=EPILOG)
@declared
def command(
    names: Annotated[tuple[str, ...], argument(
        metavar="[TABLE]...", nargs=-1, type=OneOf("table", table_names))],
    recount: Recount,
    form: Annotated[str, format_option("terminal", *FRAME_FORMATS)],
    as_json: AsJson,
) -> None:  # fmt: skip
    """Check every parameter and FLOP count that tables print.

    Without TABLE, it checks all tables. It counts every network of the tables and the evidence of
    explanations. Cached counts are used as long as the network's entry, the code and the versions of the
    counters are unchanged.

    Verdicts: a claim matches, matches under another convention, is explained (the reason is shown with its
    evidence), is not reproduced, or differs. Measured values are counted under the convention that the
    verdict names, else under that of the table.
    """
    from sdabench.claims.audit import audit, evidence_elsewhere
    from sdabench.records.counts import counts_at, fresh_counts

    check_formats(form, as_json)
    registry = load_registry()
    tables = {
        name: table for name, table in registry.tables.items() if not names or ALL in names or name in names
    }
    models = list(dict.fromkeys(row.model for table in tables.values() for row in table.rows))
    places = evidence_elsewhere(tables.values())
    with progress("counting", len(models) + len(places), "networks") as advance:
        counts = fresh_counts(models, advance, cached=not recount)
        elsewhere = counts_at(places, advance, cached=not recount)
    result = audit(tables, counts, elsewhere)
    statements = [] if names else _measured_statements(registry)
    if as_json:
        echo_json(result.as_json() | ({"statements": statements} if statements else {}))
    elif form in FRAME_FORMATS:
        from sdabench.report.frames import claims_frame

        echo_frame(claims_frame(result.claims), form)
    else:
        from sdabench.report.audit import print_audit

        print_audit(result)
        if statements:
            verdicts = ", ".join(f"{each['name']} {each['verdict']}" for each in statements)
            echo(f"Statements of the text that rest on measurements: {verdicts}.")
    if any(verdict.outside_tolerance for verdict in result.verdicts):
        raise click.exceptions.Exit(ExitCode.REGRESSION)


def _measured_statements(registry: Registry) -> list[dict[str, str]]:
    """List the statements about the mechanism with their verdicts; none for a registry without statements."""
    from sdabench.analysis.evidence import judged_statements

    if not (registry.folder / "statements.yaml").is_file():
        return []
    judged = judged_statements(registry)
    return [
        {"name": each.name, "verdict": str(each.verdict)} for each in judged if each.statement.is_measured
    ]
