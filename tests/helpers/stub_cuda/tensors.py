"""Tensors that claim to be on a CUDA device and hold CPU data, for host code that runs as on a GPU.

Values, control flow, autograd and autocast are real. Operations refuse tensors of different devices as CUDA
does, and in deterministic mode those that CUDA refuses. The process needs the stub of the runtime.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

import sdabench
from sdabench.models.depth_attention import WORKING_KERNELS

CPU = torch.device("cpu")
PACKAGE = str(Path(sdabench.__file__).parent)
COPIES = {"aten::copy_", "aten::_to_copy", "aten::set_data", "aten::lift_fresh"}
PINNING = {"aten::_pin_memory", "aten::pin_memory", "aten::is_pinned"}
# CUDA tensors can be indexed by CPU tensors.
READS = {"aten::index", "aten::_unsafe_index"}
WRITES = {"aten::index_put_", "aten::index_put", "aten::_index_put_impl_"}
# CUDA computes them from float16 to float32, or back, in one operation.
SOFTMAX = {"aten::_softmax", "aten::_log_softmax"}
SOFTMAX_BACKWARD = {"aten::_softmax_backward_data", "aten::_log_softmax_backward_data"}
# The host waits for the number of their results, or for a value.
SIZED_BY_VALUES = {"aten::nonzero", "aten::masked_select", "aten::_unique2", "torchvision::nms"}
VALUES = {"aten::_local_scalar_dense", "aten::equal"}
# Their libraries need a driver. They are deterministic, as those whose results no kernel of the stub writes.
PRODUCTS = {
    "aten::convolution", "aten::convolution_backward", "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm",
}  # fmt: skip
NOT_REPLAYED = {*PRODUCTS, *SIZED_BY_VALUES, *VALUES}
# Why CUDA refuses operations in deterministic mode; None if it does not.
REFUSALS: dict[Any, str | None] = {}


class StubTensor(Tensor):
    """A tensor of a CUDA device whose values are those of a CPU tensor."""

    values: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor, device: torch.device) -> "StubTensor":
        index = torch.cuda.current_device() if device.index is None else device.index
        made: StubTensor = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=torch.device("cuda", index),
        )
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})

    def __repr__(self, **options: Any) -> str:
        return f"StubTensor({tuple(self.shape)}, {self.dtype}, {self.device})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the values; a checkpoint is always read to the CPU."""
        return self.detach().values.__reduce_ex__(protocol)

    def numpy(self, **options: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *options: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def untyped_storage(self) -> Any:
        return self.detach().values.untyped_storage()


class Stub(TorchDispatchMode):
    """Create tensors on the stub's devices, and count operations and synchronizations in ``events``."""

    active: ClassVar["Stub | None"] = None

    def __init__(self) -> None:
        super().__init__()
        self.events: Counter[tuple[str, str]] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})

    def count(self, kind: str) -> None:
        if self.events is not None:
            self.events[kind, _place()] += 1


@contextmanager
def stub_device() -> Iterator[Stub]:
    """Use the stub's devices for all CUDA tensors inside."""
    only_cpu, cudnn = torch._C._only_lift_cpu_tensors(), torch.backends.cudnn.enabled
    stub = Stub()
    with (
        patch.object(nn.Module, "to", _module_to),
        patch.object(torch.inference_mode, "__enter__", _without_gradients),
        patch.object(torch.inference_mode, "__exit__", _with_gradients),
        patch.object(torch.cuda, "synchronize", _synchronize),
        patch.object(torch.cuda.Event, "synchronize", _wait_for_event),
        patch.object(torch.cuda, "_is_in_bad_fork", lambda: False),  # the stub has no driver to lose
        patch.object(Stub, "active", stub),
        patch.dict(WORKING_KERNELS, dict.fromkeys(range(2), False)),
    ):
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device="cuda") reaches the mode
        torch.backends.cudnn.enabled = False  # whose operators have no implementation for the CPU
        try:
            with stub:
                yield stub
        finally:
            torch._C._set_only_lift_cpu_tensors(only_cpu)
            torch.backends.cudnn.enabled = cudnn


@contextmanager
def counted_events() -> Iterator[Counter[tuple[str, str]]]:
    """Count operations, copies and synchronizations inside, by their kind and the line of sdabench."""
    stub = Stub.active
    assert stub is not None
    stub.events = Counter()
    try:
        yield stub.events
    finally:
        stub.events = None


def dispatch(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    name, stub = func._schema.name, Stub.active
    tensors = [each for each in _leaves([*args, *kwargs.values()]) if isinstance(each, Tensor)]
    stubs = [each for each in tensors if isinstance(each, StubTensor)]
    device = stubs[0].device if stubs else CPU
    if name == "aten::record_stream":
        return None
    if stubs and name not in COPIES:
        _refuse_mixing(name, args, tensors, device)
    if name not in PINNING and kwargs.get("device") is not None:
        device = torch.device(kwargs["device"])
    if stub is not None:
        for kind in _events(name, args, kwargs, stubs, device):
            _refuse_in_graphs(kind)
            stub.count(kind)
        if stubs and torch.are_deterministic_algorithms_enabled() and name not in NOT_REPLAYED:
            _replay(func, args, kwargs)
    on_cpu = {"device": CPU} if "device" in kwargs and name not in PINNING else {}
    if kwargs.get("pin_memory") and device.type == "cuda":
        on_cpu["pin_memory"] = False
    on_cpu = {key: _mapped(_values, value) for key, value in kwargs.items()} | on_cpu
    result = _computed(func, _mapped(_values, args), on_cpu)
    if device.type == "cpu" or name in VALUES:
        return args[0] if name == "aten::copy_" else result
    if name in ("aten::copy_", "aten::lift_fresh"):
        return args[0]
    made = _mapped(lambda each: StubTensor(each, device) if type(each) is Tensor else each, result)
    return (
        return_and_correct_aliasing(func, args, kwargs, made) if stubs and name != "aten::_to_copy" else made
    )


def _computed(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Compute an operation on the CPU."""
    name = func._schema.name
    if name in SOFTMAX and args[2]:
        return func(args[0].float(), args[1], False)
    if name in SOFTMAX_BACKWARD and args[3] != args[0].dtype:
        return func(*args[:3], args[0].dtype).to(args[3])
    if name in PRODUCTS and any(each.dtype == torch.float16 for each in args if isinstance(each, Tensor)):
        return _cast(func(*_cast(args, torch.float16, torch.float32), **kwargs), torch.float32, torch.float16)
    return func(*args, **kwargs)


def _cast(values: Any, old: torch.dtype, new: torch.dtype) -> Any:
    return _mapped(
        lambda each: each.to(new) if isinstance(each, Tensor) and each.dtype == old else each, values
    )


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Change the arguments or results of an operation, which can be in lists and tuples."""
    if isinstance(value, (list, tuple)):
        return type(value)([_mapped(change, each) for each in value])
    return change(value)


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    for each in values:
        if isinstance(each, (list, tuple)):
            yield from _leaves(each)
        else:
            yield each


def _values(each: Any) -> Any:
    return each.values if isinstance(each, StubTensor) else each


def _refuse_mixing(name: str, args: Sequence[Any], tensors: Sequence[Tensor], device: torch.device) -> None:
    """Raise the error of CUDA for tensors of another device; CPU scalars, and indices, may be there."""
    others = [
        each for each in tensors if each.device != device and (each.dim() or each.device.type == "cuda")
    ]
    if name in READS | WRITES:
        operands = [args[0]] if name in READS else [args[0], args[2]]
        others = [each for each in others if any(each is operand for operand in operands)]
    if name.startswith("torchvision::"):
        others = [each for each in tensors if each.device != device]
    if others:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {device} and "
            f"{others[0].device}! ({name} of {[tuple(each.shape) for each in tensors]})"
        )


def _events(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], stubs: Sequence[Tensor], device: torch.device
) -> Iterator[str]:
    """Yield what an operation costs: a launch, a copy between host and device, a synchronization."""
    if name in ("aten::copy_", "aten::_to_copy"):
        source, target = (args[1], args[0].device) if name == "aten::copy_" else (args[0], device)
        if source.device.type == "cpu" and target.type == "cuda":
            yield "pinned copy to the device" if source.is_pinned() else "pageable copy to the device"
            return
        if source.device.type == "cuda" and target.type == "cpu":
            # To new page-locked memory, which torch allocates then; an event tells when it is there.
            copied_later = name == "aten::_to_copy" and kwargs.get("non_blocking", False)
            yield "pinned copy to the host" if copied_later else "synchronization"
            return
    if not stubs:
        return
    if name in SIZED_BY_VALUES | VALUES:
        yield "synchronization"
    indexes = name in READS or (
        name in WRITES and args[2].numel() > 1
    )  # one value fills a mask without a count
    if indexes and any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1]):
        yield "synchronization"
    yield "operation"


def _refuse_in_graphs(kind: str) -> None:
    """Raise the error of CUDA for what a graph cannot contain."""
    if kind != "operation" and not kind.startswith("pinned") and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({kind})")


def _place() -> str:
    """Return the innermost line of sdabench on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE):
            return f"{file.removeprefix(PACKAGE)[1:]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "backward pass"


def _replay(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Run the host code of CUDA for an operation, whose kernels do nothing, and raise its refusal if any."""
    leaves = list(_leaves([*args, *kwargs.values()]))
    modes = (each for each in leaves if isinstance(each, (bool, str)))
    key = func, *(each.dtype for each in leaves if isinstance(each, Tensor)), *modes
    if key not in REFUSALS:
        REFUSALS[key] = _refusal(func, args, kwargs)
    if (words := REFUSALS[key]) is not None:
        raise RuntimeError(words)


def _refusal(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    def on_cuda(each: Any) -> Any:
        if not isinstance(each, StubTensor):
            return each
        return torch.empty_strided(each.size(), each.stride(), dtype=each.dtype, device=each.device)

    try:
        func(*_mapped(on_cuda, args), **{key: _mapped(on_cuda, value) for key, value in kwargs.items()})
    except Exception as error:  # also because no kernel has written indices, for example
        if "deterministic" in str(error):
            return str(error)
    return None


def _synchronize(device: Any = None) -> None:
    torch.cuda.init()
    if Stub.active is not None:
        Stub.active.count("synchronization")


def _wait_for_event(event: torch.cuda.Event) -> None:
    if Stub.active is not None:
        Stub.active.count("wait for an event")


def _without_gradients(mode: torch.inference_mode) -> None:
    """Enter a mode without gradients: tensors of inference mode cannot be wrapped."""
    mode.before = torch.is_grad_enabled()  # type: ignore[attr-defined]
    torch.set_grad_enabled(False)


def _with_gradients(mode: torch.inference_mode, *_: object) -> None:
    torch.set_grad_enabled(mode.before)  # type: ignore[attr-defined]


_to = nn.Module.to


def _module_to(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """Move a module by new parameters: the data of one cannot become that of another kind of tensor.

    A module that is there keeps its parameters, as with torch, so that an optimizer still updates them.
    """
    device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
    tensors = [*module.parameters(), *module.buffers()]
    if dtype is None and all(_is_there(tensor, device, layout) for tensor in tensors):
        return module
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        return _to(module, *args, **kwargs)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def _is_there(tensor: Tensor, device: torch.device | None, layout: torch.memory_format | None) -> bool:
    on_device = device is None or device in (tensor.device, torch.device(tensor.device.type))
    in_layout = layout is None or tensor.dim() != 4 or tensor.is_contiguous(memory_format=layout)
    return on_device and in_layout
