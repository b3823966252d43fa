"""Count multiply-adds of the operators that one forward pass dispatches, whoever calls them.

An operator either has a rule, or is decomposed into simpler ones, or multiplies no weights. An operator that
takes weights and is none of these is refused by name.
"""

import re
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sdabench.errors import UsageError
from sdabench.registry.schema import Operation

Arguments = Mapping[str, Any]
Rule = Callable[[Arguments, Any], dict[Operation, int]]
RULES: dict[str, Rule] = {}


def operator_rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule that counts operators, in place of any earlier one.

    The rule takes the arguments of the call by name, and its output. It returns multiply-adds: ``linear`` and
    ``conv`` count as layers, ``product`` as a matrix product outside layers, an empty dictionary as nothing.

    Args:
        names: namespace and name of each operator, as ``aten::linear`` or ``mylib::scan``.
    """

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


@operator_rule("aten::conv1d", "aten::conv2d", "aten::conv3d", "torchvision::deform_conv2d")
def convolution(arguments: Arguments, output: Tensor) -> dict[Operation, int]:
    bias = 0 if arguments.get("bias") is None else output.numel()
    return {"conv": output.numel() * arguments["weight"][0].numel(), "conv_bias": bias}


@operator_rule("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d")
def transposed_convolution(arguments: Arguments, output: Tensor) -> dict[Operation, int]:
    bias = 0 if arguments.get("bias") is None else output.numel()
    return {"conv": arguments["input"].numel() * arguments["weight"][0].numel(), "conv_bias": bias}


@operator_rule("aten::convolution", "aten::_convolution")
def any_convolution(arguments: Arguments, output: Tensor) -> dict[Operation, int]:
    return (transposed_convolution if arguments["transposed"] else convolution)(arguments, output)


@operator_rule("aten::linear")
def linear(arguments: Arguments, output: Tensor) -> dict[Operation, int]:
    return {"linear": output.numel() * arguments["weight"].shape[-1]}


@operator_rule("aten::bilinear")
def bilinear(arguments: Arguments, output: Tensor) -> dict[Operation, int]:
    return {"linear": output.numel() * arguments["weight"][0].numel()}


@operator_rule("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu")
def recurrent(arguments: Arguments, output: Any) -> dict[Operation, int]:
    """Count each weight matrix once per time step: (steps, N, C) or packed (rows, C), and the weights."""
    rows = arguments.get("input", arguments.get("data"))
    weights = sum(each.numel() for each in arguments["params"] if each.ndim == 2)
    return {"linear": rows.numel() // rows.shape[-1] * weights}


@operator_rule("aten::scaled_dot_product_attention")
def attention(arguments: Arguments, output: Tensor) -> dict[Operation, int]:
    """Count (…, L, E) queries times (…, S, E) keys, and the result times (…, S, V) values."""
    query, keys = arguments["query"], arguments["key"].shape[-2]
    return {"product": (query.numel() + output.numel()) * keys}


def product(first: str, second: str, arguments: Arguments, output: Tensor) -> dict[Operation, int]:
    """Count the product of (…, M, K) and (…, K, N), or of (…, K) and (K)."""
    columns = arguments[second].shape[-1] if arguments[second].ndim > 1 else 1
    return {"product": arguments[first].numel() * columns}


for _names, _first, _second in (
    (("aten::mm", "aten::bmm"), "self", "mat2"),
    (("aten::addmm",), "mat1", "mat2"),
    (("aten::baddbmm", "aten::addbmm"), "batch1", "batch2"),
    (("aten::mv",), "self", "vec"),
    (("aten::addmv",), "mat", "vec"),
    (("aten::dot",), "self", "tensor"),
):
    operator_rule(*_names)(partial(product, _first, _second))

DATA_DEPENDENT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

# Operators that select, move, normalize, reduce or resample weights, by the start of their names. torch's own
# tags tell those that work on single elements, and views.
FREE = re.compile(
    "aten::("
    "_?native_batch_norm|native_layer_norm|native_group_norm|_fused_rms_norm|_weight_norm|"
    "cat|stack|index|_unsafe_index|gather|embedding|_embedding_bag|take|scatter|select_scatter|slice_scatter|"
    "masked|repeat|roll|flip|clone|copy|_to_copy|_reshape_copy|constant_pad|tril|triu|new_|empty_like|"
    "_?upsample|grid_sampler|avg_pool|max_pool|_adaptive_avg_pool|"
    "sum|mean|prod|var|std|norm|linalg_vector_norm|amax|amin|max|min|argmax|argmin|topk|sort|cumsum|"
    "_softmax|_log_softmax|equal|is_|_local_scalar_dense)"
    "|profiler::|torchvision::(nms|_?roi_|_?ps_roi_)"
)
# Operators of torch that multiply activations but have no rule.
UNRULED = re.compile(r"aten::(\w*mm|\w*(linalg|attention)\w*|_?cdist\w*|_euclidean_dist)")


def decomposed(mode: TorchDispatchMode, func: Any, args: Any, kwargs: Any) -> Any:
    """Call the parts of a composite operator under a mode; NotImplemented if it has none."""
    if not func._can_decompose():
        return NotImplemented
    with mode:
        return func.decompose(*args, **kwargs)


class TorchFormulas(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Add up FLOPs by the formulas of torch's FlopCounterMode, which itself fails on parametrized modules."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None and (output := decomposed(self, func, args, kwargs)) is not NotImplemented:
            return output
        output = func(*args, **kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=output)
        return output


class OperatorCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Report the operations of each dispatched operator; see :func:`count_operators`.

    ``names`` has the storage of each parameter, and of each tensor that is computed from parameters alone.
    """

    def __init__(self, weights: Mapping[str, Tensor], report: Callable[[dict[Operation, int]], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.report = report
        self.names = {_storage(weight): name for name, weight in weights.items()}
        self.disagreements: dict[str, Tally[str]] = {}
        self.data_dependent: dict[str, None] = {}
        self.unruled: dict[str, None] = {}
        self.derived: list[Tensor] = []  # kept, so that no other tensor gets the address of their storage
        self.formulas = TorchFormulas()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        rule = RULES.get(name)
        if rule is None and (output := decomposed(self, func, args, kwargs)) is not NotImplemented:
            return output
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        weights = [each for each in tensors if _storage(each) in self.names]
        flops = self.formulas.flops
        # Of indices, only masks select a number of elements that depends on data.
        if DATA_DEPENDENT & {*func.tags} and (name != "aten::index" or any(map(_is_mask, tensors[1:]))):
            self.data_dependent[name] = None
        output = func(*args, **kwargs)
        if rule is not None:
            arguments = dict(zip((each.name for each in func._schema.arguments), args, strict=False)) | kwargs
            operations = rule(arguments, output)
            self._compare(name, operations, self.formulas.flops - flops)
            if weights and "product" in operations:
                operations = {"weight_product": operations["product"]}
            self.report(operations)
        if tensors and len(weights) == len(tensors):
            self._derive(output, self.names[_storage(weights[0])])
        elif rule is None and not (torch.Tag.pointwise in func.tags or func.is_view or FREE.match(name)):
            taken = [
                f"'{self.names[_storage(each)]}' {tuple(each.shape)}" for each in weights if each.ndim > 1
            ]
            taken += ["in a packed object" for each in args if isinstance(each, torch.ScriptObject)]
            if taken:
                raise UncountedError(
                    f"no rule for the operator {name}, which takes weights, {taken[0]}; "
                    f"add one with sdabench.operator_rule('{name}')"
                )
            if tensors and (not name.startswith(("aten::", "prim")) or UNRULED.fullmatch(name)):
                self.unruled[name] = None
        return output

    def _derive(self, output: Any, name: str) -> None:
        for each in tree_leaves(output):
            if isinstance(each, Tensor) and _storage(each) not in self.names:
                self.names[_storage(each)] = name
                self.derived.append(each)

    def _compare(self, name: str, operations: Mapping[Operation, int], flops: int) -> None:
        """Compare with torch's counter where it has a formula; it counts two operations a multiply-add."""
        own = sum(number for operation, number in operations.items() if operation != "conv_bias")
        if flops and flops != 2 * own:
            self.disagreements.setdefault(name, Tally()).update(own=own, torch=flops // 2)

    def notes(self) -> Iterator[str]:
        """Say what is not counted, where the counters disagree, and whether the count depends on data."""
        for name in self.unruled:
            yield f"no rule for the operator {name}, which counts as nothing; sdabench.operator_rule adds one"
        for name, found in self.disagreements.items():
            yield f"torch counts {found['torch']:,} multiply-adds of {name}, not {found['own']:,}"
        if self.data_dependent:
            names = ", ".join(self.data_dependent)
            yield f"the forward pass depends on data ({names}): this is the count of these inputs and weights"


class UncountedError(UsageError):
    """An operator whose multiply-adds are not known."""


def _is_mask(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.bool, torch.uint8)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else id(tensor)


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Turn off torch's fused attention for evaluation, whose parts no counter sees."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def count_operators(
    weights: Mapping[str, Tensor],
    report: Callable[[dict[Operation, int]], None],
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[None]:
    """Report the operations of each operator that the block dispatches, without gradients.

    Notes say where torch's counter disagrees, and whether operators depend on data.

    Raises:
        UncountedError: an operator takes weights and has no rule.
    """
    counter = OperatorCounter(weights, report)
    # Below autograd, composite operators such as aten::linear arrive whole.
    with (
        torch.no_grad(),
        unfused_attention(),
        torch._C._AutoDispatchBelowAutograd(),
        counter.formulas,
        counter,
    ):
        yield
    for text in counter.notes():
        note(text)
