"""``sdabench report``."""

from pathlib import Path
from typing import Annotated

import click

from sdabench.cli.help import Command
from sdabench.cli.options import FILE
from sdabench.cli.parameters import argument, declared, option
from sdabench.errors import UsageError
from sdabench.processes import note
from sdabench.terminal import echo

RUN = click.Path(exists=True, path_type=Path)
MOST_BYTES = 5_000_000
EPILOG = """\b
Examples:
  sdabench report
  sdabench report runs/imagenet -o imagenet.html
  sdabench report runs/before runs/after -o difference.html
"""


@click.command("report", cls=Command, epilog=EPILOG)
@declared
def command(
    runs: Annotated[tuple[Path, ...], argument(nargs=-1, metavar="[RUN]...", type=RUN)],
    output: Annotated[Path, option(
        "-o", "--output", metavar="FILE", type=FILE, default=Path("report.html"), help="HTML file to write")],
) -> None:  # fmt: skip
    """Write one HTML page with all results.

    RUN is the --output folder of a run, or its records.jsonl. Without any, the page shows the records of this
    version's results/.

    The page states how many claims of the paper hold, and shows tables, figures, runs, comparisons and the
    provenance of every number. It is one file that opens without a network.
    """
    if output.suffix.lower() not in (".html", ".htm"):  # a run's records.jsonl, for example
        raise UsageError(f"{output} is not an HTML file; name one with -o, e.g. report.html")
    from sdabench.files import atomic_write
    from sdabench.tools.report.page import make_page
    from sdabench.tools.report.view import to_html

    page = make_page(runs)
    html = to_html(page).encode()
    with atomic_write(output, "name another file with -o", durable=False) as file:
        file.write(html)
    for answer in page.answers:
        echo(answer.sentence)
    echo(f"Wrote {output} ({len(html) / 1e6:.1f} MB). Open it in a browser.")
    if len(html) > MOST_BYTES:
        note(f"{output} is larger than {MOST_BYTES / 1e6:.0f} MB; name fewer runs for a smaller page")
