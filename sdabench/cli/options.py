"""Options and output that commands share."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from sdabench.errors import UsageError
from sdabench.progress import Advance as Advance
from sdabench.progress import progress as progress
from sdabench.registry import SUITE_NAMES, SUITES
from sdabench.report.sheet import Sheet

if TYPE_CHECKING:
    from sdabench.records.record import Record

F = TypeVar("F", bound=Callable[..., Any])

SHEET_FORMATS = ("terminal", "markdown", "latex", "html")

suite_option = click.option("--suite", type=click.Choice(SUITE_NAMES), help="All networks of a suite.")
json_option = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, and nothing else.")
recount_option = click.option(
    "--recount", is_flag=True, help="Count all, also where nothing has changed since an earlier count."
)


class ModelName(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A model's name or a wildcard; checked by the registry, completed by the shell."""

    name = "model"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from sdabench.registry.catalogue import load_catalogue

        return [CompletionItem(name) for name in load_catalogue().networks if name.startswith(incomplete)]


def records_option(words: str) -> Callable[[F], F]:
    return click.option(
        "--records",
        "folders",
        multiple=True,
        type=click.Path(exists=True, path_type=Path),
        help=words,
    )


def read_records(folders: Iterable[Path]) -> "list[Record]":
    """The records in some runs' folders, or in the files themselves."""
    from sdabench.records.json_lines import read_lines
    from sdabench.records.record import Record

    records = []
    for folder in folders:
        path = folder / "records.jsonl" if folder.is_dir() else folder
        if not path.is_file():
            raise UsageError(f"no records in {folder}; --records names the --output folder of a run")
        records += list(read_lines(path, Record))
    return records


others_option = click.option(
    "--with", "others", multiple=True, type=ModelName(),
    help="Networks that the README lacks, as rows of their own: names or wildcards.",
)  # fmt: skip


class TableName(click.Choice[str]):
    def __init__(self) -> None:
        super().__init__([*(table for tables in SUITES.values() for table in tables), "all"])


def show(*sheets: Sheet, form: str, standalone: bool = False) -> None:
    """Prints sheets, in one of ``SHEET_FORMATS``; ``standalone`` LaTeX is a document of its own."""
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
    """One object, or a list where a network is measured by several tasks."""
    each = [record.as_json() for record in records]
    echo_json(each[0] if len(each) == 1 else each)
