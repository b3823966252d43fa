"""What a registry entry can name: blocks, stages and stem pools, registered by the families' files."""

import pkgutil
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Generic, TypeVar

import sdabench.models
from sdabench.registry import unknown

Factory = Callable[..., Any]
F = TypeVar("F", bound=Factory)


class Parts(Generic[F]):
    """The parts of one kind, by name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._known: dict[str, F] = {}

    def register(self, name: str) -> Callable[[F], F]:
        """A decorator that makes a part available to the registry under ``name``.

        Raises:
            ValueError: the name is taken.
        """

        def keep(part: F) -> F:
            if name in self._known:
                raise ValueError(f"{self.kind} {name!r} is registered twice: {self._known[name]} and {part}")
            self._known[name] = part
            return part

        return keep

    def __getitem__(self, name: str) -> F:
        _import_families()
        if name not in self._known:
            listing = f"there are {', '.join(sorted(self._known))}"
            raise ValueError(unknown(self.kind, name, self._known, listing))
        return self._known[name]


@cache
def _import_families() -> None:
    """Importing a family's file registers its parts."""
    for module in pkgutil.iter_modules(sdabench.models.__path__):
        import_module(f"sdabench.models.{module.name}")
