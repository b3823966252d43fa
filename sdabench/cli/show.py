"""``sdabench show``."""

from pathlib import Path
from typing import Annotated

import click

from sdabench.cli.help import Command
from sdabench.cli.options import MODEL, AsJson, echo_json, records_option
from sdabench.cli.parameters import argument, declared

EPILOG = """\b
Examples:
  sdabench show sda_pyconv86
  sdabench show gsop50 --json
  sdabench show sda_resnet86 --records runs/classification
"""


@click.command("show", cls=Command, epilog=EPILOG)
@declared
def command(
    name: Annotated[str, argument(type=MODEL)],
    folders: Annotated[tuple[Path, ...], records_option(
        "Show the records of this run too: its folder or its records.jsonl")],
    as_json: AsJson,
) -> None:  # fmt: skip
    """Show one page about a network.

    The page shows the network's lineage, the position of its depth attention, the claims of the paper with
    their verdicts, the records, and the sources.
    """
    from sdabench.claims.model_page import model_page
    from sdabench.records.record import stored_records
    from sdabench.records.store import records_of
    from sdabench.registry import load_registry

    page = model_page(
        load_registry(),
        name,
        [*stored_records(), *(record for folder in folders for record in records_of(folder))],
    )
    if as_json:
        echo_json(page.as_json())
        return
    from sdabench.report.model_page import print_page

    print_page(page)
