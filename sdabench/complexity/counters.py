"""Count a module: operators by the module that calls them, elements by type of module, and with fvcore."""

import logging
import warnings
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, pooling

from sdabench.complexity import Count, InputSize
from sdabench.complexity.operators import RULES, UncountedError, count_operators, unfused_attention
from sdabench.errors import SdabenchError, UsageError
from sdabench.models.build import create_model
from sdabench.models.depth_attention import DepthAttention
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

MULTIPLY_ADDS: tuple[Operation, ...] = ("conv", "linear", "weight_product", "product")
FVCORE_PRODUCTS = ("conv", "linear", "addmm", "bmm", "mm", "matmul", "einsum")
COMPOSITE = ("aten::_convolution_mode", "aten::tensordot", "aten::baddbmm")  # that a trace may contain


def create_on(device: str, name: str) -> nn.Module:
    with torch.device(device):
        return create_model(name)


def sample(module: nn.Module, size: Sequence[int]) -> Tensor:
    """Make a batch of one sample for a module: zeros of its device and dtype, (1, *size)."""
    dtypes = (each.dtype for each in module.parameters() if each.is_floating_point())
    return torch.zeros(1, *size, device=_device(module), dtype=next(dtypes, torch.float32))


def is_detector(module: nn.Module) -> bool:
    return hasattr(module, "forward_dense")


class _Dense(nn.Module):
    """A detector whose forward pass runs each layer once, independent of its detections."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = self.detector.forward_dense(x)  # type: ignore[operator]
        return outputs


@dataclass
class Own:
    """What a module counts itself in one forward pass, without its submodules.

    ``per_call`` adds its trainable weight and bias at each call, so a shared module counts repeatedly.
    """

    operations: Tally[Operation] = field(default_factory=Tally)
    per_call: int = 0


def count_module(
    module: nn.Module, inputs: Sequence[Tensor], name: str, fvcore: bool, without: Sequence[str]
) -> Count:
    """Count a module; see :func:`sdabench.complexity.count`."""
    paths = dict(module.named_modules())
    for path in without:
        if path not in paths:
            listing = f"it has {', '.join(list(paths)[1:9])}, …"
            raise UsageError(unknown(f"module of '{name}'", path, paths, listing))
    with counting(module, inputs, name):
        owns = count_calls(module, inputs)
    counted = [own for path, own in owns.items() if not any(contains(each, path) for each in without)]
    operations = {each: sum(own.operations[each] for own in counted) for each in get_args(Operation)}
    parameters = list(module.parameters())
    total, note = None, None
    if fvcore:
        whole = Tally[Operation]()
        for own in owns.values():
            whole.update(own.operations)
        total, note = fvcore_total(module, inputs, sum(whole[each] for each in MULTIPLY_ADDS))
    return Count(
        model=name,
        input=tuple(inputs[0].shape[1:]),
        params=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        per_call=sum(own.per_call for own in counted),
        macs=operations["conv"] + operations["linear"],
        fvcore=total,
        operations=operations,
        notes=() if note is None else (note,),
    )


def fvcore_total(
    module: nn.Module, inputs: Sequence[Tensor], multiply_adds: int
) -> tuple[int | None, str | None]:
    """Return fvcore's total, or None where it cannot trace, and a note if it counts other multiply-adds."""
    try:
        with counting(module, inputs, type(module).__name__):
            analysis = fvcore_analysis(module, inputs)
    except UsageError as error:
        return None, f"fvcore cannot trace it: {str(error.__cause__).splitlines()[0]}"
    operators = analysis.by_operator()
    total, found = int(sum(operators.values())), int(sum(operators[each] for each in FVCORE_PRODUCTS))
    if found == multiply_adds:
        return total, None
    skipped = ", ".join(sorted(set(analysis.unsupported_ops()) & {*RULES, *COMPOSITE}))
    reason = f" because it has no rule for {skipped}" if skipped else ""
    return total, f"fvcore counts {found:,} multiply-adds, not {multiply_adds:,}{reason}"


@contextmanager
def counting(module: nn.Module, inputs: Sequence[Tensor], name: str) -> Iterator[None]:
    """Run in evaluation mode without gradients, then restore the mode of each submodule.

    Whatever goes wrong in the forward pass is a UsageError that gives the reason.
    """
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    except UncountedError as error:
        raise UncountedError(f"'{name}': {error}") from None
    except SdabenchError:
        raise
    except Exception as error:
        sizes = " and ".join(str(tuple(each.shape[1:])) for each in inputs)
        kind = "" if isinstance(error, RuntimeError | ValueError) else f"{type(error).__name__}: "
        reason = (str(error).splitlines() or [""])[0]
        raise UsageError(f"'{name}' cannot take an input of {sizes}: {kind}{reason}") from error
    finally:
        for child, mode in modes.items():
            child.training = mode


def fvcore_analysis(module: nn.Module, inputs: Sequence[Tensor]) -> FlopCountAnalysis:
    """Analyze one forward pass with fvcore, without its messages on uncounted operations.

    fvcore cannot trace on the meta device: such a module gets uninitialized memory.
    """
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    if _device(module).type == "meta":
        module = deepcopy(module).to_empty(device="cpu")
        inputs = [torch.zeros_like(each, device="cpu") for each in inputs]
    module = _Dense(module) if is_detector(module) else module
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
        if isinstance(module, DepthAttention):  # the authors' code pools the sum of the maps, once
            own.operations["pool"] += inputs[0][0].numel()


def count_calls(module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Own]:
    """Count what each module computes itself, by path, in one forward pass."""
    calls = _Calls(module)
    forward = module.forward_dense if is_detector(module) else module
    try:
        with count_operators(dict(module.named_parameters()), calls.add):
            forward(*inputs)  # type: ignore[operator]
    finally:
        for hook in calls.hooks:
            hook.remove()
    return calls.owns


def contains(path: str, name: str) -> bool:
    """Return whether ``name`` is the module ``path`` or one of its submodules."""
    return not path or name == path or name.startswith(f"{path}.")


def count_modules(name: str, input_size: InputSize) -> dict[str, tuple[int, int]]:
    """Return parameters and multiply-adds of each module by name; "" is the model."""
    network = create_on("meta", name)
    inputs = [sample(network, input_size)]
    with counting(network, inputs, name):
        owns = count_calls(network, inputs)
    macs = {path: own.operations["conv"] + own.operations["linear"] for path, own in owns.items()}
    return {
        path: (
            sum(parameter.numel() for parameter in module.parameters()),
            sum(number for own, number in macs.items() if contains(path, own)),
        )
        for path, module in network.named_modules()
    }


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters(), torch.zeros(0)).device
