"""Groups of options that a command receives as one typed value."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def grouped(kind: type[Any], argument: str, options: Sequence[Callable[[Any], Any]]) -> Callable[[F], F]:
    """Add options to a command, which receives their values as one dataclass.

    Args:
        kind: the dataclass; its fields are the names of the options.
        argument: the name of the command's argument.
    """
    names = [field.name for field in fields(kind)]

    def decorate(command: F) -> F:
        @wraps(command)
        def wrapper(**values: Any) -> Any:
            value = kind(**{name: values.pop(name) for name in names})
            return command(**{argument: value}, **values)

        for option in reversed(options):
            wrapper = option(wrapper)
        return wrapper  # type: ignore[return-value]

    return decorate
