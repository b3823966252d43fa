"""Help pages: options in named groups, and the advanced ones only with ``--help-all``."""

import os
import re
import sys
from collections.abc import Iterable
from inspect import cleandoc
from typing import Any

import click

from sdabench.errors import RegistryError
from sdabench.registry import unknown
from sdabench.registry.plugins import use_plugin

FIRST_COLUMN = 24  # characters; the text of a longer option begins on the next line
SHORT_PAGE = 9  # pages with up to this many options show all of them, without groups
HELP_ALL = "sdabench.help_all"  # in the context: the page has all options
NO_COMMAND: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())  # since click 8.2
_COUNT = r"(?:x>=[01]|[01]<=x<=(?:1024|1000000000))"  # the range of a plain count
HYPHEN, SPACE = "\N{NON-BREAKING HYPHEN}", "\N{NO-BREAK SPACE}"  # keep a line from breaking there


class Option(click.Option):
    """An option with the heading of its group in the help.

    An ``advanced`` one is described only by ``--help-all`` if the page is long; ``--help`` lists its name.
    """

    def __init__(self, *args: Any, group: str = "Options", advanced: bool = False, **attrs: Any) -> None:
        if isinstance(attrs.get("type"), click.IntRange):
            attrs.setdefault("metavar", "N")
        attrs.setdefault("show_default", attrs.get("default") is not None)
        super().__init__(*args, **attrs)
        self.group = group
        self.advanced = advanced

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Shorten the default and the range that click adds to a help text.

        The range of a plain count is omitted. Brackets of the text and of click are merged.
        """
        record = super().get_help_record(ctx)
        if record is None:
            return None
        text = re.sub(rf"  \[{_COUNT}\]$|; {_COUNT}(?=\]$)", "", record[1])
        return record[0], text.replace("]  [", "; ")


class Formatter(click.HelpFormatter):
    """Bold headings, colored terms, and no line break in a hyphenated word or after "default:"."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args.replace("-", HYPHEN), prefix)

    def write_heading(self, heading: str) -> None:
        super().write_heading(_styled(heading, bold=True))

    def write_text(self, text: str) -> None:
        super().write_text(text.replace("-", HYPHEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        rows = list(rows)
        texts = [text.replace("-", HYPHEN).replace("default: ", f"default:{SPACE}") for _, text in rows]
        terms = [_styled(term, fg="cyan") for term, _ in rows]
        super().write_dl([*zip(terms, texts, strict=True)], col_max, col_spacing)

    def write_sections(self, sections: dict[str, list[tuple[str, str]]]) -> None:
        """Write lists of terms and their texts, all with the same first column."""
        longest = max(len(term) for rows in sections.values() for term, _ in rows)
        width = min(longest, FIRST_COLUMN)
        for heading, rows in sections.items():
            with self.section(heading):
                self.write_dl([(term.ljust(width), text) for term, text in rows], width)

    def getvalue(self) -> str:
        return super().getvalue().replace(HYPHEN, "-").replace(SPACE, " ")


class Context(click.Context):
    formatter_class = Formatter


class Command(click.Command):
    """A command whose help groups its options, with ``--help-all`` if a long page has advanced ones.

    It has the option ``--plugin``, unless it does not take names of networks or tables.
    """

    context_class = Context

    def __init__(self, *args: Any, takes_plugins: bool = True, **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        options = [param for param in self.params if isinstance(param, Option)]
        self.hides_some = len(options) >= SHORT_PAGE and any(each.advanced for each in options)
        if self.hides_some:
            self.params.append(
                Option(
                    ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=_show_all,
                    group="Help", help="Show all options and exit",
                )
            )  # fmt: skip

        if takes_plugins:
            self.params.append(
                Option(
                    ["--plugin"], type=click.Path(), multiple=True, metavar="FOLDER", is_eager=True,
                    expose_value=False, callback=_use_plugins, group="Networks", advanced=True,
                    help="Add the networks and tables of a plugin  [env: SDABENCH_PLUGINS]",
                )
            )  # fmt: skip

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        found = super().get_help_option(ctx)
        if found is not None:
            found.help = "Show this message and exit"
        return found

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the first line of the help text, uncut; click wraps it."""
        return (self.help or "").partition("\n")[0].removesuffix(".")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        assert isinstance(formatter, Formatter)
        brief = self.hides_some and HELP_ALL not in ctx.meta
        groups: dict[str, list[tuple[str, str]]] = {}
        hidden: list[str] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None or isinstance(param, click.Argument):
                continue
            if brief and getattr(param, "advanced", False):
                hidden.append(param.opts[-1])
            else:
                groups.setdefault(getattr(param, "group", "Help"), []).append(record)
        if brief:
            del groups["Help"]  # the reader knows --help, and the last line names --help-all
        every = [record for records in groups.values() for record in records]
        formatter.write_sections(groups if len(every) > SHORT_PAGE else {"Options": every})
        if hidden:
            with formatter.section("More options, described by --help-all"):
                formatter.write_text(", ".join(hidden))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each part of the epilog as a section with its heading at the margin."""
        if self.epilog:
            formatter.write_paragraph()
            heading = re.compile(r"^\w.*(?=:$)", re.MULTILINE)
            formatter.write_text(
                heading.sub(lambda found: _styled(found[0], bold=True), cleandoc(self.epilog))
            )


class Group(Command, click.Group):
    """A group of such commands, which are listed before the options."""

    command_class = Command

    def __init__(self, *args: Any, takes_plugins: bool = False, **attrs: Any) -> None:
        super().__init__(*args, takes_plugins=takes_plugins, **attrs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # as they are declared; click would sort them

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            listing = f"'{ctx.command_path} -h' lists all"
            ctx.fail(unknown("command", args[0], self.list_commands(ctx), listing))
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)


def one_line(error: click.ClickException) -> str:
    """Return an error of click as one line, with the page that describes the command as the next step."""
    if isinstance(error, NO_COMMAND) and error.ctx is not None:  # its message is the whole page
        message = "name a command"
    else:
        message = " ".join(error.format_message().split()).rstrip(".")
    if not isinstance(error, click.UsageError) or error.ctx is None or "; " in message:
        return message
    return f"{message}; see '{error.ctx.command_path} -h'"


def _show_all(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[HELP_ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def _use_plugins(ctx: click.Context, param: click.Parameter, folders: tuple[str, ...]) -> None:
    try:
        for folder in folders:
            use_plugin(folder)
    except RegistryError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _styled(text: str, **style: Any) -> str:
    """Style a text for a terminal, unless NO_COLOR is set."""
    plain = os.environ.get("NO_COLOR") or sys.stdout is None or not sys.stdout.isatty()
    return text if plain else click.style(text, **style)
