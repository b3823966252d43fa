"""Parameters of commands, declared in the annotations of the functions that receive their values.

@click.command("greet", cls=Command)
@declared
def command(name: Annotated[str, argument()], loud: Annotated[bool, option("--loud", is_flag=True)]) -> None:
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any

import click

from sdabench.cli.help import Option

Declaration = Callable[[str], click.Parameter]  # takes the name of the Python argument


def option(*flags: str, **attrs: Any) -> Declaration:
    """Declare an option; the keywords are those of :class:`sdabench.cli.help.Option`."""
    return lambda name: Option([*flags, name], **attrs)


def argument(**attrs: Any) -> Declaration:
    """Declare an argument; the keywords are those of :class:`click.Argument`."""
    return lambda name: click.Argument([name], **attrs)


def declared(function: Callable[..., None]) -> Callable[..., None]:
    """Give a function the parameters that its annotations declare, in their order.

    An argument whose type is a dataclass has the parameters of its fields, and receives all their values.
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
