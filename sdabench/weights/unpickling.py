"""Unpickle without running code of the file: return names instead of classes, and stubs for objects.

``find_class``, the standard library's hook for restricting what a pickle imports, imports nothing here: it
returns a name. A call of a name in ``CALLS`` calls a function of sdabench. A call of any other name becomes a
stub, which stores name and arguments, so that values of any class may lie beside the weights. A name of the
standard library that is not that of a plain value refuses the file: no training script saves ``os.system``.

The base class is the standard library's Unpickler in Python, because the one in C cannot be limited. That one
hashes all keys of a file (nested tuples overflow the stack), calls methods of the tensors on its stack
(``__setstate__``, ``add``), and allocates a table as large as the largest index in the file.
"""

import builtins
import pickle
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Collection
from io import BytesIO
from pickletools import genops, opcodes
from re import fullmatch
from types import NoneType
from typing import Any

import numpy as np
from torch import Tensor

from sdabench.errors import WeightsError
from sdabench.weights import stored_tensors
from sdabench.weights.stubs import MAX_KEY_LENGTH, Name, Stub, kind_of, printable, refused

# Limits, so that a small file cannot make a large object: opcodes plus items that functions in CALLS copy;
# characters that count as one step; bits of an integer; characters of a name.
MAX_STEPS = 5_000_000
CHARACTERS_PER_STEP = 64
MAX_INTEGER_BITS = 1024
MAX_NAME_LENGTH = 1000
NOTES = "sdabench"  # attribute of a state dict with the metadata that a safetensors file would hold

# All opcodes except extensions, text persistent ids and buffers out of the file, which torch never writes.
NEVER_WRITTEN = ("EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER")
ALLOWED_OPCODES = {ord(opcode.code) for opcode in opcodes if opcode.name not in NEVER_WRITTEN}
PYTHON2_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
STANDARD_LIBRARY = {*sys.stdlib_module_names, *(name.partition(".")[0] for name in IMPORT_MAPPING)}
# Names of the standard library that are allowed: modules of plain values, all built-in types, single classes.
VALUE_MODULES = (
    "_abcoll", "collections.abc", "datetime", "decimal", "enum", "fractions", "ipaddress",
    "pathlib", "pathlib._local", "typing", "uuid",
)  # fmt: skip
VALUE_NAMES = {
    "argparse.Namespace", "types.SimpleNamespace", "types.GenericAlias", "types.NoneType", "types.UnionType",
    "collections.UserDict", "collections.UserList", "collections.UserString", "collections.ChainMap",
    "array.array", "array._array_reconstructor", "random.Random", "time.struct_time", "re._compile",
    "builtins.NotImplemented", "builtins.Ellipsis",
    "_operator.getitem", "_operator.or_", "functools.reduce", "_functools.reduce",  # of type hints
} | {f"builtins.{name}" for name, value in vars(builtins).items() if isinstance(value, type)}  # fmt: skip


def load_pickle(file: Any, persistent_load: Callable[[Any], Any]) -> Any:
    """Read one pickle, with stubs instead of objects of other classes than containers and tensors.

    Args:
        persistent_load: returns the object of a persistent id, which torch uses for storages.

    Raises:
        WeightsError: the pickle refers to classes that weights do not need, or exceeds a limit; the message
            continues a sentence that begins with the path of the file.
        Exception: the pickle is damaged.
    """
    start, steps = file.tell(), 0
    for steps, (opcode, _, _) in enumerate(genops(file), start=1):
        _check_steps(steps)
        if ord(opcode.code) not in ALLOWED_OPCODES:
            raise WeightsError(f"holds the pickle instruction {opcode.name}, which torch never writes")
    length = file.tell() - start
    file.seek(start)
    unpickler = _StubUnpickler(BytesIO(file.read(length)), encoding="latin-1")
    unpickler.steps, unpickler.persistent_load = steps, persistent_load  # type: ignore[assignment]
    try:
        return unpickler.load()
    except IndexError:
        raise WeightsError("holds a damaged pickle: an instruction lacks its operands") from None


def _check_steps(steps: int) -> None:
    if steps > MAX_STEPS:
        raise WeightsError(f"takes more than {MAX_STEPS:,} steps to read; ask for its state_dict() alone")


class _StubUnpickler(pickle._Unpickler):
    """An unpickler with safe versions of instructions that import, call, hash or change an object."""

    stack: list[Any]
    append: Callable[[Any], None]  # to the stack
    pop_mark: Callable[[], list[Any]]
    steps: int

    def find_class(self, module: str, name: str) -> Name:
        if len(module) + len(name) > MAX_NAME_LENGTH:
            raise WeightsError("holds a class name that is too long")
        default = (PYTHON2_NAMES.get(module, module), name)
        module, name = NAME_MAPPING.get((module, name), default)  # protocol 2 writes long for int
        found = Name(f"{module}.{name}")
        listed = module in VALUE_MODULES or found.dotted in CALLS or found.dotted in VALUE_NAMES
        if found.package in STANDARD_LIBRARY and not listed:
            raise refused(found)
        return found

    def load_reduce(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self.append(self.call(function, args))

    def load_newobj(self) -> None:
        self.load_reduce()

    def load_newobj_ex(self) -> None:
        keywords, args, kind = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.append(self.call(kind, (*_sized(args), keywords) if keywords else args))

    def _instantiate(self, kind: Any, args: list[Any]) -> None:  # called for INST and OBJ
        self.append(self.call(kind, args))

    def load_build(self) -> None:
        """Store the state of an object in its stub, and the numbers of an array as a tensor.

        Of the attributes of an OrderedDict only ``NOTES`` is kept; torch's ``_metadata`` is dropped.
        """
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Stub):
            target.state = self.numbers(state) if _is_array(target) else state
        elif type(target) is not OrderedDict or type(state) is not dict:
            raise WeightsError(f"sets the state of {kind_of(target)}, which has none")
        elif NOTES in state:
            setattr(target, NOTES, state[NOTES])

    def numbers(self, state: Any) -> Any:
        """Return the numbers of an array's state as a tensor; the state itself if it holds other values."""
        if type(state) is not tuple or len(state) != 5:
            return state
        _, shape, dtype, is_column_major, data = state
        element = _element_type(dtype)
        is_plain = type(shape) is tuple and type(data) in (bytes, bytearray, str)
        if element is None or not element.isnative or not is_plain:
            return state
        if type(data) is str:  # of Python 2
            self.steps += _items_to_copy(data)
            _check_steps(self.steps)
            data = data.encode("latin-1")
        size = shape[::-1] if is_column_major else shape
        return stored_tensors.of_bytes(data, element, size, bool(is_column_major))

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
        pairs = zip(keys_and_values[::2], keys_and_values[1::2], strict=True)
        if isinstance(target, Stub):
            target.items += pairs
        elif type(target) in (dict, OrderedDict):
            target.update((_checked_key(key), _without_array(value)) for key, value in pairs)
        else:
            raise WeightsError(f"sets items of {kind_of(target)}, which is not a dictionary")

    def load_additems(self) -> None:
        values, target = self.pop_mark(), self.stack[-1]
        if isinstance(target, Stub):
            target.items += values
        elif type(target) is set:
            target |= _set(values)
        else:
            raise WeightsError(f"adds to {kind_of(target)}, which is not a set")

    def load_frozenset(self) -> None:
        values = self.pop_mark()  # changes self.append
        self.append(frozenset(_set(values)))

    def call(self, function: Any, args: Any) -> Any:
        """Call the function of sdabench for a name in ``CALLS``; make a stub of a call of another name."""
        if not isinstance(function, Name):
            raise refused(function)
        self.steps += len(_sized(args)) + sum(map(_items_to_copy, args))
        _check_steps(self.steps)
        if function.dotted in ARRAYS_OF_BUFFERS and len(args) >= 4:
            data, dtype, shape, order = args[:4]
            return Stub(Name("numpy.ndarray"), state=self.numbers((1, shape, dtype, order == "F", data)))
        if function.dotted not in CALLS:
            return Stub(function, tuple(args))
        try:
            return CALLS[function.dotted](*args)
        except WeightsError:
            raise
        except Exception as error:  # wrong arguments raise many types
            reason = printable(str(error))
            raise WeightsError(f"passes arguments to {function} that it does not take ({reason})") from None


def _bounded(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """Make a stub of a huge integer, whose decimal digits take long to compute."""

    def bounded(unpickler: Any) -> None:
        load(unpickler)
        if unpickler.stack[-1].bit_length() > MAX_INTEGER_BITS:
            unpickler.stack[-1] = Stub(Name("builtins.int"))

    return bounded


_StubUnpickler.dispatch = {
    code: getattr(_StubUnpickler, load.__name__)
    for code, load in pickle._Unpickler.dispatch.items()
    if code in ALLOWED_OPCODES
}
for _code in (pickle.INT, pickle.LONG, pickle.LONG1, pickle.LONG4):
    _StubUnpickler.dispatch[ord(_code)] = _bounded(_StubUnpickler.dispatch[ord(_code)])


def _items_to_copy(value: Any) -> int:
    if isinstance(value, str | bytes):
        return len(value) // CHARACTERS_PER_STEP
    return len(value) if isinstance(value, list | tuple | dict | set | frozenset) else 0


def _is_array(value: Any) -> bool:
    return isinstance(value, Stub) and value.name.dotted == "numpy.ndarray"


def _without_array(value: Any) -> Any:
    """Return the tensor that an array of numbers was read as; any other value as it is."""
    return value.state if _is_array(value) and isinstance(value.state, Tensor) else value


def _checked_key(key: Any) -> Any:
    """Return a key that can be hashed: a stub of a key whose hashing or comparison may take forever."""
    is_tuple = type(key) is tuple and len(key) <= 4
    for part in key if is_tuple else (key,):
        if type(part) is int:
            plain = 0 <= part < 2**16 if is_tuple else abs(part) < 2**60
        elif type(part) in (str, bytes):
            plain = len(part) <= MAX_KEY_LENGTH
        else:
            plain = not is_tuple and isinstance(part, float | bool | NoneType | Name | Stub | Tensor)
        if not plain and isinstance(key, tuple | frozenset | int):
            return Stub(Name(f"builtins.{kind_of(key)}"), (key,))
        if not plain:
            raise WeightsError(f"holds a key that is {kind_of(key)}, of a form that is not supported")
    return key


def _sized(values: Any) -> Collection[Any]:
    """Return a collection after checking its type; a tensor, for instance, would give an item per row."""
    if type(values) not in (list, tuple, set, frozenset):
        raise WeightsError(f"takes items from {kind_of(values)}")
    return values  # type: ignore[no-any-return]


def _set(values: Any = ()) -> set[Any]:
    return {_checked_key(value) for value in _sized(values)}


def _new_stub(kind: Any, *args: Any) -> Stub:
    if not isinstance(kind, Name):
        raise refused(kind)
    return Stub(kind, args)


def _reconstructor(kind: Any, base: Any, state: Any) -> Stub:
    """Create a stub for an object in the form of protocols 0 and 1, with the value of a built-in base."""
    return _new_stub(kind) if state is None else _new_stub(kind, state)


def _ordered_dict(pairs: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((_checked_key(key), value) for key, value in map(_sized, _sized(pairs)))


def _attribute(owner: Any, name: Any) -> Name:
    """Return the name of an attribute of a class, as which Python 3.11.2, for one, pickles enum members."""
    known = isinstance(owner, Name) and owner.package not in STANDARD_LIBRARY and type(name) is str
    if not known or len(owner.dotted) + len(name) > MAX_NAME_LENGTH:
        raise refused(Name("builtins.getattr"))
    return Name(f"{owner.dotted}.{name}")


def _encode(text: Any, encoding: Any) -> bytes:
    """Return bytes, which protocols before 3 write as text."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise WeightsError(f"encodes {kind_of(text)}")
    return text.encode("latin-1")


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    """Return a number, such as a best accuracy, or a stub if its dtype is not supported."""
    element = _element_type(dtype)
    if element is None or type(data) not in (bytes, str):
        return Stub(Name("numpy.generic"), (dtype, data))
    return np.frombuffer(data.encode("latin-1") if type(data) is str else data, element).item()


def _element_type(dtype: Any) -> np.dtype[Any] | None:
    """Return the type of numbers that a pickled dtype names; None for others, such as Python's objects."""
    if not isinstance(dtype, Stub) or type(dtype.state) is not tuple:
        return None
    match dtype.args, dtype.state:
        case (str(code), *_), (_, "<" | ">" | "|" as order, *_) if fullmatch("f[248]|[iu][1248]|b1", code):
            return np.dtype(code).newbyteorder(order)
    return None


# Names that a file may call, and the function that is called instead.
CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": lambda *args: stored_tensors.tensor(*args[:4]),
    **stored_tensors.REBUILD_FUNCTIONS,
    "torch._utils._rebuild_parameter": stored_tensors.parameter,
    "torch._utils._rebuild_parameter_with_state": stored_tensors.parameter,
    "torch.nn.parameter.Parameter": stored_tensors.parameter,
    "torch._tensor._rebuild_from_type": stored_tensors.tensor_from_type,
    "torch._tensor._rebuild_from_type_v2": stored_tensors.tensor_from_type,
    "torch.Size": lambda sizes=(): tuple(_sized(sizes)),
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda factory=None: {},
    "collections.Counter": lambda counts=None: dict(counts) if type(counts) is dict else {},
    "collections.deque": lambda values=(), max_length=None: list(_sized(values)),
    "builtins.bytes": lambda: b"",  # empty bytes in protocols before 3
    "builtins.set": _set,
    "builtins.frozenset": lambda values=(): frozenset(_set(values)),
    "builtins.getattr": _attribute,
    "_codecs.encode": _encode,
    "copyreg._reconstructor": _reconstructor,
    "copyreg.__newobj__": _new_stub,
}
# Called for arrays by protocol 5: with their bytes, element type, shape and order.
ARRAYS_OF_BUFFERS = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
for _core in ("numpy.core.multiarray", "numpy._core.multiarray"):
    CALLS |= {
        f"{_core}.scalar": _numpy_scalar,
        f"{_core}._reconstruct": lambda *args: Stub(Name("numpy.ndarray"), args),
    }
