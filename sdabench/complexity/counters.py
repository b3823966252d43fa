"""Count with fvcore's trace of operations, and with hooks on leaf modules."""

import logging
import warnings
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, get_args

import torch
from torch import Tensor, nn

from sdabench.complexity import Count, InputSize
from sdabench.errors import UsageError
from sdabench.models.build import create_model
from sdabench.models.depth_attention import DepthAttention
from sdabench.registry import unknown
from sdabench.registry.schema import Operation

with warnings.catch_warnings():  # importing it scripts a loss, which is deprecated in newer torch
    warnings.simplefilter("ignore")
    from fvcore.nn import FlopCountAnalysis


def create_on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return create_model(name)


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


def count_module(
    module: nn.Module, input_size: InputSize, name: str, fvcore: bool, without: Sequence[str]
) -> Count:
    """Count a module; see :func:`sdabench.complexity.count`."""
    paths = dict(module.named_modules())
    for path in without:
        if path not in paths:
            listing = f"it has {', '.join(list(paths)[1:9])}, …"
            raise UsageError(unknown(f"module of '{name}'", path, paths, listing))
    with counting(module, input_size, name):
        leaves = count_leaves(module, input_size)
        operators = fvcore_analysis(module, input_size).by_operator() if fvcore else None
    counted = [leaf for path, leaf in leaves.items() if not any(contains(each, path) for each in without)]
    operations = {each: sum(leaf.operations[each] for leaf in counted) for each in get_args(Operation)}
    summands = operations if operators is None or without else operators
    parameters = list(module.parameters())
    return Count(
        model=name,
        input=input_size,
        params=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        per_call=sum(leaf.per_call for leaf in counted),
        macs=int(summands["conv"] + summands["linear"]),
        fvcore=None if operators is None else int(sum(operators.values())),
        operations=operations,
    )


@contextmanager
def counting(module: nn.Module, input_size: InputSize, name: str) -> Iterator[None]:
    """Run in evaluation mode without gradients, then restore the mode of each submodule.

    An input size that the module cannot take is a UsageError.
    """
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"'{name}' cannot take an input of {input_size}: {reason}") from error
    finally:
        for child, mode in modes.items():
            child.training = mode


def fvcore_analysis(module: nn.Module, input_size: InputSize) -> FlopCountAnalysis:
    """Analyze one forward pass with fvcore, without its messages on uncounted operations.

    fvcore cannot trace on the meta device: such a module gets uninitialized memory.
    """
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    if _device(module).type == "meta":
        module = deepcopy(module).to_empty(device="cpu")
    module = _Dense(module) if is_detector(module) else module
    x = torch.zeros(1, *input_size, device=_device(module))
    analysis = FlopCountAnalysis(module, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis.total()  # traces and caches the result
    return analysis


@dataclass
class Leaf:
    """Operations of one leaf module in one forward pass.

    ``per_call`` adds its trainable weights and biases at each call, so a shared module counts repeatedly.
    """

    operations: Tally[Operation] = field(default_factory=Tally)
    per_call: int = 0

    def count_call(self, leaf: nn.Module, inputs: Any, output: Any) -> None:
        rule = _RULES.get(type(leaf))
        if rule is not None:
            self.operations.update(rule(leaf, inputs, output))
        for name in ("weight", "bias"):
            parameter = getattr(leaf, name, None)
            if isinstance(parameter, nn.Parameter) and parameter.requires_grad:
                self.per_call += parameter.numel()


def count_leaves(module: nn.Module, input_size: InputSize) -> dict[str, Leaf]:
    """Count the leaf modules by name in one forward pass; modules with a rule are leaves."""
    leaves, handles = {}, []
    for name, child in module.named_modules():
        if type(child) in _RULES or not any(child.children()):
            leaves[name] = Leaf()
            handles.append(child.register_forward_hook(leaves[name].count_call))
    forward = module.forward_dense if is_detector(module) else module
    try:
        forward(torch.zeros(1, *input_size, device=_device(module)))  # type: ignore[operator]
    finally:
        for handle in handles:
            handle.remove()
    return leaves


def contains(path: str, name: str) -> bool:
    """Return whether ``name`` is the module ``path`` or one of its submodules."""
    return not path or name == path or name.startswith(f"{path}.")


def count_modules(name: str, input_size: InputSize) -> dict[str, tuple[int, int]]:
    """Return parameters and multiply-adds of each module by name; "" is the model."""
    network = create_on_meta(name)
    with counting(network, input_size, name):
        leaves = count_leaves(network, input_size)
    macs = {leaf: each.operations["conv"] + each.operations["linear"] for leaf, each in leaves.items()}
    return {
        path: (
            sum(parameter.numel() for parameter in module.parameters()),
            sum(number for leaf, number in macs.items() if contains(path, leaf)),
        )
        for path, module in network.named_modules()
    }


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters(), torch.zeros(0)).device


def _convolution(leaf: Any, inputs: tuple[Tensor], output: Tensor) -> dict[Operation, int]:
    transposed = isinstance(leaf, nn.ConvTranspose2d)
    channels, positions = (leaf.out_channels, inputs[0]) if transposed else (leaf.in_channels, output)
    per_position = prod(leaf.kernel_size) * channels // leaf.groups
    bias = 0 if leaf.bias is None else output.numel()
    return {"conv": per_position * positions.numel(), "conv_bias": bias}


def _linear(leaf: Any, inputs: tuple[Tensor], output: Tensor) -> dict[Operation, int]:
    return {"linear": inputs[0].numel() * leaf.out_features}


def _depth_attention(leaf: Any, inputs: tuple[list[Tensor], Tensor], output: Tensor) -> dict[Operation, int]:
    """Count the pooling of the authors' code, which pools the sum of maps once; this code pools each map."""
    return {"pool": inputs[0][0].numel()}


def _of_input(
    operation: Operation, leaf: nn.Module, inputs: tuple[Tensor], output: Tensor
) -> dict[Operation, int]:
    return {operation: inputs[0].numel()}


_RULES: dict[type[nn.Module], Callable[[Any, Any, Any], dict[Operation, int]]] = {
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.ConvTranspose2d: _convolution,
    nn.Linear: _linear,
    nn.BatchNorm1d: partial(_of_input, "batch_norm"),
    nn.BatchNorm2d: partial(_of_input, "batch_norm"),
    nn.ReLU: partial(_of_input, "relu"),
    nn.MaxPool2d: partial(_of_input, "pool"),
    nn.AvgPool2d: partial(_of_input, "pool"),
    nn.AdaptiveAvgPool2d: partial(_of_input, "pool"),
    DepthAttention: _depth_attention,
}
