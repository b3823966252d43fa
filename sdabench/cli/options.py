"""Options and output shared by the commands."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from sdabench.cli.parameters import Declaration, OneOf, ParsedType, argument, option
from sdabench.errors import UsageError
from sdabench.offline import OFFLINE, go_offline
from sdabench.registry.catalogue import suite_names
from sdabench.registry.sources import KINDS, checked
from sdabench.terminal import echo

if TYPE_CHECKING:
    import pandas as pd

    from sdabench.claims.paired import PairedComparison
    from sdabench.claims.several import SeveralRuns
    from sdabench.records.record import Record
    from sdabench.report.sheet import Sheet

SHEET_FORMATS = ("terminal", "markdown", "latex", "html")
FRAME_FORMATS = ("csv", "json")
COUNT = click.IntRange(1, 10**9)
AUTO, MAX_PROCESSES = 0, 1024  # values of --nproc
WORKERS = click.IntRange(0, 1024)
MAX_PIXELS = 2**14  # of a side, as in recipes
PIXELS = click.IntRange(32, MAX_PIXELS)


class PathName(click.Path):
    """A type for paths; click takes an empty text for the working directory."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("the name is empty; name a path.", param, ctx)
        return super().convert(value, param, ctx)


FILE = PathName(dir_okay=False)
EXISTING_FILE = PathName(exists=True, dir_okay=False)
FOLDER = PathName(file_okay=False)


class FiniteRange(click.FloatRange):
    """A type for finite numbers in a range; click's FloatRange accepts nan, and inf."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not number <= 1e9:
            self.fail(f"{value} is not a finite number up to 1e9.", param, ctx)
        return number


class OutputFolder(PathName):
    """A type for folders whose names records can store."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        folder = super().convert(value, param, ctx)
        try:
            str(folder).encode()
        except UnicodeEncodeError:
            self.fail("the name of the folder is not UTF-8, so that no record can name it.", param, ctx)
        return folder


class Seed(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A type for random seeds that, unlike IntRange, does not show its range in the help."""

    name = "seed"
    convert = click.IntRange(0, 2**63 - 1).convert


def _models() -> Iterable[str]:
    from sdabench.registry.catalogue import load_catalogue

    return [*load_catalogue().networks, *(f"{kind}:" for kind in KINDS)]


MODEL = ParsedType(checked, "MODEL", _models)  # a name or a wildcard, which the registry validates
SEED = Seed()

# fmt: off
AsJson = Annotated[bool, option("--json", is_flag=True, group="Output", help="Print only JSON to stdout")]
DryRun = Annotated[bool, option(
    "--dry-run", is_flag=True, group="Output", help="Print the plan with time and disk estimates")]
Offline = Annotated[bool, option(
    "--offline", is_flag=True, envvar=OFFLINE, show_envvar=True, is_eager=True, group="Machine",
    advanced=True, callback=lambda context, option, offline: go_offline() if offline else None,
    help="Forbid network access; any attempt is an error")]
Others = Annotated[tuple[str, ...], option(
    "--with", multiple=True, type=MODEL, group="Networks",
    help="Add networks that the tables lack")]
Patterns = Annotated[tuple[str, ...], argument(nargs=-1, type=MODEL)]
Recount = Annotated[bool, option(
    "--recount", is_flag=True, help="Count again instead of using cached counts")]
SuiteName = Annotated[str | None, option(
    "--suite", type=OneOf("suite", suite_names), group="Networks", help="Select all networks of a suite")]
# fmt: on


def records_option(text: str, group: str = "Options") -> Declaration:
    kind = click.Path(exists=True, path_type=Path)
    return option("--records", multiple=True, type=kind, group=group, callback=_each_once, help=text)


def _each_once(
    context: click.Context, parameter: click.Parameter, runs: tuple[Path, ...]
) -> tuple[Path, ...]:
    from sdabench.records.store import distinct_runs

    return tuple(distinct_runs(runs)) if runs else ()


def format_option(*formats: str, text: str = "Output format") -> Declaration:
    kind = click.Choice(formats or (*SHEET_FORMATS, *FRAME_FORMATS))
    return option("--format", type=kind, default="terminal", group="Output", help=text)


def output_option(default: Path | None, shown: str = "") -> Declaration:
    note = f"  [default: {shown}]" if shown else ""
    kind = OutputFolder(file_okay=False)
    return option(
        "-o",
        "--output",
        type=kind,
        default=default,
        group="Output",
        help=f"Folder for all output files{note}",
    )


def show(*sheets: "Sheet", form: str, standalone: bool = False) -> None:
    """Print sheets in one of ``SHEET_FORMATS``; with ``standalone``, LaTeX is a complete document."""
    from sdabench.report import render

    if form == "terminal":
        for index, sheet in enumerate(sheets):
            echo("\n" if index else "", nl=False)
            render.print_terminal(sheet)
    elif form == "markdown":
        echo(render.to_markdown(*sheets))
    else:
        from sdabench.report import html, latex

        renderers = {"html": html.to_html, "latex": latex.to_latex_document if standalone else latex.to_latex}
        echo(renderers[form](*sheets))


def check_formats(form: str, as_json: bool) -> None:
    """Refuse ``--json``, which prints one object, beside another ``--format``."""
    if as_json and form != "terminal":
        raise UsageError(f"--json and --format {form} are two formats; choose one")


def echo_frame(frame: "pd.DataFrame", form: str) -> None:
    """Print a tidy frame in one of ``FRAME_FORMATS``."""
    from sdabench.report.frames import to_csv, to_json

    echo(to_csv(frame), nl=False) if form == "csv" else echo(to_json(frame))


def echo_json(data: Any) -> None:
    echo(json.dumps(data, indent=2, allow_nan=False))


def echo_each(items: "Sequence[Record | PairedComparison | SeveralRuns]") -> None:
    """Print items as JSON: one object, or a list if there are several tasks."""
    each = [item.as_json() for item in items]
    echo_json(each[0] if len(each) == 1 else each)
