"""``sdabench table``."""

from pathlib import Path

import click

from sdabench.cli.options import (
    SHEET_FORMATS,
    TableName,
    echo_json,
    others_option,
    progress,
    read_records,
    records_option,
    show,
)
from sdabench.registry import load_registry

FORMATS = (*SHEET_FORMATS, "csv", "json")
EPILOG = """\b
Examples:
  sdabench table classification-multiscale
  sdabench table classification-attention --format latex > attention.tex
  sdabench table detection --format json
  sdabench table classification-attention --records runs/classification
  sdabench table classification-attention --with 'sda_*50'
"""


@click.command("table", epilog=EPILOG)
@click.argument("table", type=TableName())
@click.option("--format", "form", type=click.Choice(FORMATS), default="terminal", show_default=True)
@records_option("A run's folder, or its records.jsonl, to take accuracies from.")
@others_option
@click.option(
    "--recount", is_flag=True, help="Count every network again instead of reading the stored counts."
)
def command(table: str, form: str, folders: tuple[Path, ...], others: tuple[str, ...], recount: bool) -> None:
    """A README table beside our measurements: differences and verdicts.

    Sizes and costs come from the counts that are shipped (a test recomputes them); networks that have
    none are counted. Accuracies and AP come from records of trained weights on the whole real dataset.
    """
    from sdabench.evidence.compare import compare
    from sdabench.evidence.counts import fresh_counts, stored_counts

    registry = load_registry()
    readme = registry.table(table)
    wanted = registry.extended(readme, registry.select_for(readme.task, others))
    models = list(dict.fromkeys(row.model for row in wanted.rows))
    stored = {} if recount else stored_counts()
    uncounted = [model for model in models if model not in stored]
    if uncounted:
        with progress("counting", len(uncounted), "networks") as advance:
            stored |= fresh_counts(uncounted, advance)
    rows = compare(wanted, stored, read_records(folders))
    if form == "json":
        echo_json({"table": table, "rows": [row.as_json() for row in rows]})
        return
    from sdabench.report.comparison import comparison_csv, comparison_sheet

    if form == "csv":
        click.echo(comparison_csv(wanted, rows), nl=False)
        return
    show(comparison_sheet(wanted, rows), form)
