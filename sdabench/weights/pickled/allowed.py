"""All that a pickled file may name or have called, and what is called instead: functions of ours."""

import struct
import sys
from _compat_pickle import IMPORT_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Collection
from types import NoneType
from typing import Any

from torch import Tensor

from sdabench.errors import WeightsError
from sdabench.weights.pickled import tensors
from sdabench.weights.pickled.shells import LONGEST_KEY, Name, Shell, kind_of, refused

LETTERS_PER_STEP = 64

STANDARD = (
    frozenset(sys.stdlib_module_names)
    | {name.partition(".")[0] for name in IMPORT_MAPPING}  # as they were called in Python 2
    | {"exceptions", "popen2"}
)
RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}
# Names of the standard library that may stand for themselves: the factory of a defaultdict, a base class.
NAMED = frozenset(
    ("builtins", name)
    for name in ("object", "dict", "list", "tuple", "str", "bytes", "int", "float", "bool", "complex")
) | {("typing", "Any")}


def hashable(key: Any) -> Any:
    """The same, if it may be a key.

    Nested tuples, long text that is compared again and again, and numbers that were made to collide would
    take for ever.

    Raises:
        WeightsError: it may not.
    """
    if type(key) is tuple:
        plain = len(key) <= 4 and all(
            0 <= part < 2**16 if type(part) is int else type(part) is str and len(part) <= LONGEST_KEY
            for part in key
        )
    elif type(key) in (str, bytes):
        plain = len(key) <= LONGEST_KEY
    elif type(key) is int:
        plain = abs(key) < 2**60
    else:
        plain = isinstance(key, float | bool | NoneType | Name | Shell | Tensor)
    if not plain:
        raise WeightsError(f"has a key that is {kind_of(key)} of a form that is not read")
    return key


def cost(value: Any) -> int:
    if isinstance(value, str | bytes):
        return len(value) // LETTERS_PER_STEP
    return len(value) if isinstance(value, list | tuple | dict | set | frozenset) else 0


def _shell(module: str, name: str) -> Callable[..., Shell]:
    return lambda *args: Shell(Name(module, name), args)


def _ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((hashable(key), value) for key, value in map(values_of, values_of(pairs)))


def _dict(given: Any = None) -> dict[Any, Any]:
    return dict(given) if type(given) is dict else {}


def set_of(values: Any = ()) -> set[Any]:
    return {hashable(value) for value in values_of(values)}


def values_of(values: Any) -> Collection[Any]:
    """The same, if to go through it costs what was counted; a tensor would become as many."""
    if type(values) not in (list, tuple, set, frozenset):
        raise WeightsError(f"takes items from {kind_of(values)}")
    return values  # type: ignore[no-any-return]


def _encode(text: Any, encoding: Any) -> bytes:
    """Bytes, which protocols before 3 write as text."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise WeightsError(f"encodes {kind_of(text)}")
    return text.encode("latin-1")


def new_shell(kind: Any, *args: Any) -> Shell:
    """An object of a class that is not listed, which would have been made of nothing."""
    if not isinstance(kind, Name) or kind.module in STANDARD or args:
        raise refused(kind)
    return Shell(kind)


def _reconstructed(kind: Any, base: Any, state: Any) -> Shell:
    """An object as protocols 0 and 1 write it."""
    if base != Name("builtins", "object") or state is not None:
        raise refused(base)
    return new_shell(kind)


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    """A number, or a shell if its dtype is none of the plain ones: people save their best accuracy so."""
    name = Name("numpy", "dtype")
    code = dtype.args[0] if isinstance(dtype, Shell) and dtype.name == name and dtype.args else None
    form = NUMBERS.get(code) if type(code) is str else None
    order = dtype.state[1] if form and type(dtype.state) is tuple and len(dtype.state) > 1 else "<"
    data = data.encode("latin-1") if type(data) is str else data
    if form is None or type(data) is not bytes or order not in ("<", ">", "|", "="):
        return Shell(Name("numpy", "generic"), (dtype, data))
    return struct.unpack(f"{order.replace('|', '<')}{form}", data)[0]


NUMBERS = {
    "f8": "d", "f4": "f", "f2": "e", "b1": "?", "i8": "q", "i4": "i", "i2": "h", "i1": "b",
    "u8": "Q", "u4": "I", "u2": "H", "u1": "B",
}  # fmt: skip

# All that a file can have called, and what is called instead.
CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): lambda *args: tensors.tensor(*args[:4]),
    ("torch._utils", "_rebuild_tensor_v2"): tensors.tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): tensors.tensor_v3,
    ("torch._utils", "_rebuild_parameter"): tensors.parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): tensors.parameter,
    ("torch.nn.parameter", "Parameter"): tensors.parameter,
    ("torch._tensor", "_rebuild_from_type"): tensors.tensor_from_type,
    ("torch._tensor", "_rebuild_from_type_v2"): tensors.tensor_from_type,
    ("torch", "Size"): lambda sizes=(): tuple(values_of(sizes)),
    ("torch", "device"): _shell("torch", "device"),
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): lambda factory=None: {},
    ("collections", "Counter"): _dict,
    ("collections", "deque"): lambda values=(), longest=None: list(values_of(values)),
    ("builtins", "bytes"): lambda: b"",  # what no bytes are before protocol 3
    ("builtins", "set"): set_of,
    ("builtins", "frozenset"): lambda values=(): frozenset(set_of(values)),
    ("_codecs", "encode"): _encode,
    ("copyreg", "_reconstructor"): _reconstructed,
    ("copyreg", "__newobj__"): new_shell,
    ("numpy", "dtype"): _shell("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("numpy.core.multiarray", "_reconstruct"): _shell("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"): _shell("numpy", "ndarray"),
}
INERT = {
    "argparse": ["Namespace"],
    "types": ["SimpleNamespace"],
    "datetime": ["datetime", "date", "time", "timedelta", "timezone"],
    "pathlib": ["Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"],
}
INERT["pathlib._local"] = INERT["pathlib"]  # of Python 3.13
CALLS |= {(module, name): _shell(module, name) for module, names in INERT.items() for name in names}
