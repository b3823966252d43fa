"""Make a package callable, because the Python API has functions that are called like packages."""

from importlib import import_module
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package such as :mod:`sdabench.claims`; a call is one of the function in ``report.frames``."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return getattr(import_module("sdabench.report.frames"), self.__name__.rpartition(".")[2])(
            *args, **options
        )
