"""Options and output that commands share."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from click.shell_completion import CompletionItem

from sdabench.registry import SUITE_NAMES, SUITES, load_registry
from sdabench.report.table import Sheet

SHEET_FORMATS = ("terminal", "markdown", "latex", "html")

suite_option = click.option("--suite", type=click.Choice(SUITE_NAMES), help="All networks of a suite.")
json_option = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, and nothing else.")


class ModelName(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A model's name or a wildcard; checked by the registry, completed by the shell."""

    name = "model"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in load_registry().models if name.startswith(incomplete)]


class TableName(click.Choice[str]):
    def __init__(self) -> None:
        super().__init__([table for tables in SUITES.values() for table in tables])


def show(sheet: Sheet, form: str) -> None:
    """Prints a sheet, in one of ``SHEET_FORMATS``."""
    from sdabench.report import render

    if form == "terminal":
        render.print_terminal(sheet)
    else:
        renderers = {"markdown": render.to_markdown, "latex": render.to_latex, "html": render.to_html}
        click.echo(renderers[form](sheet))


def echo_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2, allow_nan=False))


class Advance:
    """Moves a bar on by some steps; ``note`` says where the work is. Here there is no bar."""

    def __call__(self, steps: int, note: str = "") -> None: ...

    def say(self, line: str) -> None:
        """A line on stderr, above the bar."""
        click.echo(line, err=True)


@contextmanager
def progress(description: str, total: int, unit: str) -> Iterator[Advance]:
    """A bar with rate and time left on stderr, if that is a terminal; yields what advances it."""
    if not sys.stderr.isatty():
        yield Advance()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f} {unit}/s", style="progress.data.speed")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)

        class Moving(Advance):
            def __call__(self, steps: int, note: str = "") -> None:
                words = f"{description}  {note}" if note else description
                bar.update(task, advance=steps, description=words)

            def say(self, line: str) -> None:
                bar.console.print(Text(line))

        yield Moving()
