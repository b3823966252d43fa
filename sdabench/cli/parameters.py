"""Parameters of commands, declared in the annotations of the functions that receive their values.

@click.command("greet", cls=Command)
@declared
def command(name: Annotated[str, argument()], loud: Annotated[bool, option("--loud", is_flag=True)]) -> None:
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any

import click
from click.shell_completion import CompletionItem

from sdabench.cli.help import Option
from sdabench.errors import SdabenchError, UsageError
from sdabench.registry import unknown

Declaration = Callable[[str], click.Parameter]  # takes the name of the Python argument


def option(*flags: str, **attrs: Any) -> Declaration:
    """Declare an option; the keywords are those of :class:`sdabench.cli.help.Option`."""
    return lambda name: Option([*flags, name], **attrs)


def argument(**attrs: Any) -> Declaration:
    """Declare an argument; the keywords are those of :class:`click.Argument`."""
    return lambda name: click.Argument([name], **attrs)


def declared(function: Callable[..., None]) -> Callable[..., None]:
    """Give a function the parameters that its annotations declare, in their order.

    An argument whose type is a dataclass declares one parameter per field, and receives an instance.
    """
    annotations: dict[str, Any] = {**function.__annotations__}
    del annotations["return"]
    groups: dict[str, Any] = {name: kind for name, kind in annotations.items() if is_dataclass(kind)}
    types: dict[str, Any] = {}
    for name, kind in annotations.items():
        types |= {field.name: field.type for field in fields(kind)} if name in groups else {name: kind}
    parameters = [kind.__metadata__[0](name) for name, kind in types.items()]

    @wraps(function)
    def wrapper(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        function(**values)

    wrapper.__click_params__ = parameters[::-1]  # type: ignore[attr-defined]
    return wrapper


class ParsedType(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A type that parses a text with a function; a UsageError of the function is reported with the option.

    Args:
        shape: the metavar in the help, shown unchanged; click would capitalize it.
        names: lists the names that the shell completes.
        files: let the shell complete file names.
    """

    def __init__(
        self,
        parse: Callable[[str], Any],
        shape: str,
        names: Callable[[], Iterable[str]] = tuple,
        files: bool = False,
    ) -> None:
        self.parse, self.name, self.names, self.files = parse, shape, names, files

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str | None:
        return self.name if isinstance(param, click.Option) else None

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.parse(value) if isinstance(value, str) else value
        except UsageError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        if self.files:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(name) for name in self.names() if name.startswith(incomplete)]


class OneOf(click.Choice[str]):
    """A choice of names, or of what a function lists; the error for another name suggests similar ones."""

    def __init__(self, kind: str, names: Sequence[str] | Callable[[], Sequence[str]]) -> None:
        self.names, self.kind = names, kind
        super().__init__(())

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(self.names() if callable(self.names) else self.names)

    @choices.setter
    def choices(self, names: Sequence[str]) -> None:
        """Ignore the names that click stores."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str | None:
        """Show the kind of name if the names cannot be listed; a wrong plugin must not hide the help."""
        try:
            return super().get_metavar(param, ctx) if ctx else None
        except SdabenchError:
            return self.kind.upper()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.choices:
            self.fail(unknown(self.kind, value, self.choices, f"use {', '.join(self.choices)}"), param, ctx)
        return super().convert(value, param, ctx)
