"""Rebuild tensors from the bytes of a checkpoint, after checking every number that describes them."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any
from warnings import catch_warnings

import numpy as np
import torch
from torch import Tensor

from sdabench.errors import WeightsError
from sdabench.weights.stubs import Name, Stub, kind_of

MAX_DIMENSIONS = 64
MAX_EMPTY_EXTENT = 2**24  # product of the other sizes of a tensor without elements
MAX_REPEATED = 2**24  # elements of a tensor that repeats elements of its storage
MAX_NUMBER = 2**48  # of elements, or any size, stride or offset

# Element types without a storage class.
DTYPES = {
    f"torch.{name}": getattr(torch, name)
    for name in (
        "uint64", "uint32", "uint16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
        "float8_e8m0fnu", "complex32",
    )
}  # fmt: skip
STORAGE_DTYPES: dict[str, torch.dtype] = {
    f"{module}.{name}Storage": dtype
    for module in ("torch", "torch.cuda")
    for name, dtype in {
        "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
        "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8,
        "Byte": torch.uint8, "Bool": torch.bool, "Untyped": torch.uint8,
        "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64, "ComplexHalf": torch.complex32,
        "QInt32": torch.int32, "QInt8": torch.int8, "QUInt8": torch.uint8,  # of quantized tensors
        "QUInt4x2": torch.uint8, "QUInt2x4": torch.uint8,
    }.items()
} | dict.fromkeys(("torch.storage.UntypedStorage", "torch.storage._UntypedStorage"), torch.uint8)  # fmt: skip
TENSOR_CLASSES = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter")


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes that tensors may share: ``data`` is uint8 of shape (bytes,), ``dtype`` the element type."""

    data: Tensor
    dtype: torch.dtype


def listed(name: Any, known: dict[str, Any]) -> Any:
    """Look up a class name from the file in a table.

    Raises:
        WeightsError: the name is unknown, such as that of a quantized type.
    """
    if not isinstance(name, Name) or name.dotted not in known:
        raise WeightsError(f"holds a tensor or storage of {kind_of(name)}, which is not supported")
    return known[name.dotted]


def tensor(
    storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None, metadata: Any = None
) -> Tensor | Stub:
    """Rebuild a tensor over a Storage, or make a stub of one that repeats elements of it very often.

    Args:
        offset: in elements, as are the strides.
        dtype: the element type [default: the storage's].
        metadata: lazy operations, "conj" and "neg", that torch applies when the tensor is used.

    Raises:
        WeightsError: it extends beyond its storage.
    """
    if not isinstance(storage, Storage):
        raise WeightsError(f"holds a tensor over {kind_of(storage)}, which is not a storage")
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        raise WeightsError(f"holds a tensor of {len(size)} sizes and {len(stride)} strides")
    if not all(type(number) is int and 0 <= number < MAX_NUMBER for number in (offset, *size, *stride)):
        raise WeightsError("holds a tensor of negative or too large size")
    size, stride, dtype = tuple(size), tuple(stride), dtype or storage.dtype
    if 0 in size:
        if prod(length for length in size if length) > MAX_EMPTY_EXTENT:
            raise WeightsError(f"holds a tensor of too large size {size}")
        return torch.empty(size, dtype=dtype)
    elements = storage.data.numel() // dtype.itemsize
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if last >= elements:
        raise WeightsError(
            f"holds a tensor of size {size}, more than the {elements:,} elements of its storage"
        )
    if prod(size) > max(elements, MAX_REPEATED):
        return Stub(Name("torch.Tensor.expand"), (size,))
    flat = storage.data[: elements * dtype.itemsize].view(dtype)
    # as_strided raises an error if a tensor does not fit; set_, as in torch.load, would enlarge the storage.
    return _with_lazy(flat.as_strided(size, stride, flat.storage_offset() + offset), metadata)


def of_bytes(
    data: bytes | bytearray, element: np.dtype[Any], size: tuple[Any, ...], is_reversed: bool
) -> Tensor:
    """View the bytes of a numpy array as a tensor, which must not be written to.

    Raises:
        WeightsError: the bytes are not as many as its size says.
    """
    fits = len(size) <= MAX_DIMENSIONS and all(type(each) is int and 0 <= each < MAX_NUMBER for each in size)
    if not fits or prod(size) * element.itemsize != len(data):
        raise WeightsError(f"holds an array of {len(size)} dimensions, whose size is not that of its data")
    if prod(length for length in size if length) > max(len(data), MAX_EMPTY_EXTENT):
        raise WeightsError(f"holds an array of too large size {size}")
    with catch_warnings(action="ignore"):  # of torch: the bytes cannot be written to
        tensor = torch.from_numpy(np.frombuffer(data, element)).view(size)
    return tensor.permute(*range(tensor.ndim)[::-1]) if is_reversed else tensor


def _with_lazy(view: Tensor, metadata: Any) -> Tensor:
    """Mark a tensor as conjugate or negative."""
    if type(metadata) is not dict:
        return view
    view = view.conj() if metadata.get("conj") else view
    return torch._neg_view(view) if metadata.get("neg") else view


def parameter(data: Any, requires_grad: Any = True, hooks: Any = None, state: Any = None) -> Tensor | Stub:
    """Return the tensor (or stub) of a parameter, without its hooks and attributes."""
    if not isinstance(data, Tensor | Stub):
        raise WeightsError(f"holds a parameter of {kind_of(data)}, not of a plain tensor")
    return data


def tensor_from_type(function: Any, kind: Any, args: Any, state: Any) -> Tensor | Stub:
    """Rebuild a tensor that was saved with attributes, and drop these. A tensor of a subclass is a stub."""
    if type(args) is not tuple or not isinstance(kind, Name):
        raise WeightsError(f"holds a tensor of class {kind_of(kind)}, which is not supported")
    if kind.dotted not in TENSOR_CLASSES:
        return Stub(kind, args)
    rebuilt: Tensor | Stub = listed(function, REBUILD_FUNCTIONS)(*args)
    return rebuilt


def _tensor_v2(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Tensor | Stub:
    return tensor(storage, offset, size, stride, None, metadata)


def _tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any,
    metadata: Any = None,
) -> Tensor | Stub:  # fmt: skip
    return tensor(storage, offset, size, stride, listed(dtype, DTYPES), metadata)


REBUILD_FUNCTIONS: dict[str, Callable[..., Tensor | Stub]] = {
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
}
