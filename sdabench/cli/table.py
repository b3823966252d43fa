"""``sdabench table``."""

from pathlib import Path
from typing import TYPE_CHECKING

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
from sdabench.errors import UsageError
from sdabench.registry import Table, load_registry

if TYPE_CHECKING:
    from sdabench.complexity import Count
    from sdabench.report.tables import Mark

FORMATS = (*SHEET_FORMATS, "csv", "json")
EPILOG = """\b
Examples:
  sdabench table classification-multiscale
  sdabench table classification-attention --format latex > attention.tex
  sdabench table all --format latex --standalone --mark best > tables.tex
  sdabench table detection --format json
  sdabench table classification-attention --records runs/classification
  sdabench table classification-attention --with 'sda_*50'
"""


@click.command("table", epilog=EPILOG)
@click.argument("table", type=TableName())
@click.option("--format", "form", type=click.Choice(FORMATS), default="terminal", show_default=True)
@click.option(
    "--standalone", is_flag=True, help="LaTeX as a document of its own, with a page for each table."
)
@click.option(
    "--mark",
    type=click.Choice(["paper", "best", "none"]),
    default="paper",
    show_default=True,
    help="What stands out: what is bold in the README, or the best (bold) and second best (underlined) of "
    "each group, by printed digits: the lowest size and cost, the highest accuracy.",
)
@records_option("A run's folder, or its records.jsonl, to take accuracies from.")
@others_option
@click.option(
    "--recount", is_flag=True, help="Count every network again instead of reading the stored counts."
)
def command(
    table: str,
    form: str,
    standalone: bool,
    mark: "Mark",
    folders: tuple[Path, ...],
    others: tuple[str, ...],
    recount: bool,
) -> None:
    """A README table, or all, beside our measurements: differences and verdicts.

    Sizes and costs come from the counts that are shipped (a test recomputes them); networks that have
    none are counted. Accuracies and AP come from records of trained weights on the whole real dataset.
    """
    from sdabench.claims.tables import compare_table

    if standalone and form != "latex":
        raise UsageError("--standalone is for --format latex")
    if mark != "paper" and form in ("csv", "json"):
        raise UsageError(f"--mark is for {', '.join(SHEET_FORMATS)}; {form} says what is bold in the README")
    wanted = _tables(table, others)
    counts = _counts([row.model for each in wanted for row in each.rows], recount)
    records = read_records(folders)
    compared = [compare_table(each, counts, records) for each in wanted]
    if form == "json":
        echo_json([each.as_json() for each in compared] if table == "all" else compared[0].as_json())
        return
    from sdabench.report.tables import table_sheet, tables_csv

    if form == "csv":
        click.echo(tables_csv(compared), nl=False)
        return
    sheets = [table_sheet(each, mark=mark) for each in compared]
    show(*sheets, form=form, standalone=standalone)


def _tables(name: str, others: tuple[str, ...]) -> list[Table]:
    """One table, or all; with rows for other networks, of all tables in those of their own task."""
    registry = load_registry()
    if name != "all":
        table = registry.table(name)
        return [registry.extended(table, registry.select_for(table.task, others))]
    chosen = registry.select(others)
    return [
        registry.extended(table, [other for other in chosen if table.task in registry.models[other].tasks])
        for table in registry.tables.values()
    ]


def _counts(models: list[str], recount: bool) -> "dict[str, Count]":
    from sdabench.records.counts import fresh_counts, stored_counts

    counts = {} if recount else stored_counts()
    uncounted = [model for model in dict.fromkeys(models) if model not in counts]
    if uncounted:
        with progress("counting", len(uncounted), "networks") as advance:
            counts |= fresh_counts(uncounted, advance, cached=not recount)
    return counts
