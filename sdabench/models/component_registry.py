"""Registry of components that a model entry can name: blocks, stages, stems and stem pools."""

import pkgutil
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Generic, TypeVar

import sdabench.models
from sdabench.registry import unknown

Factory = Callable[..., Any]
F = TypeVar("F", bound=Factory)


class ComponentRegistry(Generic[F]):
    """Components of one kind by name; the files of the families register them."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._known: dict[str, F] = {}

    def register(self, name: str) -> Callable[[F], F]:
        """Register a component under ``name``; a decorator.

        Raises:
            ValueError: the name is taken.
        """

        def decorate(component: F) -> F:
            if name in self._known:
                raise ValueError(
                    f"{self.kind} {name!r} is registered twice: {self._known[name]} and {component}"
                )
            self._known[name] = component
            return component

        return decorate

    def __getitem__(self, name: str) -> F:
        _import_families()
        if name not in self._known:
            listing = f"choose from {', '.join(sorted(self._known))}"
            raise ValueError(unknown(self.kind, name, self._known, listing))
        return self._known[name]


@cache
def _import_families() -> None:
    """Import the files of all families, which registers their components."""
    for module in pkgutil.iter_modules(sdabench.models.__path__):
        import_module(f"sdabench.models.{module.name}")
