"""A pickle machine that cannot call anything of a file: names stay names, and objects become shells.

Python's own unpickler looks a class or function up in its module, and calls it with what the file says:
whoever wrote the file runs what he likes. Here nothing is looked up. The few names that a checkpoint needs
are keys of ``CALLS``, whose values are functions of ours.
"""

from collections import OrderedDict
from collections.abc import Callable
from pickletools import genops
from typing import IO, Any, Protocol

from sdabench.errors import WeightsError
from sdabench.weights.pickled.allowed import (
    CALLS,
    NAMED,
    RENAMED,
    STANDARD,
    cost,
    hashable,
    new_shell,
    set_of,
    values_of,
)
from sdabench.weights.pickled.shells import Name, Shell, kind_of, printable, refused

# What reading may cost, so that a small file cannot make a large object: steps of the machine, to which the
# items that a function of ours copies are added, bits of a number, and letters of a name.
MOST_STEPS = 5_000_000
LARGEST_INTEGER = 1024
LONGEST_NAME = 1000


class Readable(Protocol):
    """The part of a file that a pickle is read from."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self) -> bytes: ...


def load_pickle(file: Readable | IO[bytes], persistent: Callable[[Any], Any]) -> Any:
    """The object that a pickle describes, with shells in place of all that has a class of its own.

    Args:
        file: read up to the pickle's end.
        persistent: gives the object of a persistent id, which torch uses for storages.

    Raises:
        WeightsError: it wants what weights do not need; the message names that, and continues a sentence.
        Exception: it is damaged, which fails in ways that no list covers.
    """
    return Machine(persistent).run(file)


class Machine:
    """The stack, the marks on it (each a stack that was put aside) and the memo of one pickle."""

    def __init__(self, persistent: Callable[[Any], Any]) -> None:
        self.persistent = persistent
        self.stack: list[Any] = []
        self.aside: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.steps = 0

    def run(self, file: Readable | IO[bytes]) -> Any:
        for opcode, argument, _ in genops(file):  # type: ignore[arg-type]  # read and readline are enough
            self.spend(1)
            if opcode.name in VALUES:
                if type(argument) is int and argument.bit_length() > LARGEST_INTEGER:
                    raise WeightsError("holds a number of absurd size")
                self.stack.append(argument)
            elif opcode.name in EMPTY:
                self.stack.append(EMPTY[opcode.name]())
            elif opcode.name in ACTIONS:
                ACTIONS[opcode.name](self, argument)
            elif opcode.name not in ("PROTO", "FRAME", "STOP"):
                raise WeightsError(f"holds the pickle instruction {opcode.name}, which torch never writes")
        return self.stack.pop()

    def spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise WeightsError(
                f"takes more than {MOST_STEPS:,} steps to read; ask for its state_dict() alone"
            )

    def mark(self) -> None:
        self.aside.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[Any]:
        """What lies above the mark, which is taken away."""
        above, self.stack = self.stack, self.aside.pop()
        return above

    def last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise WeightsError("holds a damaged pickle: there is too little on its stack")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.to_mark()

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target += values
        elif isinstance(target, Shell):
            target.items += values
        else:
            raise WeightsError(f"appends to {kind_of(target)}")

    def set_items(self, flat: list[Any]) -> None:
        target = self.stack[-1]
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        if isinstance(target, Shell):
            target.items += pairs
        elif type(target) in (dict, OrderedDict):
            for key, value in pairs:
                target[hashable(key)] = value
        else:
            raise WeightsError(f"puts items into {kind_of(target)}")

    def add(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            raise WeightsError(f"adds to {kind_of(target)}")
        target.update(hashable(value) for value in values)

    def name(self, module: Any, name: Any) -> None:
        """Puts a name on the stack; one of the standard library that is not listed is refused at once."""
        if type(module) is not str or type(name) is not str or len(module) + len(name) > LONGEST_NAME:
            raise WeightsError(f"names a class by {kind_of(module)} and {kind_of(name)} of absurd length")
        found = Name(RENAMED.get(module, module), name)
        pair = (found.module, found.name)
        if module.partition(".")[0] in STANDARD and pair not in CALLS and pair not in NAMED:
            raise refused(found)
        self.stack.append(found)

    def call(self, function: Any, args: Any) -> None:
        """Puts on the stack what our function for a listed name makes of the arguments."""
        if not isinstance(function, Name) or (function.module, function.name) not in CALLS:
            raise refused(function)
        if type(args) is not tuple:
            raise WeightsError(f"gives {function} no arguments but {kind_of(args)}")
        self.spend(len(args) + sum(cost(value) for value in args))
        try:
            made = CALLS[function.module, function.name](*args)
        except WeightsError:
            raise
        except Exception as error:  # arguments of another kind or number fail in many ways
            raise WeightsError(
                f"gives {function} arguments that it does not take ({printable(str(error))})"
            ) from None
        self.stack.append(made)

    def new(self, kind: Any, args: Any, named: Any = None) -> None:
        """Puts a shell on the stack, or what ``call`` gives if the class is listed."""
        if isinstance(kind, Name) and (kind.module, kind.name) in CALLS and not named:
            self.call(kind, args)
        else:
            self.stack.append(new_shell(kind, *values_of(args), *(named or ())))

    def build(self) -> None:
        """Keeps an object's state in its shell. An OrderedDict's is torch's ``_metadata``, which is left."""
        target, state = self.last(2)
        if isinstance(target, Shell):
            target.state = state
        elif type(target) is not OrderedDict or type(state) is not dict:
            raise WeightsError(f"sets the state of {kind_of(target)}, which has none, and was not opened")
        self.stack.append(target)


VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
}  # fmt: skip
EMPTY: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip


def _inst(machine: Machine, argument: str) -> None:
    machine.name(*argument.split(" ", 1))
    raise refused(machine.stack[-1])


def _obj(machine: Machine, _: Any) -> None:
    above = machine.to_mark()
    raise refused(above[0] if above else None)


def _pushing(take: Callable[[Machine], Any]) -> Callable[[Machine, Any], None]:
    def push(machine: Machine, _: Any) -> None:
        taken = take(machine)  # first: to take what is above a mark puts another stack in place
        machine.stack.append(taken)

    return push


def _dict_to_mark(machine: Machine, _: Any) -> None:
    flat = machine.to_mark()
    machine.stack.append({})
    machine.set_items(flat)


def _pop_mark(machine: Machine, _: Any) -> None:
    machine.to_mark()


def _new_ex(machine: Machine, _: Any) -> None:
    kind, args, named = machine.last(3)
    machine.new(kind, args, named)


ACTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": _pop_mark,
    "DUP": _pushing(lambda machine: machine.stack[-1]),
    "TUPLE1": _pushing(lambda machine: tuple(machine.last(1))),
    "TUPLE2": _pushing(lambda machine: tuple(machine.last(2))),
    "TUPLE3": _pushing(lambda machine: tuple(machine.last(3))),
    "TUPLE": _pushing(lambda machine: tuple(machine.to_mark())),
    "LIST": _pushing(lambda machine: machine.to_mark()),
    "FROZENSET": _pushing(lambda machine: frozenset(set_of(machine.to_mark()))),
    "DICT": _dict_to_mark,
    "APPEND": lambda machine, _: machine.append(machine.last(1)),
    "APPENDS": lambda machine, _: machine.append(machine.to_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.last(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.to_mark()),
    "ADDITEMS": lambda machine, _: machine.add(machine.to_mark()),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "GLOBAL": lambda machine, argument: machine.name(*argument.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.last(2)),
    "REDUCE": lambda machine, _: machine.call(*machine.last(2)),
    "NEWOBJ": lambda machine, _: machine.new(*machine.last(2)),
    "NEWOBJ_EX": _new_ex,
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": _pushing(lambda machine: machine.persistent(machine.stack.pop())),
    "INST": _inst,
    "OBJ": _obj,
}
for _get in ("GET", "BINGET", "LONG_BINGET"):
    ACTIONS[_get] = lambda machine, index: machine.stack.append(machine.memo[index])
for _put in ("PUT", "BINPUT", "LONG_BINPUT"):
    ACTIONS[_put] = lambda machine, index: machine.remember(index)
