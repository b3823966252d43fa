"""Represent the classes and objects of a checkpoint by names and stubs, which run no code of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sdabench.errors import WeightsError

# More than in any network; without limits, modules that contain each other would be an endless loop.
MAX_MODULE_ENTRIES = 200_000
MAX_MODULE_DEPTH = 100
MAX_KEY_LENGTH = 500


@dataclass(frozen=True, slots=True)
class Name:
    """The dotted name of a class or function that a file refers to; it is never imported."""

    dotted: str

    def __str__(self) -> str:
        return printable(self.dotted)

    @property
    def package(self) -> str:
        return self.dotted.partition(".")[0]


@dataclass(eq=False, repr=False, slots=True)
class Stub:
    """An object whose class is never imported."""

    name: Name
    args: tuple[Any, ...] = ()  # of the constructor
    state: Any = None  # the pickled attributes
    items: list[Any] = field(default_factory=list)  # pickled items: values, or pairs of key and value

    def __str__(self) -> str:
        return str(self.name)

    def append(self, item: Any) -> None:  # called by the unpickler, like extend
        self.items.append(item)

    def extend(self, items: list[Any]) -> None:
        self.items += items


class RefusedError(WeightsError):
    """A file refers to a class or function that weights do not need; the message names it."""


def refused(name: Any) -> RefusedError:
    return RefusedError(
        f"refers to {kind_of(name)}, which weights do not need; no code was run. "
        "Ask its author for the state_dict() alone"
    )


def printable(text: str, longest: int = 120) -> str:
    """Make a text of a file safe to print: one line of bounded length, without control characters."""
    shown = text if len(text) <= longest else f"{text[:longest]}…"
    return "".join(letter if letter.isprintable() else "?" for letter in shown)


def kind_of(value: Any) -> str:
    """Return the dotted name of a Name or Stub, or the class name of another value, for messages."""
    if isinstance(value, Name):
        return str(value)
    return str(value.name) if isinstance(value, Stub) else type(value).__name__


def is_module(value: Any) -> bool:
    """Return whether a value is a pickled ``nn.Module``."""
    return (
        isinstance(value, Stub)
        and isinstance(value.state, dict)
        and all(isinstance(value.state.get(part), dict) for part in ("_parameters", "_buffers", "_modules"))
    )


def module_state(module: Stub) -> dict[str, Tensor]:
    """Collect the state dict of a pickled ``nn.Module``, in torch's order.

    Raises:
        WeightsError: the module contains itself, or entries other than tensors and modules.
    """
    state: dict[str, Tensor] = {}
    for count, (prefix, name, value, wanted) in enumerate(_entries(module, ""), start=1):
        if count > MAX_MODULE_ENTRIES or prefix.count(".") > MAX_MODULE_DEPTH:
            raise WeightsError("holds modules that contain each other, or more than any network has")
        key = f"{prefix}{name}" if type(name) is str and len(name) < MAX_KEY_LENGTH else prefix
        if key == prefix or len(key) > MAX_KEY_LENGTH or key in state:
            raise WeightsError(f"holds a module with an unusable entry name under '{printable(key)}'")
        if isinstance(value, Tensor) and wanted == "tensor":
            state[key] = value
        elif value is not None and not (is_module(value) and wanted == "module"):
            raise WeightsError(
                f"holds a module whose '{printable(key)}' is {kind_of(value)}, not a plain {wanted}"
            )
    return state


def _entries(module: Stub, prefix: str) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield prefix, name, value and wanted kind of each entry; buffers that are not persistent are None."""
    skipped = module.state.get("_non_persistent_buffers_set")
    skipped = skipped if isinstance(skipped, set | frozenset) else ()
    for name, value in module.state["_parameters"].items():
        yield prefix, name, value, "tensor"
    for name, value in module.state["_buffers"].items():
        yield prefix, name, None if name in skipped else value, "tensor"
    for name, value in module.state["_modules"].items():
        yield prefix, name, value, "module"
        if is_module(value):
            yield from _entries(value, f"{prefix}{name}.")


def stubbed_classes(checkpoint: Any) -> list[str]:
    """List the names of the classes of all stubs in a checkpoint, sorted."""
    found: set[str] = set()
    seen: set[int] = set()
    pending: list[Any] = [checkpoint]
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Stub):
            found.add(str(value.name))
            pending += [value.args, value.state, value.items]
        elif isinstance(value, dict):
            pending += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            pending += value
    return sorted(found)
