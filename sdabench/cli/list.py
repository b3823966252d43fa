"""``sdabench list``."""

from dataclasses import asdict
from typing import Annotated

import click

from sdabench.cli.help import Command
from sdabench.cli.options import (
    FRAME_FORMATS,
    AsJson,
    Patterns,
    SuiteName,
    check_formats,
    echo_frame,
    echo_json,
    format_option,
    show,
)
from sdabench.cli.parameters import declared
from sdabench.registry.catalogue import load_catalogue
from sdabench.report.sheet import Cell, Sheet, headings, row
from sdabench.tex import Tex

EPILOG = """\b
Examples:
  sdabench list
  sdabench list 'sda_*' --json
  sdabench list --suite detection
  sdabench list --format csv > networks.csv
"""


@click.command("list", cls=Command, epilog=EPILOG)
@declared
def command(
    patterns: Patterns,
    suite: SuiteName,
    form: Annotated[str, format_option()],
    as_json: AsJson,
) -> None:  # fmt: skip
    """List the networks and the tables that contain them.

    PATTERNS are names or wildcards. Each network NAME for classification has a version with depth attention,
    sda_NAME. The last column shows the tables that have the network.
    """
    check_formats(form, as_json)
    models = load_catalogue().select(list(patterns) or ["*"], suite)
    if as_json:
        echo_json([asdict(model) for model in models])
        return
    if form in FRAME_FORMATS:
        from sdabench.report.frames import networks_frame

        echo_frame(networks_frame(models), form)
        return
    rows = []
    for model in models:
        name = Cell(model.model, bold=model.depth_attention)
        tables = Cell("\n".join(model.tables)) if model.tables else Cell("none", tone="dim")
        rows.append(row(name, Tex(model.title), model.baseline or "", model.like_for_like or "", tables))
    extra = sum(not model.tables for model in models)
    notes = [
        f"{len(models)} networks, {extra} of them in no table. Bold: with depth attention. "
        "Control: the same network without depth attention."
    ]
    columns = headings("model", "description", "baseline", "control", "tables")
    show(Sheet("Networks", columns, [rows], notes), form=form)
