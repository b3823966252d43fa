"""``sdabench list``."""

from dataclasses import asdict

import click

from sdabench.cli.options import ModelName, echo_json, json_option, suite_option
from sdabench.registry.catalogue import load_catalogue
from sdabench.report.sheet import Cell, Heading, Sheet

EPILOG = """\b
Examples:
  sdabench list
  sdabench list 'sda_*' --json
  sdabench list --suite detection
"""


@click.command("list", epilog=EPILOG)
@click.argument("patterns", nargs=-1, type=ModelName())
@suite_option
@json_option
def command(patterns: tuple[str, ...], suite: str | None, as_json: bool) -> None:
    """The networks of the registry, and the tables they stand in.

    PATTERNS are names or wildcards. Each network for classification is there with depth attention too,
    as sda_NAME; which of them the paper has, the last column says.
    """
    models = load_catalogue().select(list(patterns) or ["*"], suite)
    if as_json:
        echo_json([asdict(model) for model in models])
        return
    from sdabench.report.render import print_terminal

    headings = [
        Heading(text) for text in ("model", "what it is", "baseline", "like for like", "in the README")
    ]
    rows = [
        [
            Cell(model.model, bold=model.depth_attention),
            Cell(model.title),
            Cell(model.baseline or ""),
            Cell(model.like_for_like or ""),
            Cell("\n".join(model.tables)) if model.tables else Cell("no", tone="dim"),
        ]
        for model in models
    ]
    ours = sum(not model.tables for model in models)
    notes = [f"{len(models)} networks, {ours} of them not in the README. Bold: with depth attention."]
    print_terminal(Sheet("Networks", headings, [rows], notes))
