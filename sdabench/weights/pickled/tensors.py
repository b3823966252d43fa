"""Tensors out of the bytes of a checkpoint, by our own functions, which check first all that it says."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from sdabench.errors import WeightsError
from sdabench.weights.pickled.shells import Name, kind_of

MOST_DIMENSIONS = 64
EMPTY_EXTENT = 2**24  # of a tensor without elements: its other sizes, multiplied
LARGEST = 2**48  # any one number about a tensor

# Those that are newer than the oldest torch we run with are left out there.
DTYPES: dict[Name, torch.dtype] = {
    Name("torch", name): getattr(torch, name)
    for name in (
        "float64", "float32", "float16", "bfloat16", "complex128", "complex64", "bool",
        "int64", "int32", "int16", "int8", "uint8", "uint64", "uint32", "uint16",
        "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
    )
    if hasattr(torch, name)
}  # fmt: skip
STORAGES: dict[Name, torch.dtype] = {
    Name(module, f"{name}Storage"): dtype
    for module in ("torch", "torch.cuda")
    for name, dtype in {
        "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
        "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8,
        "Byte": torch.uint8, "Bool": torch.bool,
        "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
    }.items()
} | {
    Name("torch.storage", "UntypedStorage"): torch.uint8,
    Name("torch.storage", "_UntypedStorage"): torch.uint8,
    Name("torch", "UntypedStorage"): torch.uint8,
}  # fmt: skip
PLAIN = {Name("torch", "Tensor"), Name("torch._tensor", "Tensor"), Name("torch.nn.parameter", "Parameter")}


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes that tensors may share: ``data`` is (bytes,) of uint8, ``dtype`` what they are read as."""

    data: Tensor
    dtype: torch.dtype


def dtype_of(storage: Any) -> torch.dtype:
    """What a file's class of storage holds.

    Raises:
        WeightsError: it is no such class, or one that is not read (quantised).
    """
    if not isinstance(storage, Name) or storage not in STORAGES:
        raise WeightsError(f"holds a storage of {kind_of(storage)}, which is not read")
    return STORAGES[storage]


def tensor(storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor over a storage.

    Args:
        storage: a Storage.
        offset: in elements, as are the strides.
        size: a tuple of sizes.
        stride: a tuple of strides, as many.
        dtype: the storage's own unless given.

    Raises:
        WeightsError: it does not lie within the storage, or would repeat some of it.
    """
    if not isinstance(storage, Storage):
        raise WeightsError(f"holds a tensor over {kind_of(storage)}, which is no storage")
    dtype = dtype or storage.dtype
    if not (isinstance(size, tuple | list) and isinstance(stride, tuple | list)):
        raise WeightsError("holds a tensor without sizes")
    numbers = [offset, *size, *stride]
    if len(size) != len(stride) or len(size) > MOST_DIMENSIONS:
        raise WeightsError(f"holds a tensor of {len(size)} sizes and {len(stride)} strides")
    if not all(type(number) is int and 0 <= number < LARGEST for number in numbers):
        raise WeightsError("holds a tensor of negative or absurd size")
    elements = storage.data.numel() // dtype.itemsize
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if 0 in size:
        if prod(length for length in size if length) > EMPTY_EXTENT:
            raise WeightsError(f"holds a tensor of absurd size {tuple(size)}")
        return torch.empty(tuple(size), dtype=dtype)
    if prod(size) > elements or last >= elements:
        raise WeightsError(
            f"holds a tensor of size {tuple(size)}, more than the {elements:,} elements of its storage"
        )
    flat = storage.data[: elements * dtype.itemsize].view(dtype)
    # as_strided refuses what does not fit; set_, which torch.load uses, would make the storage larger.
    return flat.as_strided(tuple(size), tuple(stride), flat.storage_offset() + offset)


def tensor_v2(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Tensor:
    _refuse_metadata(metadata)
    return tensor(storage, offset, size, stride)


def tensor_v3(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> Tensor:
    _refuse_metadata(metadata)
    if not isinstance(dtype, Name) or dtype not in DTYPES:
        raise WeightsError(f"holds a tensor of {kind_of(dtype)}, which is not read")
    return tensor(storage, offset, size, stride, DTYPES[dtype])


def parameter(data: Any, requires_grad: Any = True, hooks: Any = None, state: Any = None) -> Tensor:
    """The tensor of a parameter; its hooks and attributes are left."""
    if not isinstance(data, Tensor):
        raise WeightsError(f"holds a parameter of {kind_of(data)}, which is no plain tensor")
    return data


def tensor_from_type(function: Any, kind: Any, args: Any, state: Any) -> Tensor:
    """A tensor that has attributes, which are left."""
    known: dict[Name, Callable[..., Tensor]] = {
        Name("torch._utils", "_rebuild_tensor_v2"): tensor_v2,
        Name("torch._utils", "_rebuild_tensor_v3"): tensor_v3,
    }
    for name, allowed in ((function, known.keys()), (kind, PLAIN)):
        if not isinstance(name, Name) or name not in allowed:
            raise WeightsError(f"holds a tensor made by {kind_of(name)}, which is not read")
    if type(args) is not tuple:
        raise WeightsError(f"holds a tensor made from {kind_of(args)}")
    return known[function](*args)


def _refuse_metadata(metadata: Any) -> None:
    if metadata:
        raise WeightsError("holds a tensor with conjugate or negative bits, which are not read")
