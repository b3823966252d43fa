"""The exact list of what a pickle may call, and what is called instead: functions of ours."""

import sys
from _compat_pickle import IMPORT_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Collection
from re import fullmatch
from types import NoneType
from typing import Any

import numpy as np
from torch import Tensor

from sdabench.errors import WeightsError
from sdabench.weights import stored_tensors
from sdabench.weights.stubs import MAX_KEY_LENGTH, Name, Stub, kind_of, refused

STANDARD_LIBRARY = {
    *sys.stdlib_module_names,
    *(name.partition(".")[0] for name in IMPORT_MAPPING),  # under their Python 2 names
    *("exceptions", "popen2"),
}
# Names of the standard library that may be values: the factory of a defaultdict, a base class.
VALUE_NAMES = {"typing.Any"} | {
    f"builtins.{name}"
    for name in ("object", "dict", "list", "tuple", "str", "bytes", "int", "float", "bool", "complex")
}


def checked_key(key: Any) -> Any:
    """Return a key of a dictionary, or an item of a set, unless hashing or comparing it could take forever.

    Nested tuples are hashed anew each time, long text is compared each time, and integers can be made to
    collide.

    Raises:
        WeightsError: it could.
    """
    if type(key) is tuple:
        plain = len(key) <= 4 and all(
            0 <= part < 2**16 if type(part) is int else type(part) is str and len(part) <= MAX_KEY_LENGTH
            for part in key
        )
    elif type(key) in (str, bytes):
        plain = len(key) <= MAX_KEY_LENGTH
    elif type(key) is int:
        plain = abs(key) < 2**60
    else:
        plain = isinstance(key, float | bool | NoneType | Name | Stub | Tensor)
    if not plain:
        raise WeightsError(f"holds a key that is {kind_of(key)}, of a form that is not supported")
    return key


def sized(values: Any) -> Collection[Any]:
    """Return a collection that is no larger than it counts; a tensor would become an item for each row."""
    if type(values) not in (list, tuple, set, frozenset):
        raise WeightsError(f"takes items from {kind_of(values)}")
    return values  # type: ignore[no-any-return]


def set_of(values: Any = ()) -> set[Any]:
    return {checked_key(value) for value in sized(values)}


def new_stub(kind: Any, *args: Any) -> Stub:
    """An object of a class that is not listed, created without arguments."""
    if not isinstance(kind, Name) or kind.package in STANDARD_LIBRARY or args:
        raise refused(kind)
    return Stub(kind)


def _stub(dotted: str) -> Callable[..., Stub]:
    return lambda *args: Stub(Name(dotted), args)


def _reconstructor(kind: Any, base: Any, state: Any) -> Stub:
    """An object as protocols 0 and 1 write it."""
    if base != Name("builtins.object") or state is not None:
        raise refused(base)
    return new_stub(kind)


def _ordered_dict(pairs: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((checked_key(key), value) for key, value in map(sized, sized(pairs)))


def _encode(text: Any, encoding: Any) -> bytes:
    """Bytes, which protocols before 3 write as text."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise WeightsError(f"encodes {kind_of(text)}")
    return text.encode("latin-1")


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    """A number (a saved best accuracy, often), or a stub if its dtype is unusual."""
    code = dtype.args[0] if isinstance(dtype, Stub) and dtype.args else None
    if type(code) is not str or not fullmatch("[fiub][1248]", code) or type(data) not in (bytes, str):
        return Stub(Name("numpy.generic"), (dtype, data))
    data = data.encode("latin-1") if type(data) is str else data
    return np.frombuffer(data, np.dtype(code).newbyteorder(dtype.state[1])).item()


# Every name that a file may call, and the function that is called instead.
CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": lambda *args: stored_tensors.tensor(*args[:4]),
    "torch._utils._rebuild_tensor_v2": stored_tensors.tensor_v2,
    "torch._utils._rebuild_tensor_v3": stored_tensors.tensor_v3,
    "torch._utils._rebuild_parameter": stored_tensors.parameter,
    "torch._utils._rebuild_parameter_with_state": stored_tensors.parameter,
    "torch.nn.parameter.Parameter": stored_tensors.parameter,
    "torch._tensor._rebuild_from_type": stored_tensors.tensor_from_type,
    "torch._tensor._rebuild_from_type_v2": stored_tensors.tensor_from_type,
    "torch.Size": lambda sizes=(): tuple(sized(sizes)),
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda factory=None: {},
    "collections.Counter": lambda counts=None: dict(counts) if type(counts) is dict else {},
    "collections.deque": lambda values=(), max_length=None: list(sized(values)),
    "builtins.bytes": lambda: b"",  # how protocols before 3 write empty bytes
    "builtins.set": set_of,
    "builtins.frozenset": lambda values=(): frozenset(set_of(values)),
    "_codecs.encode": _encode,
    "copyreg._reconstructor": _reconstructor,
    "copyreg.__newobj__": new_stub,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "numpy.core.multiarray._reconstruct": _stub("numpy.ndarray"),
    "numpy._core.multiarray._reconstruct": _stub("numpy.ndarray"),
}
_PATHS = ["Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"]
CALLS |= {
    f"{module}.{name}": _stub(f"{module}.{name}")
    for module, names in {
        "torch": ["device"],
        "numpy": ["dtype"],
        "argparse": ["Namespace"],
        "types": ["SimpleNamespace"],
        "datetime": ["datetime", "date", "time", "timedelta", "timezone"],
        "pathlib": _PATHS,
        "pathlib._local": _PATHS,  # of Python 3.13
    }.items()
    for name in names
}
