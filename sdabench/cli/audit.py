"""``sdabench audit``."""

import click

from sdabench.cli.options import echo_json, json_option, progress, recount_option
from sdabench.errors import ExitCode
from sdabench.registry import load_registry

EPILOG = """\b
Examples:
  sdabench audit
  sdabench audit --json > audit.json
  sdabench audit --recount

\b
Exit codes: 0 every claim matches or is explained, 3 one differs without an
explanation.
"""


@click.command("audit", epilog=EPILOG)
@recount_option
@json_option
def command(recount: bool, as_json: bool) -> None:
    """Hold every size and cost that the README claims against a count.

    Every network of the tables is counted, unless it was by an earlier command, and its entry, the code
    and the versions of what counts are the same since. A claim holds as the table means it, holds under
    another convention, differs for a reason that is shown with its evidence, or differs.
    """
    from sdabench.claims.audit import audit
    from sdabench.records.counts import fresh_counts

    registry = load_registry()
    models = registry.suite("all")
    with progress("counting", len(models), "networks") as advance:
        counts = fresh_counts(models, advance, cached=not recount)
    result = audit(registry.tables, counts)
    if as_json:
        echo_json(result.as_json())
    else:
        from sdabench.report.audit import print_audit

        print_audit(result)
    if any(verdict.outside_tolerance for verdict in result.verdicts):
        raise click.exceptions.Exit(ExitCode.REGRESSION)
