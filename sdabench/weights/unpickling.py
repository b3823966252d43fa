"""Unpickling without running code of the file: names stay names, and objects become stubs.

``find_class``, the standard library's hook for restricting what a pickle imports, imports nothing here: it
returns a name. Only the functions in ``CALLS`` are ever called, and all of them are ours.

The base class is the standard library's Unpickler in Python, because the one in C cannot be bounded. It
hashes whatever a file uses as a key (nested tuples overflow the stack), calls methods of the tensors on its
stack (``__setstate__``, ``add``), and allocates a table as large as the largest index in the file.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from pickletools import genops, opcodes
from typing import Any

from sdabench.errors import WeightsError
from sdabench.weights.allowed_calls import (
    CALLS,
    STANDARD_LIBRARY,
    VALUE_NAMES,
    checked_key,
    new_stub,
    set_of,
    sized,
)
from sdabench.weights.stubs import Name, Stub, kind_of, printable, refused

# Bounds, so that a small file cannot make a large object: opcodes, to which the items that our functions copy
# are added; bits of an integer; characters of a name.
MAX_STEPS = 5_000_000
CHARACTERS_PER_STEP = 64
MAX_INTEGER_BITS = 1024
MAX_NAME_LENGTH = 1000

PYTHON2_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
# Without extensions, text persistent ids and protocol 5's buffers, none of which torch writes.
ALLOWED_OPCODES = {
    ord(opcode.code)
    for opcode in opcodes
    if opcode.proto <= 4 and opcode.name not in ("EXT1", "EXT2", "EXT4", "PERSID")
}


def load_pickle(file: Any, persistent_load: Callable[[Any], Any]) -> Any:
    """Read one pickle, with stubs in place of every object that has a class of its own.

    Args:
        file: binary and seekable; left at the end of the pickle.
        persistent_load: takes a persistent id, which torch uses for storages, and returns the object.

    Raises:
        WeightsError: it refers to what weights do not need, which the message names, or exceeds a bound;
            the message continues a sentence.
        Exception: it is damaged.
    """
    start, steps = file.tell(), 0
    for opcode, argument, _ in genops(file):
        steps += 1
        _check_steps(steps)
        if ord(opcode.code) not in ALLOWED_OPCODES:
            raise WeightsError(f"holds the pickle instruction {opcode.name}, which torch never writes")
        if type(argument) is int and argument.bit_length() > MAX_INTEGER_BITS:
            raise WeightsError("holds a number of absurd size")
    length = file.tell() - start
    file.seek(start)
    try:
        return _StubUnpickler(BytesIO(file.read(length)), persistent_load, steps).load()
    except IndexError:
        raise WeightsError("holds a damaged pickle: an instruction lacks its operands") from None


def _check_steps(steps: int) -> None:
    if steps > MAX_STEPS:
        raise WeightsError(f"takes more than {MAX_STEPS:,} steps to read; ask for its state_dict() alone")


class _StubUnpickler(pickle._Unpickler):
    """Replaces each instruction that imports, calls, hashes or changes an object; inherits the others."""

    stack: list[Any]
    append: Callable[[Any], None]  # to the stack
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: BytesIO, persistent_load: Callable[[Any], Any], steps: int) -> None:
        super().__init__(file, encoding="latin-1")
        self.load_storage = persistent_load
        self.steps = steps

    def persistent_load(self, pid: Any) -> Any:
        return self.load_storage(pid)

    def find_class(self, module: str, name: str) -> Name:
        """Return the name itself; one of the standard library that is not listed is refused at once."""
        if len(module) + len(name) > MAX_NAME_LENGTH:
            raise WeightsError("names a class by a text of absurd length")
        found = Name(f"{PYTHON2_NAMES.get(module, module)}.{name}")
        listed = found.dotted in CALLS or found.dotted in VALUE_NAMES
        if found.package in STANDARD_LIBRARY and not listed:
            raise refused(found)
        return found

    def load_reduce(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self.append(self.call(function, args))

    def load_newobj(self) -> None:
        args, kind = self.stack.pop(), self.stack.pop()
        listed = isinstance(kind, Name) and kind.dotted in CALLS
        self.append(self.call(kind, args) if listed else new_stub(kind, *sized(args)))

    def load_newobj_ex(self) -> None:
        if self.stack.pop():  # keyword arguments
            raise refused(self.stack[-2])
        self.load_newobj()

    def _instantiate(self, kind: Any, args: list[Any]) -> None:  # of INST and OBJ
        raise refused(kind)

    def load_build(self) -> None:
        """Keep an object's state in its stub. An OrderedDict's is torch's ``_metadata``, and is dropped."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Stub):
            target.state = state
        elif type(target) is not OrderedDict or type(state) is not dict:
            raise WeightsError(f"sets the state of {kind_of(target)}, which has none")

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self.set_items(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def load_setitems(self) -> None:
        self.set_items(self.pop_mark())

    def set_items(self, keys_and_values: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(keys_and_values[::2], keys_and_values[1::2], strict=True):
            if isinstance(target, Stub):
                target.append((key, value))
            elif type(target) in (dict, OrderedDict):
                target[checked_key(key)] = value
            else:
                raise WeightsError(f"sets items of {kind_of(target)}, which is not a dictionary")

    def load_additems(self) -> None:
        values, target = self.pop_mark(), self.stack[-1]
        if type(target) is not set:
            raise WeightsError(f"adds to {kind_of(target)}, which is not a set")
        target |= set_of(values)

    def load_frozenset(self) -> None:
        values = self.pop_mark()
        self.append(frozenset(set_of(values)))

    def call(self, function: Any, args: Any) -> Any:
        """What our function for a listed name returns."""
        if not isinstance(function, Name) or function.dotted not in CALLS:
            raise refused(function)
        if type(args) is not tuple:
            raise WeightsError(f"passes {kind_of(args)} as the arguments of {function}")
        self.steps += len(args) + sum(map(_items_to_copy, args))
        _check_steps(self.steps)
        try:
            return CALLS[function.dotted](*args)
        except WeightsError:
            raise
        except Exception as error:  # arguments of another type or number fail in many ways
            reason = printable(str(error))
            raise WeightsError(f"passes arguments to {function} that it does not take ({reason})") from None


_StubUnpickler.dispatch = {
    code: getattr(_StubUnpickler, load.__name__)
    for code, load in pickle._Unpickler.dispatch.items()
    if code in ALLOWED_OPCODES
}


def _items_to_copy(value: Any) -> int:
    if isinstance(value, str | bytes):
        return len(value) // CHARACTERS_PER_STEP
    return len(value) if isinstance(value, list | tuple | dict | set | frozenset) else 0
