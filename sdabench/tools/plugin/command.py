"""``sdabench plugin``."""

from pathlib import Path
from typing import Annotated

import click

from sdabench.cli.help import Command, Group
from sdabench.cli.options import EXISTING_FILE, FOLDER
from sdabench.cli.parameters import argument, declared, option
from sdabench.terminal import echo

EPILOG = """\b
Examples:
  sdabench plugin new mynet
  sdabench plugin new mynet --block block.py
  sdabench table mynet --plugin mynet
"""


@click.group("plugin", cls=Group, epilog=EPILOG)
def command() -> None:
    """Start a plugin with networks and tables of your own."""


@command.command("new", cls=Command, epilog=EPILOG, takes_plugins=False)
@declared
def new(
    folder: Annotated[Path, argument(metavar="DIR", type=FOLDER)],
    block: Annotated[Path | None, option(
        "--block", type=EXISTING_FILE, metavar="FILE", help="Use the block that this Python file registers")],
) -> None:  # fmt: skip
    """Write a new plugin: a block, its networks, a table and a test.

    DIR is a new folder, whose name becomes that of the networks. It is a project that pip can install, and
    that --plugin accepts as it is.
    """
    from sdabench.tools.plugin.new import new_plugin

    plugin = new_plugin(folder, block)
    plugin.write()
    for name in plugin.files:
        echo(f"Wrote {folder / name}")
    echo(f"Next: enter the printed numbers in {folder / plugin.table}, and run:")
    echo(f"  sdabench --plugin {folder} table {plugin.name}")
