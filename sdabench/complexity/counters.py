"""The two counters: fvcore's trace of the operations, and hooks on leaf modules."""

import logging
import warnings
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from math import prod
from typing import Any, get_args

import torch
from torch import Tensor, nn

from sdabench.complexity import Count, InputSize
from sdabench.errors import UsageError
from sdabench.models.build import create_model
from sdabench.models.depth_attention import DepthAttention
from sdabench.registry.schema import Operation

with warnings.catch_warnings():  # it scripts a loss on import, which newer torch calls deprecated
    warnings.simplefilter("ignore")
    from fvcore.nn import FlopCountAnalysis


def skeleton_of(name: str) -> nn.Module:
    """The network without memory for its weights, which counting does not need."""
    with torch.device("meta"):
        return create_model(name)


def count_module(module: nn.Module, input_size: InputSize, name: str) -> Count:
    with counting(module, input_size, name):
        operations, per_call = count_leaves(module, input_size)
        operators = fvcore_analysis(module, input_size).by_operator()
    parameters = list(module.parameters())
    return Count(
        model=name,
        input=input_size,
        params=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        per_call=per_call,
        macs=int(operators["conv"] + operators["linear"]),
        fvcore=int(sum(operators.values())),
        operations=operations,
    )


@contextmanager
def counting(module: nn.Module, input_size: InputSize, name: str) -> Iterator[None]:
    """Evaluation mode without gradients; what the network cannot take is the user's error."""
    with evaluating(module), torch.no_grad():
        try:
            yield
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"'{name}' cannot take an input of {input_size}: {reason}") from error


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for the block, then each submodule's own mode again."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, mode in modes.items():
            child.training = mode


def fvcore_analysis(module: nn.Module, input_size: InputSize) -> FlopCountAnalysis:
    """Fvcore's analysis of one forward pass, without its notes on what it does not count.

    fvcore traces a real pass, and cannot on the meta device: such a module gets memory, with whatever
    is in it.
    """
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    if _device(module).type == "meta":
        module = deepcopy(module).to_empty(device="cpu")
    x = torch.zeros(1, *input_size, device=_device(module))
    analysis = FlopCountAnalysis(module, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis.total()  # traces here; the result is kept
    return analysis


def count_leaves(module: nn.Module, input_size: InputSize) -> tuple[dict[Operation, int], int]:
    """What the calls of leaf modules add up to in one forward pass.

    Returns:
        The inventory of operations, and ``per_call``: trainable weights and biases, added at each call
        of their module, so that a shared module counts as often as it is used.
    """
    tally: Tally[Operation] = Tally()
    per_call = 0

    def count_call(leaf: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal per_call
        rule = _RULES.get(type(leaf))
        if rule is not None:
            tally.update(rule(leaf, inputs, output))
        for name in ("weight", "bias"):
            parameter = getattr(leaf, name, None)
            if isinstance(parameter, nn.Parameter) and parameter.requires_grad:
                per_call += parameter.numel()

    counted = (child for child in module.modules() if type(child) in _RULES or not any(child.children()))
    handles = [child.register_forward_hook(count_call) for child in counted]
    try:
        module(torch.zeros(1, *input_size, device=_device(module)))
    finally:
        for handle in handles:
            handle.remove()
    return {operation: tally[operation] for operation in get_args(Operation)}, per_call


def count_modules(name: str, input_size: InputSize) -> dict[str, tuple[int, int]]:
    """For each module of a network, by name (the whole is ""): its parameters, and its multiply-adds."""
    network = skeleton_of(name)
    with counting(network, input_size, name):
        operators = fvcore_analysis(network, input_size).by_module_and_operator()
    return {
        path: (
            sum(parameter.numel() for parameter in module.parameters()),
            int(operators[path]["conv"] + operators[path]["linear"]),
        )
        for path, module in network.named_modules()
    }


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters(), torch.zeros(0)).device


def _convolution(leaf: Any, inputs: tuple[Tensor], output: Tensor) -> dict[Operation, int]:
    per_position = prod(leaf.kernel_size) * leaf.in_channels // leaf.groups
    bias = 0 if leaf.bias is None else output.numel()
    return {"conv": per_position * output.numel(), "conv_bias": bias}


def _linear(leaf: Any, inputs: tuple[Tensor], output: Tensor) -> dict[Operation, int]:
    return {"linear": inputs[0].numel() * leaf.out_features}


def _depth_attention(leaf: Any, inputs: tuple[list[Tensor], Tensor], output: Tensor) -> dict[Operation, int]:
    """The authors' stage pools the sum of its maps with a module; ours pools each map as it comes."""
    return {"pool": inputs[0][0].numel()}


def _of_input(
    operation: Operation, leaf: nn.Module, inputs: tuple[Tensor], output: Tensor
) -> dict[Operation, int]:
    return {operation: inputs[0].numel()}


_RULES: dict[type[nn.Module], Callable[[Any, Any, Any], dict[Operation, int]]] = {
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Linear: _linear,
    nn.BatchNorm1d: partial(_of_input, "batch_norm"),
    nn.BatchNorm2d: partial(_of_input, "batch_norm"),
    nn.ReLU: partial(_of_input, "relu"),
    nn.MaxPool2d: partial(_of_input, "pool"),
    nn.AvgPool2d: partial(_of_input, "pool"),
    nn.AdaptiveAvgPool2d: partial(_of_input, "pool"),
    DepthAttention: _depth_attention,
}
