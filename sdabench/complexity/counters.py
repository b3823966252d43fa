"""Count a module: operators by the module that calls them, elements by type of module, and with fvcore."""

import logging
import operator
import warnings
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Unpack, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, pooling
from torch.utils._pytree import tree_map

from sdabench.complexity import DEFAULT_INPUT, PRODUCTS, Count, InputSize
from sdabench.complexity.inputs import Forward, Inputs, call, described, make_inputs, tensors_of
from sdabench.complexity.operators import RULES, UncountedError, count_operators, unfused_attention
from sdabench.errors import SdabenchError, UsageError
from sdabench.models.build import create_model
from sdabench.models.depth_attention import DepthAttentionStage
from sdabench.registry import unknown
from sdabench.registry.schema import Operation

with warnings.catch_warnings():  # importing it scripts a loss, which is deprecated in newer torch
    warnings.simplefilter("ignore")
    from fvcore.nn import FlopCountAnalysis

# Modules of which a convention counts the elements of the input.
ELEMENTWISE: dict[Operation, tuple[type[nn.Module], ...]] = {
    "batch_norm": (batchnorm._BatchNorm,),
    "relu": (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU),
    "pool": (pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd),
}

LAYERS: tuple[Operation, ...] = ("conv", "linear")
MULTIPLY_ADDS: tuple[Operation, ...] = (*LAYERS, *PRODUCTS)
FVCORE_PRODUCTS = ("conv", "linear", "addmm", "bmm", "mm", "matmul", "einsum")
COMPOSITE = ("aten::_convolution_mode", "aten::tensordot", "aten::baddbmm")  # that a trace may contain


def create_on(device: str, name: str) -> nn.Module:
    """Create a network with fixed random weights, or on ``meta`` without any."""
    try:
        with torch.random.fork_rng(devices=()), torch.device(device):
            torch.manual_seed(0)
            return create_model(name)
    except SdabenchError as error:
        if device != "meta" or "meta tensor" not in str(error):
            raise
    return create_on("cpu", name).to("meta")  # its constructor reads values of tensors


def sample(module: nn.Module, size: Sequence[int], batch: int = 1) -> Inputs:
    """Make a batch for a module: zeros of its device and dtype, (batch, *size)."""
    return make_inputs(module, ["x".join(map(str, (batch, *size)))])


def prepare(
    model: str | nn.Module,
    input_size: Sequence[int] | None = None,
    *,
    inputs: Inputs | None = None,
    batch: int = 1,
    device: str = "meta",
) -> tuple[nn.Module, Inputs]:
    """Return the module and the inputs of its forward pass; see :func:`sdabench.complexity.count`."""
    if inputs is not None and (input_size is not None or batch != 1):
        raise UsageError("inputs have shapes with a batch; leave out the input size and the batch")
    module = create_on(device, model) if isinstance(model, str) else model
    if inputs is not None:
        return module, make_inputs(module, inputs)
    try:
        size = tuple(map(operator.index, default_size(module) if input_size is None else input_size))
    except TypeError:
        size = ()
    if not size or (isinstance(model, str) and len(size) != 3):
        raise UsageError(f"an input size is (C, H, W), not {input_size!r}")
    if min(size) < 1 or batch < 1:
        raise UsageError(f"an input size has positive numbers, not {(batch, *size)}")
    return module, sample(module, size, batch)


def default_size(module: nn.Module) -> InputSize:
    """Return the input size (C, H, W) of a module: its own as timm states it, or the usual one."""
    config = getattr(module, "pretrained_cfg", None)
    stated = config.get("input_size") if isinstance(config, Mapping) else None
    return tuple(stated or DEFAULT_INPUT["detection" if is_detector(module) else "classification"])


def is_detector(module: nn.Module) -> bool:
    return hasattr(module, "forward_dense")


class Dense(nn.Module):
    """A detector whose forward pass runs each layer once, independent of its detections."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = self.detector.forward_dense(x)  # type: ignore[operator]
        return outputs


class _Named(nn.Module):
    """A module that takes its keyword arguments by position."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *inputs: Any) -> Any:
        return self.module(**dict(zip(self.names, inputs, strict=True)))


class ModuleCount(NamedTuple):
    """Parameters and multiply-adds of a module with its submodules; see :class:`Count`."""

    params: int
    macs: int
    products: int


@dataclass
class Own:
    """What a module counts itself in one forward pass, without its submodules.

    ``per_call`` adds its trainable weight and bias at each call, so a shared module counts repeatedly.
    """

    operations: Tally[Operation] = field(default_factory=Tally)
    per_call: int = 0


def count_module(
    module: nn.Module,
    inputs: Inputs,
    name: str,
    *,
    fvcore: bool = True,
    without: Sequence[str] = (),
    explicit: bool = False,
) -> Count:
    """Count a module; see :func:`sdabench.complexity.count`."""
    paths = dict(module.named_modules())
    for path in without:
        if path not in paths:
            listing = f"it has {', '.join(list(paths)[1:9])}, …"
            raise UsageError(unknown(f"module of '{name}'", path, paths, listing))
    notes: list[str] = []
    with counting(module, inputs, name):
        owns = count_calls(module, inputs, notes.append)
    counted = [own for path, own in owns.items() if not any(contains(each, path) for each in without)]
    operations = {each: sum(own.operations[each] for own in counted) for each in get_args(Operation)}
    parameters = list(module.parameters())
    total = None
    if fvcore:
        whole = sum(own.operations[each] for own in owns.values() for each in MULTIPLY_ADDS)
        total = fvcore_total(module, inputs, whole, notes.append)
    batch, *sample_shape = input_shape(inputs)
    return Count(
        model=name,
        input=tuple(sample_shape),
        batch=batch,
        inputs=described(inputs) if explicit else (),
        params=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        per_call=sum(own.per_call for own in counted),
        macs=sum(operations[each] for each in LAYERS),
        fvcore=total,
        operations=operations,
        notes=tuple(notes),
    )


def fvcore_total(
    module: nn.Module, inputs: Inputs, multiply_adds: int, note: Callable[[str], None]
) -> int | None:
    """Return fvcore's total, or None where it cannot trace; a note says if it counts other multiply-adds."""
    try:
        with counting(module, inputs, type(module).__name__):
            analysis = fvcore_analysis(module, inputs)
    except UsageError as error:
        note(f"fvcore cannot trace it: {first_line(error.__cause__)}")
        return None
    operators = analysis.by_operator()
    total, found = int(sum(operators.values())), int(sum(operators[each] for each in FVCORE_PRODUCTS))
    if found != multiply_adds:
        skipped = ", ".join(sorted(set(analysis.unsupported_ops()) & {*RULES, *COMPOSITE}))
        reason = f" because it has no rule for {skipped}" if skipped else ""
        note(f"fvcore counts {found:,} multiply-adds, not {multiply_adds:,}{reason}")
    return total


def first_line(error: BaseException | None) -> str:
    return (str(error).splitlines() or [""])[0]


@contextmanager
def counting(module: nn.Module, inputs: Inputs, name: str) -> Iterator[None]:
    """Run in evaluation mode without gradients, then restore the mode of each submodule.

    Whatever goes wrong in the forward pass is a UsageError that gives the reason.
    """
    modes = {child: child.training for child in module.modules()}
    with suppress(NotImplementedError):  # an exported program has one mode
        module.eval()
    try:
        with torch.no_grad():
            yield
    except UncountedError as error:
        raise UncountedError(f"'{name}': {error}") from None
    except SdabenchError:
        raise
    except Exception as error:
        reason = first_line(error)
        if _device(module).type == "meta" and "meta" in reason.lower():
            message = f"'{name}' cannot run without data; count it on the CPU, with --device cpu"
            raise UsageError(f"{message}: {reason}") from error
        sizes = " and ".join(str(tuple(each.shape[1:])) for each in tensors_of(inputs))
        kind = "" if isinstance(error, RuntimeError | ValueError) else f"{type(error).__name__}: "
        raise UsageError(f"'{name}' cannot take an input of {sizes}: {kind}{reason}") from error
    finally:
        for child, mode in modes.items():
            child.training = mode


def fvcore_analysis(module: nn.Module, inputs: Inputs) -> FlopCountAnalysis:
    """Analyze one forward pass with fvcore, without its messages on uncounted operations.

    fvcore cannot trace on the meta device: such a module gets weights and buffers of zeros.
    """
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    if _device(module).type == "meta":
        module = deepcopy(module).to_empty(device="cpu")
        for each in (*module.parameters(), *module.buffers()):
            each.detach().zero_()
        inputs = tree_map(lambda each: torch.zeros_like(each, device="cpu"), inputs)
    module = Dense(module) if is_detector(module) else module
    if isinstance(inputs, Mapping):
        module, inputs = _Named(module, list(inputs)), list(inputs.values())
    analysis = FlopCountAnalysis(module, tuple(inputs))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with warnings.catch_warnings(), unfused_attention():
        warnings.simplefilter("ignore")
        analysis.total()  # traces and caches the result
    return analysis


class _Calls:
    """Attribute the operations of a forward pass to the module that is being called, by hooks."""

    def __init__(self, module: nn.Module) -> None:
        self.owns = {path: Own() for path, _ in module.named_modules()}
        self.stack = [""]
        self.hooks = [
            hook
            for path, child in module.named_modules()
            if not isinstance(child, torch.jit.ScriptModule)  # it takes no hooks; its caller counts it
            for hook in (
                child.register_forward_pre_hook(partial(self._enter, path)),
                child.register_forward_hook(partial(self._leave, path), with_kwargs=True, always_call=True),
            )
        ]

    def add(self, operations: Mapping[Operation, int]) -> None:
        if "parametrizations" not in self.stack[-1].split("."):  # they compute a weight from other parameters
            self.owns[self.stack[-1]].operations.update(operations)

    def _enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        self.stack.append(path)

    def _leave(self, path: str, module: nn.Module, inputs: Any, named: Any, output: Any) -> None:
        self.stack.pop()
        own, first = self.owns[path], next(iter([*inputs, *named.values()]), None)
        own.per_call += sum(
            each.numel()
            for name, each in module.named_parameters(recurse=False)
            if name in ("weight", "bias") and each.requires_grad
        )
        for operation, types in ELEMENTWISE.items():
            if isinstance(module, types) and isinstance(first, Tensor):
                own.operations[operation] += first.numel()
        if isinstance(module, DepthAttentionStage) and module.attention.needs_input:
            # The authors' code pools the sum of the maps, once, in its module of depth attention.
            self.owns[f"{path}.attention"].operations["pool"] += output.numel()


def count_calls(
    module: nn.Module, inputs: Inputs, note: Callable[[str], None] = lambda text: None
) -> dict[str, Own]:
    """Count what each module computes itself, by path, in one forward pass."""
    calls = _Calls(module)
    forward = module.forward_dense if is_detector(module) else module
    try:
        with count_operators(dict(module.named_parameters()), calls.add, note):
            call(forward, inputs)
    finally:
        for hook in calls.hooks:
            hook.remove()
    return calls.owns


def input_shape(inputs: Inputs) -> tuple[int, ...]:
    """Return the shape of the first input, with the batch."""
    return next((tuple(each.shape) for each in tensors_of(inputs) if each.ndim), (1,))


def contains(path: str, name: str) -> bool:
    """Return whether ``name`` is the module ``path`` or one of its submodules."""
    return not path or name == path or name.startswith(f"{path}.")


def count_modules(
    name: str, input_size: InputSize | None = None, **how: Unpack[Forward]
) -> tuple[InputSize, dict[str, ModuleCount]]:
    """Return the input size, and what each module counts, by name; "" is the model."""
    network, inputs = prepare(name, input_size, **how)
    with counting(network, inputs, name):
        owns = count_calls(network, inputs)
    found: dict[str, ModuleCount] = {}
    for path, module in network.named_modules():
        inside = Tally[Operation]()
        for own, each in owns.items():
            if contains(path, own):
                inside.update(each.operations)
        found[path] = ModuleCount(
            sum(parameter.numel() for parameter in module.parameters()),
            sum(inside[each] for each in LAYERS),
            sum(inside[each] for each in PRODUCTS),
        )
    return input_shape(inputs)[1:], found


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters(), torch.zeros(0)).device
