"""``sdabench card``."""

from pathlib import Path
from typing import Annotated

import click

from sdabench.cli.help import Command
from sdabench.cli.options import FILE
from sdabench.cli.parameters import argument, declared, option
from sdabench.errors import RefusedError
from sdabench.terminal import echo

EPILOG = """\b
Examples:
  sdabench card sda_resnet86
  sdabench card runs/imagenet:sda_resnet86 -o README.md
"""


@click.command("card", cls=Command, epilog=EPILOG)
@declared
def command(
    run: Annotated[str, argument(metavar="NAME|RUN")],
    output: Annotated[Path | None, option(
        "-o", "--output", type=FILE, help="File to write  [default: print to stdout]")],
) -> None:  # fmt: skip
    """Write a model card for Hugging Face.

    RUN is FOLDER or FOLDER:NETWORK, where FOLDER is the --output folder of a run or its records.jsonl. The
    card has the metadata that Hugging Face reads (model-index), the measured numbers beside the paper's, the
    training, the limits and the citation. The card of a NAME has no measured accuracies.
    """
    from sdabench.files import atomic_write
    from sdabench.tools.card.card import make_card
    from sdabench.tools.card.view import MARK, to_card

    card = make_card(run)
    text = to_card(card)
    if output is None:
        echo(text, nl=False)
    else:
        if output.is_file() and MARK not in output.read_text(errors="replace"):
            raise RefusedError(f"{output} exists and is not a card of sdabench; name another -o")
        with atomic_write(output, "name another -o") as file:
            file.write(text.encode(errors="backslashreplace"))
        echo(f"Wrote {output}", err=True)
    if card.runs:
        echo("The card names no license: state one before you publish weights.", err=True)
