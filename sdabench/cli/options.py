"""Options and output shared by the commands."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from sdabench.cli.help import option
from sdabench.errors import UsageError
from sdabench.processes import is_main_process
from sdabench.registry import SUITE_NAMES, SUITES

if TYPE_CHECKING:
    from sdabench.records.record import Record
    from sdabench.report.table import Sheet

F = TypeVar("F", bound=Callable[..., Any])

SHEET_FORMATS = ("terminal", "markdown", "latex", "html")

suite_option = option(
    "--suite", type=click.Choice(SUITE_NAMES), group="Networks", help="Select all networks of a suite"
)
json_option = option("--json", "as_json", is_flag=True, group="Output", help="Print only JSON to stdout")
recount_option = option("--recount", is_flag=True, help="Count again instead of using cached counts")


class Seed(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A random seed. Unlike IntRange it leaves its range out of the help."""

    name = "seed"
    convert = click.IntRange(0, 2**63 - 1).convert


class ModelName(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Name or wildcard of a model; the shell completes it, and the registry validates it."""

    name = "model"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from sdabench.registry.catalogue import load_catalogue

        return [CompletionItem(name) for name in load_catalogue().networks if name.startswith(incomplete)]


def records_option(text: str, group: str = "Options") -> Callable[[F], F]:
    return option(
        "--records", "folders", multiple=True, type=click.Path(exists=True, path_type=Path), group=group,
        help=text,
    )  # fmt: skip


def read_records(folders: Iterable[Path]) -> "list[Record]":
    """Read the records of runs, each named by its folder or by its records.jsonl."""
    from sdabench.records.record import Record, read_lines

    records = []
    for folder in folders:
        path = folder / "records.jsonl" if folder.is_dir() else folder
        if not path.is_file():
            raise UsageError(f"no records in {folder}; --records takes the --output folder of a run")
        records += list(read_lines(path, Record))
    return records


others_option = option(
    "--with", "others", multiple=True, type=ModelName(), group="Networks",
    help="Add networks that are not in the paper",
)  # fmt: skip


class TableName(click.Choice[str]):
    def __init__(self) -> None:
        super().__init__([*(table for tables in SUITES.values() for table in tables), "all"])


def show(*sheets: "Sheet", form: str, standalone: bool = False) -> None:
    """Print sheets in one of ``SHEET_FORMATS``; with ``standalone``, LaTeX is a complete document."""
    from sdabench.report import latex, render

    if form == "terminal":
        for index, sheet in enumerate(sheets):
            click.echo("\n" if index else "", nl=False)
            render.print_terminal(sheet)
        return
    renderers = {"markdown": render.to_markdown, "html": render.to_html}
    renderers["latex"] = latex.to_latex_document if standalone else latex.to_latex
    click.echo(renderers[form](*sheets))


def echo_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2, allow_nan=False))


def echo_records(records: "Sequence[Record]") -> None:
    """Print the records of a network as JSON: one object, or a list if there are several tasks."""
    each = [record.as_json() for record in records]
    echo_json(each[0] if len(each) == 1 else each)


class Advance:
    """Advances a progress bar by some steps; ``note`` is shown beside it. This one has no bar."""

    def __call__(self, steps: int, note: str = "") -> None: ...

    def say(self, line: str) -> None:
        """Print a line to stderr, above the bar."""
        click.echo(line, err=True)


@contextmanager
def progress(description: str, total: int | None, unit: str = "") -> Iterator[Advance]:
    """Show a progress bar on stderr if that is a terminal; yields the function that advances it.

    Args:
        unit: of the steps, if they are many and alike: the bar then shows rate and remaining time, otherwise
            elapsed time. ``bytes`` are shown as megabytes, and their ``total`` may be unknown.
    """
    if not sys.stderr.isatty() or not is_main_process():
        yield Advance()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f} {unit}/s", style="progress.data.speed")

    of_bytes = unit == "bytes"
    rate = TransferSpeedColumn() if of_bytes else Rate()
    times = (rate, TimeRemainingColumn(elapsed_when_finished=True)) if unit else (TimeElapsedColumn(),)
    count = DownloadColumn() if of_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, *times)
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)

        class Moving(Advance):
            def __call__(self, steps: int, note: str = "") -> None:
                text = f"{description}  {note}" if note else description
                bar.update(task, advance=steps, description=text)

            def say(self, line: str) -> None:
                bar.console.print(Text(line))

        yield Moving()
