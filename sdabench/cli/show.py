"""``sdabench show``."""

from pathlib import Path
from typing import Annotated

import click

from sdabench.cli.help import Command
from sdabench.cli.options import (
    FRAME_FORMATS,
    AsJson,
    check_formats,
    echo_frame,
    echo_json,
    format_option,
    records_option,
)
from sdabench.cli.parameters import argument, declared, option
from sdabench.errors import UsageError
from sdabench.terminal import echo

EPILOG = """\b
Examples:
  sdabench show sda_pyconv86
  sdabench show gsop50 --json
  sdabench show sda_resnet86 --records runs/classification
  sdabench show runs/classification
  sdabench show runs/classification --format csv > records.csv
  sdabench show runs/classification --curves --format csv > curves.csv
"""


@click.command("show", cls=Command, epilog=EPILOG)
@declared
def command(
    name: Annotated[str, argument(metavar="NAME|RUN")],
    folders: Annotated[tuple[Path, ...], records_option(
        "Show the records of this run too: its folder or its records.jsonl")],
    curves: Annotated[bool, option(
        "--curves", is_flag=True, help="Print the training curves of RUN, as CSV or JSON")],
    form: Annotated[str, format_option("terminal", *FRAME_FORMATS, text="Output format; csv, json for RUN")],
    as_json: AsJson,
) -> None:  # fmt: skip
    """Show one page about a network, or what a run measured.

    The page of NAME shows the network's lineage, the position of its depth attention, the claims of the paper
    with their verdicts, the records, and the sources.

    RUN is the --output folder of a run or its records.jsonl. Its metrics are listed, and why jobs failed. As
    CSV or JSON they have one row for each record and metric, and with --curves for each logged step.
    """
    from sdabench.registry import load_registry
    from sdabench.registry.sources import checked, is_source

    check_formats(form, as_json)
    registry, run, name = load_registry(), Path(name), checked(name)
    if name not in registry.models and not is_source(name) and (run.exists() or "/" in name):
        if folders:
            raise UsageError("--records is for the page of a network; leave it out, or name one")
        _show_run(run, curves, form, as_json)
        return
    if curves or form != "terminal":
        wrong = "--curves" if curves else f"--format {form}"
        raise UsageError(f"{wrong} is for runs, and there is none at {name}; for a network, use --json")
    from sdabench.claims.model_page import model_page
    from sdabench.records.record import stored_records
    from sdabench.records.store import records_of

    records = [*stored_records(), *(record for folder in folders for record in records_of(folder))]
    page = model_page(registry, name, records)
    if as_json:
        echo_json(page.as_json())
        return
    from sdabench.report.model_page import print_page

    print_page(page)


def _show_run(run: Path, curves: bool, form: str, as_json: bool) -> None:
    if curves and form not in FRAME_FORMATS:
        raise UsageError("--curves needs --format csv or json; 'sdabench plot curves' draws them")
    if form in FRAME_FORMATS:
        from sdabench.report import frames

        echo_frame(frames.training_curves(run) if curves else frames.records(run), form)
        return
    from sdabench.records.store import records_of
    from sdabench.report.summary import describe_metrics

    found = records_of(run)
    if as_json:
        echo_json([record.as_json() for record in found])
        return
    for record in found:
        failed = record.failure and f"{record.model}: {record.failure.kind}: {record.failure.message}"
        echo(failed or describe_metrics(record))
