"""Options and output that commands share."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from sdabench.registry import SUITE_NAMES, SUITES, load_registry

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


class DataSource(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``imagenet=PATH``: which dataset, and where it lies."""

    name = "imagenet=PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        kind, equals, path = str(value).partition("=")
        if kind != "imagenet" or not equals or not path:
            self.fail(f"'{value}' is not imagenet=PATH", param, ctx)
        try:
            return Path(path).expanduser()
        except RuntimeError as error:
            self.fail(f"{value}: {error}", param, ctx)


def echo_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2, allow_nan=False))


@contextmanager
def progress(description: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left on stderr, if that is a terminal; yields what advances it."""
    if not sys.stderr.isatty():
        yield lambda steps: None
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
        yield lambda steps: bar.update(task, advance=steps)
