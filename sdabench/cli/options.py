"""Options and output shared by the commands."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from sdabench.cli.help import option
from sdabench.errors import UsageError
from sdabench.progress import Advance as Advance
from sdabench.progress import progress as progress
from sdabench.registry import SUITE_NAMES, SUITES

if TYPE_CHECKING:
    from sdabench.records.record import Record
    from sdabench.report.sheet import Sheet

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
    from sdabench.records.json_lines import read_lines
    from sdabench.records.record import Record

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
