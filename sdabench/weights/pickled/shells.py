"""What stands for the classes of a checkpoint: names and shells, which hold what was saved and do nothing."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sdabench.errors import WeightsError

# Far beyond any network: a file whose modules hold each other would be walked for ever.
MODULE_ENTRIES = 200_000
DEEPEST_MODULE = 100
LONGEST_KEY = 500
CONTENTS = ("_parameters", "_buffers", "_modules")


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that a file names, which is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return printable(f"{self.module}.{self.name}")


@dataclass(eq=False, repr=False, slots=True)
class Shell:
    """An object of a class that is never looked up.

    Attributes:
        args: what its class would have been called with.
        state: what its class would have made its attributes of.
        items: what would have been put into it: values, or pairs of key and value.
    """

    name: Name
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<{self.name}>"


def printable(text: str, longest: int = 120) -> str:
    """Words of a file that may be shown: on one line, of bounded length, without a terminal's codes."""
    shown = text if len(text) <= longest else f"{text[:longest]}…"
    return "".join(letter if letter.isprintable() else "?" for letter in shown)


def kind_of(value: Any) -> str:
    """What to call a value in an error: a name as it is, anything else by its class."""
    if isinstance(value, Name):
        return str(value)
    return str(value.name) if isinstance(value, Shell) else type(value).__name__


class RefusedError(WeightsError):
    """A file wants a class or function that weights do not need; the message names it."""


def refused(name: Any) -> RefusedError:
    return RefusedError(
        f"wants {kind_of(name)}, which weights do not need, and was not opened; "
        "ask for its state_dict() alone"
    )


def is_module(value: Any) -> bool:
    """Whether it is a pickled ``nn.Module``."""
    return (
        isinstance(value, Shell)
        and isinstance(value.state, dict)
        and all(isinstance(value.state.get(part), dict) for part in CONTENTS)
    )


def module_state(module: Shell) -> dict[str, Tensor]:
    """The state dict of a pickled ``nn.Module``, in the order of torch's own.

    Raises:
        WeightsError: it holds something else than tensors and modules, or itself.
    """
    state: dict[str, Tensor] = {}
    entries = 0
    waiting = [("", module, 0)]
    while waiting:
        prefix, module, depth = waiting.pop()
        children = []
        for part, name, value in _contents(module):
            entries += 1
            if entries > MODULE_ENTRIES or depth > DEEPEST_MODULE:
                raise WeightsError("holds modules that hold each other, or more than any network has")
            key = f"{prefix}{name}" if type(name) is str and len(name) < LONGEST_KEY else prefix
            if key == prefix or len(key) > LONGEST_KEY or key in state:
                raise WeightsError(f"holds a module with an entry of no usable name under '{printable(key)}'")
            if value is None:
                continue
            if part == "_modules" and is_module(value):
                children.append((f"{key}.", value, depth + 1))
            elif part != "_modules" and isinstance(value, Tensor):
                state[key] = value
            else:
                wanted = "module" if part == "_modules" else "tensor"
                raise WeightsError(
                    f"holds a module whose '{printable(key)}' is {kind_of(value)}, not a plain {wanted}"
                )
        waiting += reversed(children)
    return state


def _contents(module: Shell) -> Iterator[tuple[str, Any, Any]]:
    constants = module.state.get("_non_persistent_buffers_set")
    for part in CONTENTS:
        for name, value in module.state[part].items():
            constant = part == "_buffers" and isinstance(constants, set | frozenset) and name in constants
            yield part, name, None if constant else value


def classes_in(checkpoint: Any) -> list[str]:
    """The classes whose objects a checkpoint holds as shells, in order of their names."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting: list[Any] = [checkpoint]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Shell):
            found.add(str(value.name))
            waiting += [value.args, value.state, value.items]
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += value
    return sorted(found)
