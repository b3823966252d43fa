"""``sdabench table``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from sdabench.cli.help import Command
from sdabench.cli.options import (
    FRAME_FORMATS,
    SHEET_FORMATS,
    AsJson,
    Others,
    check_formats,
    echo_frame,
    echo_json,
    format_option,
    records_option,
    show,
)
from sdabench.cli.parameters import OneOf, argument, declared, option
from sdabench.data.classes import list_names
from sdabench.errors import UsageError
from sdabench.processes import note
from sdabench.progress import progress
from sdabench.registry import ALL, load_registry
from sdabench.registry.catalogue import table_names
from sdabench.terminal import echo

if TYPE_CHECKING:
    from sdabench.records.record import Record
    from sdabench.report.tables import Mark

SHOWN = 3  # reasons why records are left out
EPILOG = """\b
Examples:
  sdabench table classification-multiscale
  sdabench table classification-attention --format latex > attention.tex
  sdabench table all --format latex --standalone --mark best > tables.tex
  sdabench table detection --format csv > detection.csv
  sdabench table all --format latex-macros > numbers.tex
  sdabench table classification-attention --records runs/classification
  sdabench table classification-attention --with 'sda_*50'
"""


class MarkOption(click.Choice[str]):
    """A choice of what to highlight; accepts ``readme``, the former name of ``paper``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert("paper" if value == "readme" else value, param, ctx)


@click.command("table", cls=Command, epilog=EPILOG)
@declared
def command(
    table: Annotated[str, argument(metavar="TABLE", type=OneOf("table", table_names))],
    form: Annotated[str, format_option(*SHEET_FORMATS, "latex-macros", *FRAME_FORMATS)],
    standalone: Annotated[bool, option(
        "--standalone", is_flag=True, help="Print a complete LaTeX document with one page per table")],
    mark: Annotated["Mark", option(
        "--mark", type=MarkOption(["paper", "best", "none"]), default="paper",
        help="Highlight what is bold in the paper, or the best (bold) and second best (underlined) "
        "printed value of each group, or nothing")],
    folders: Annotated[tuple[Path, ...], records_option(
        "Take accuracies from this run: its folder or its records.jsonl")],
    others: Others,
    recount: Annotated[bool, option(
        "--recount", is_flag=True, help="Count every network again instead of using the stored counts")],
    as_json: AsJson,
) -> None:  # fmt: skip
    """Print a table of a paper beside the measured values.

    TABLE is classification-multiscale, classification-attention, detection, segmentation or all.

    Parameters and FLOPs come from the stored counts; networks without stored counts are counted now.
    Accuracies and APs come from records that can be compared with the paper; stderr states why others are
    left out.
    """
    from sdabench.claims.audit import count_evidence
    from sdabench.claims.tables import compare_tables
    from sdabench.records.counts import counts_of
    from sdabench.records.store import records_of

    check_formats(form, as_json)
    if standalone and form != "latex":
        raise UsageError(f"--standalone needs --format latex, not {form}")
    if mark != "paper" and form == "latex-macros":
        raise UsageError(f"--mark {mark} is for tables; leave it out with --format latex-macros")
    if mark != "paper" and form in FRAME_FORMATS:
        raise UsageError(
            f"--mark {mark} needs --format {', '.join(SHEET_FORMATS[:-1])} or {SHEET_FORMATS[-1]}; {form} "
            "always lists what is bold in the paper"
        )
    wanted = load_registry().tables_with(table, others)
    models = list(dict.fromkeys(row.model for each in wanted for row in each.rows))
    with progress("counting", len(models), "networks") as advance:
        counts = counts_of(models, advance, recount=recount)
    records = [record for folder in folders for record in records_of(folder)]
    report_left_out(records)
    elsewhere = count_evidence(wanted, recount=recount)
    compared = compare_tables(wanted, counts, records, elsewhere)
    if as_json or form == "json":
        echo_json([each.as_json() for each in compared] if table == ALL else compared[0].as_json())
        return
    if form == "csv":
        from sdabench.report.frames import tables_frame

        echo_frame(tables_frame(compared), form)
        return
    if form == "latex-macros":
        from sdabench.report.latex_macros import to_latex_macros

        echo(to_latex_macros(compared))
        return
    from sdabench.report.tables import table_sheet

    sheets = [table_sheet(each, mark=mark) for each in compared]
    show(*sheets, form=form, standalone=standalone)


def report_left_out(records: "Sequence[Record]") -> None:
    """Report on stderr which records cannot be compared with the paper, and why."""
    left_out = [record for record in records if not record.comparable]
    if left_out:
        networks = list_names(list(dict.fromkeys(record.model for record in left_out)))
        reasons = list(dict.fromkeys(sentence for record in left_out for sentence in record.obstacles))
        more = f" And {len(reasons) - SHOWN:,} more reasons." if len(reasons) > SHOWN else ""
        note(
            f"{len(left_out):,} of {len(records):,} records are left out ({networks}). "
            f"{' '.join(reasons[:SHOWN])}{more}"
        )
