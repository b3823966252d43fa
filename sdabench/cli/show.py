"""``sdabench show``."""

from pathlib import Path

import click

from sdabench.cli.help import Command
from sdabench.cli.options import ModelName, echo_json, json_option, read_records, records_option

EPILOG = """\b
Examples:
  sdabench show sda_pyconv86
  sdabench show gsop50 --json
  sdabench show sda_resnet86 --records runs/classification
"""


@click.command("show", cls=Command, epilog=EPILOG)
@click.argument("name", type=ModelName())
@records_option("Show the records of this run too: its folder or its records.jsonl")
@json_option
def command(name: str, folders: tuple[Path, ...], as_json: bool) -> None:
    """Show one page about a network.

    The page shows the network's lineage, the position of its depth attention, the claims of the paper with
    their verdicts, the records, and the sources.
    """
    from sdabench.claims.model_page import model_page
    from sdabench.records.record import stored_records
    from sdabench.registry import load_registry

    page = model_page(load_registry(), name, [*stored_records(), *read_records(folders)])
    if as_json:
        echo_json(page.as_json())
        return
    from sdabench.report.model_page import print_page

    print_page(page)
