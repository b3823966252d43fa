"""Count one model under many settings: conventions, operation sums, input sizes and left-out modules.

``sdabench explain`` searches them for a printed number. All counts are sums over the own modules that
:mod:`sdabench.complexity.counters` counts; fvcore's total is known for the whole model alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, get_args

from torch import nn

from sdabench.complexity import Count, InputSize
from sdabench.complexity.conventions import CONVENTIONS, combine
from sdabench.complexity.counters import contains, count_calls, counting, create_on, sample
from sdabench.errors import UsageError
from sdabench.models.depth_attention import DepthWeights
from sdabench.registry.schema import Counter, DataTask, Operation

Quantity = Literal["params", "flops"]
Part = Callable[[str, nn.Module], bool]  # whether a module, by its path, belongs to the part

SIZES: dict[DataTask, tuple[InputSize, ...]] = {
    "classification": tuple((3, side, side) for side in (224, 192, 240, 256, 288, 299, 320)),
    "detection": (
        (3, 800, 1280),  # default of mmdetection's get_flops
        (3, 800, 1344),  # scale of a test image, padded to a multiple of 32
        *((3, side, side) for side in (512, 640, 800, 1024)),
        *((3, 800, width) for width in (1066, 1088, 1200, 1216)),
        *((3, height, 800) for height in (1280, 1333, 1344)),
        (3, 600, 1000),
        (3, 1344, 1344),
        *((3, height, 1333 + more) for height in (800, 799, 798) for more in (0, -1, 1, -2, 2, -3, 3, -4)),
    ),
}
MACS: dict[Operation, int] = {"conv": 1, "linear": 1}
SUMS: dict[str, dict[Operation, int]] = {"macs": MACS, **CONVENTIONS}


def _inside(*paths: str) -> Part:
    return lambda path, module: any(contains(each, path) for each in paths)


def _named(*names: str) -> Part:
    return lambda path, module: path.rpartition(".")[2] in names and not isinstance(module, DepthWeights)


def _stride_one(path: str, module: nn.Module) -> bool:
    return isinstance(module, nn.AvgPool2d) and module.stride in (1, (1, 1))


MASK_PREDICTOR = "roi_heads.mask_predictor"
PARTS: dict[str, Part] = {
    "stem": _inside(
        *(
            f"{prefix}{name}"
            for prefix in ("", "backbone.body.")
            for name in ("conv1", "bn1", "relu", "stem_pool")
        )
    ),
    "classifier": _inside("fc"),
    "shortcuts": _named("downsample"),
    "depth attention": lambda path, module: isinstance(module, DepthWeights),
    "other attention": _named("attention", "gate"),
    "pooling with stride 1": _stride_one,
    "neck": _inside("backbone.fpn"),
    "RPN": _inside("rpn"),
    "box head": _inside("roi_heads.box_head", "roi_heads.box_predictor"),
    "mask head": _inside("roi_heads.mask_head", MASK_PREDICTOR),
    "last layer of the mask head": _inside(f"{MASK_PREDICTOR}.mask_fcn_logits"),
    "last two layers of the mask head": _inside(
        f"{MASK_PREDICTOR}.conv5_mask", f"{MASK_PREDICTOR}.mask_fcn_logits"
    ),
    "neck and heads": _inside("backbone.fpn", "rpn", "roi_heads"),
}


@dataclass(frozen=True)
class Setting:
    """One way to count a model, and the exact count.

    ``counted`` is the name of a convention, or a sum of operations with the weights ``terms``. ``part`` names
    the left-out ``modules``. ``departures`` from the own convention of the model's tables measure simplicity:
    another convention, each changed summand, another input size and a left-out part count one each.
    """

    counted: str
    value: int
    input: InputSize
    departures: int
    terms: Mapping[Operation, int] | None = None
    part: str | None = None
    modules: tuple[str, ...] = ()
    plain: bool = False  # a named convention at the default input, for the whole model

    def as_json(self) -> dict[str, Any]:
        """Return an object with the keys of an explanation's evidence."""
        return {
            "count": None if self.terms else self.counted,
            "terms": self.terms and dict(self.terms),
            "input": list(self.input),
            "left_out": self.part,
            "without": list(self.modules),
            "value": self.value,
            "departures": self.departures,
            "plain": self.plain,
        }


def settings_of(
    name: str,
    own: Mapping[Quantity, Counter],
    default: Count,
    sizes: Sequence[InputSize],
    advance: Callable[[int], None] = lambda steps: None,
    skip_sizes: bool = False,
) -> dict[Quantity, list[Setting]]:
    """Count a model of the registry under every setting, the simplest first.

    Args:
        own: convention of the tables, by quantity.
        default: count at the default input, which knows fvcore's total.
        sizes: input sizes to search, which include the default one.
        skip_sizes: omit the sizes that the model cannot take.

    Raises:
        UsageError: unknown model, or an input size that the model cannot take.
    """
    network = create_on("meta", name)
    parts = _parts(network)
    found: dict[Quantity, list[Setting]] = {"params": [], "flops": []}
    for size in sizes:
        advance(1)
        try:
            inputs = sample(network, size)
            with counting(network, inputs, name):
                owns = count_calls(network, inputs)
        except UsageError:
            if not skip_sizes:
                raise
            continue
        at_default = size == default.input
        for part, modules in parts.items():
            kept = [own for path, own in owns.items() if not any(contains(each, path) for each in modules)]
            operations = {each: sum(own.operations[each] for own in kept) for each in get_args(Operation)}
            place = Setting("", 0, size, (not at_default) + (part is not None), part=part, modules=modules)
            fvcore = default.fvcore if at_default and part is None else None
            found["flops"] += _flops(operations, fvcore, own["flops"], place)
            if at_default:
                per_call = sum(own.per_call for own in kept)
                found["params"] += _params(network, per_call, own["params"], place)
    return {quantity: sorted(each, key=lambda item: item.departures) for quantity, each in found.items()}


def _parts(network: nn.Module) -> dict[str | None, tuple[str, ...]]:
    """Return the outermost modules of each part that the network has; None is the empty part."""
    parts: dict[str | None, tuple[str, ...]] = {None: ()}
    for name, belongs in PARTS.items():
        outermost: list[str] = []
        for path, module in network.named_modules():
            if path and belongs(path, module) and not any(contains(each, path) for each in outermost):
                outermost.append(path)
        if outermost:
            parts[name] = tuple(outermost)
    return parts


def _flops(
    operations: Mapping[Operation, int], fvcore: int | None, own: Counter, place: Setting
) -> Iterator[Setting]:
    for name, terms in SUMS.items():
        yield _named_setting(name, combine(operations, terms), own, place)
    if fvcore is not None:
        yield _named_setting("fvcore", fvcore, own, place)
    for terms, changes in operation_sums():
        yield replace(
            place,
            counted=" + ".join(f"{weight} {name}" if weight > 1 else name for name, weight in terms.items()),
            terms=terms,
            value=combine(operations, terms),
            departures=place.departures + 1 + changes,
        )


def operation_sums() -> Iterator[tuple[dict[Operation, int], int]]:
    """Yield weights of operations, and in how many summands the nearest convention has other weights.

    Multiply-adds count one or two operations, elements of batch norms none, one, two or four.
    """
    for macs, linear, bias, norm, relu, pool in product((1, 2), (1, 0), (0, 1), (0, 1, 2, 4), (0, 1), (0, 1)):
        once: dict[Operation, int] = {
            "conv": 1, "conv_bias": bias, "linear": linear, "batch_norm": norm, "relu": relu, "pool": pool
        }  # fmt: skip
        nearest = min(sum(once[each] != terms.get(each, 0) for each in once) for terms in SUMS.values())
        changes = nearest + (macs - 1)
        weights = once | {"conv": macs, "linear": macs * linear}
        if changes:
            yield {each: weight for each, weight in weights.items() if weight}, changes


def _params(network: nn.Module, per_call: int, own: Counter, place: Setting) -> Iterator[Setting]:
    def kept(path: str) -> bool:
        return not any(contains(each, path) for each in place.modules)

    parameters = [parameter for path, parameter in network.named_parameters() if kept(path)]
    statistics = sum(
        buffer.numel() for path, buffer in network.named_buffers() if "running" in path and kept(path)
    )
    params = sum(parameter.numel() for parameter in parameters)
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    for name, value in (("params", params), ("trainable", trainable), ("per_call", per_call)):
        yield _named_setting(name, value, own, place)
    departures = place.departures + 2
    yield replace(
        place, counted="params + running statistics", value=params + statistics, departures=departures
    )


def _named_setting(name: str, value: int, own: Counter, place: Setting) -> Setting:
    plain = not place.departures
    return replace(place, counted=name, value=value, departures=place.departures + (name != own), plain=plain)
