"""The skeleton of all families: stem, four stages of blocks, optional depth attention, head.

A family adds only the component that differs, usually its block. The components, depths and widths are
declared in ``registry/models/*.yaml`` (:class:`sdabench.registry.schema.Network`).
"""

import pkgutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

import sdabench.models
from sdabench.models.depth_attention import (
    DepthAttentionStage,
    DepthWeights,
    LearnedWeights,
    recorded_depth_weights,
)
from sdabench.models.plugin_code import file_of_code, import_plugins
from sdabench.registry import unknown

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class BlockSpec:
    """Arguments of a block: its shape and its place in the model.

    ``activate`` is False if the block has to omit its last ReLU, as in a stage with depth attention.
    """

    in_channels: int
    width: int
    out_channels: int
    stride: int
    stage: int  # 1 to 4
    index: int = 0  # of the block in its stage; block 0 changes resolution and channels
    depth: int = 1  # blocks of its stage
    activate: bool = True


BlockFactory = Callable[[BlockSpec], nn.Module]
DepthWeightsFactory = Callable[[int, int], DepthWeights]  # from channels and depth of a stage


@dataclass(frozen=True)
class StageSpec:
    """Arguments of a stage of ``depth`` blocks: (N, in, H, W) to (N, out, H/stride, W/stride).

    ``fused`` states whether depth attention fuses the blocks, with the weights of ``depth_weights``.
    """

    block: BlockFactory
    depth: int
    in_channels: int
    width: int
    out_channels: int
    stride: int
    stage: int  # 1 to 4
    fused: bool
    depth_weights: DepthWeightsFactory = LearnedWeights

    def chain(self, *, activate: bool = True) -> nn.Sequential:
        """Build the chain of blocks, fused if requested; ``activate=False`` omits the last ReLU."""
        blocks = [
            self.block(
                BlockSpec(
                    in_channels=self.out_channels if index else self.in_channels,
                    width=self.width,
                    out_channels=self.out_channels,
                    stride=1 if index else self.stride,
                    stage=self.stage,
                    index=index,
                    depth=self.depth,
                    activate=not self.fused and (activate or index < self.depth - 1),
                )
            )
            for index in range(self.depth)
        ]
        if self.fused:
            weights = self.depth_weights(self.out_channels, self.depth)
            return DepthAttentionStage(blocks, weights, activate)
        return nn.Sequential(*blocks)


class ComponentRegistry(Generic[F]):
    """Components of one kind by name; the files of the families register them."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._known: dict[str, F] = {}

    def register(self, name: str) -> Callable[[F], F]:
        """Register a component under ``name``; a decorator. A name that is taken is a ValueError."""

        def decorate(component: F) -> F:
            if (known := self._known.setdefault(name, component)) is not component:
                files = f"by {file_of_code(known)} and by {file_of_code(component)}"
                raise ValueError(f"{self.kind} '{name}' is registered twice: {files}; rename one of them")
            return component

        return decorate

    def __getitem__(self, name: str) -> F:
        _import_families()
        if not getattr(self._known.get(name), "__module__", "").startswith("sdabench.models."):
            import_plugins(_forget)  # which also forgets those that are not active any more
        if name not in self._known:
            listing = f"choose from {', '.join(sorted(self._known))}"
            raise ValueError(unknown(self.kind, name, self._known, listing))
        return self._known[name]

    def forget(self, modules: Collection[str]) -> None:
        """Remove the components that these modules define."""
        self._known = {
            name: each for name, each in self._known.items() if getattr(each, "__module__", "") not in modules
        }


def _forget(modules: Collection[str]) -> None:
    for registry in (BLOCKS, STAGES, STEMS, STEM_POOLS):
        registry.forget(modules)


@cache
def _import_families() -> None:
    for module in pkgutil.iter_modules(sdabench.models.__path__):
        import_module(f"sdabench.models.{module.name}")


StageFactory = Callable[[StageSpec], nn.Module]
StemFactory = Callable[[int, int], nn.Module]  # from input channels and output channels
StemPoolFactory = Callable[[int], nn.Module]  # from the number of channels
BLOCKS: ComponentRegistry[Callable[..., nn.Module]] = ComponentRegistry("block")  # (spec, **options)
STAGES: ComponentRegistry[StageFactory] = ComponentRegistry("stage")
STEMS: ComponentRegistry[StemFactory] = ComponentRegistry("stem")  # halves the resolution
STEM_POOLS: ComponentRegistry[StemPoolFactory] = ComponentRegistry("stem pool")  # halves the resolution
register_block, register_stage = BLOCKS.register, STAGES.register
register_stem, register_stem_pool = STEMS.register, STEM_POOLS.register

HEAD = ("head_norm.", "fc.")  # key prefixes of the head


@register_stage("plain")
def plain_stage(spec: StageSpec) -> nn.Module:
    return spec.chain()


@register_stem("plain")
def conv7x7(in_chans: int, width: int) -> nn.Module:
    return nn.Conv2d(in_chans, width, 7, stride=2, padding=3, bias=False)


@register_stem_pool("max")
def max_pool(channels: int) -> nn.Module:
    return nn.MaxPool2d(3, stride=2, padding=1)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)


def conv_bn(conv: nn.Conv2d, activate: bool = False) -> nn.Sequential:
    """Chain a convolution, its batch norm and optionally a ReLU."""
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(conv.out_channels)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if activate else []))


def stage_option(values: Sequence[T], stage: int, option: str) -> T:
    """Select the entry for a stage (1 to 4) from an option with one entry per stage."""
    if len(values) != 4:
        raise ValueError(f"{option} has {len(values)} entries, but there are four stages")
    return values[stage - 1]


class Attention(nn.Module):
    """Base class of attention: a map (N, C, H, W) to a map, linear in it apart from weights computed from it.

    Training with ``check_network`` checks that these weights follow from the sample's own map and from every
    parameter, and that their gradients are right; see :mod:`sdabench.training.soundness`. Parameters
    ``without_effect`` cancel out, such as a bias before a softmax over positions.
    """

    without_effect: ClassVar[tuple[str, ...]] = ()


class Trunk(nn.Module):
    """Stem and stages: (N, in_chans, H, W) to four maps, mostly of strides 4, 8, 16 and 32.

    The sequences have one value for each stage. The blocks of a stage have the inner width ``width`` and
    output ``width * expansion`` channels; the first of them has the stride. ``stem`` builds the convolutions
    before the first batch norm, which have ``stem_width`` output channels, and ``stem_pool`` the module after
    the stem. ``depth_attention`` builds what weights the blocks of the stages that it fuses, None for other
    stages. ``out_indices`` are the stages (0 to 3) whose maps are returned.
    """

    model_name: str | None = None  # registry name; set by create_model

    def __init__(
        self,
        block: BlockFactory,
        depths: Sequence[int],
        *,
        stage: StageFactory = plain_stage,
        widths: Sequence[int] = (64, 128, 256, 512),
        expansion: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        stem: StemFactory = conv7x7,
        stem_width: int = 64,
        stem_pool: StemPoolFactory | None = max_pool,
        depth_attention: Sequence[DepthWeightsFactory | None] = (None, None, None, None),
        in_chans: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
    ) -> None:
        super().__init__()
        self.out_indices = tuple(out_indices)
        self.conv1 = stem(in_chans, stem_width)
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.stem_pool = stem_pool(stem_width) if stem_pool else nn.Identity()

        channels, reduction = stem_width, 4 if stem_pool else 2
        self._stages: list[dict[str, Any]] = []
        plan = zip(depths, widths, strides, depth_attention, strict=True)
        for number, (depth, width, stride, weights) in enumerate(plan, start=1):
            fused = weights is not None
            spec = StageSpec(block, depth, channels, width, width * expansion, stride, number, fused)
            spec = spec if weights is None else replace(spec, depth_weights=weights)
            channels, reduction = spec.out_channels, reduction * stride
            name = f"layer{number}"
            self.add_module(name, stage(spec))
            self._stages.append({"num_chs": channels, "reduction": reduction, "module": name})
        self.num_features = channels
        init_weights(self)

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Channels, stride and module name of each returned map, as in timm."""
        return [self._stages[index] for index in self.out_indices]

    def depth_attention_weights(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the weights of the blocks of each fused stage for images (N, in_chans, H, W).

        The mode of the network, and whether gradients are recorded, are the caller's: use ``eval()`` and
        ``torch.no_grad()`` to inspect a trained network.

        Returns:
            Weights (N, blocks, C) by stage (``layer1`` to ``layer4``), which sum to 1 over the blocks; empty
            without depth attention.
        """
        with recorded_depth_weights(self) as weights:
            self.forward_maps(x)
        return weights

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        """Return the output of every stage, after its last ReLU."""
        x = self.stem_pool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for stage in self._stages:
            x = self.get_submodule(stage["module"])(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Any:
        maps = self.forward_maps(x)
        return [maps[index] for index in self.out_indices]


class ResNet(Trunk):
    """A trunk with a classification head: (N, in_chans, H, W) to logits (N, num_classes).

    With ``head_norm`` a batch norm precedes the classifier; by default it does with depth attention, as in
    the authors' code.
    """

    def __init__(
        self,
        *args: Any,
        num_classes: int = 1000,
        fc_init: str = "default",
        head_norm: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if head_norm is None:
            head_norm = any(isinstance(module, DepthAttentionStage) for module in self.modules())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.head_norm = nn.BatchNorm2d(self.num_features) if head_norm else nn.Identity()
        self.fc: nn.Module
        self.reset_classifier(num_classes)
        if fc_init == "kaiming" and num_classes:
            nn.init.kaiming_normal_(self.fc.weight)
            nn.init.zeros_(self.fc.bias)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier; with 0 classes the output is the pooled features."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the map of the last stage, usually (N, num_features, H/32, W/32)."""
        return self.forward_maps(x)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute logits from the last map, or the features (N, num_features) with ``pre_logits``."""
        x = torch.flatten(self.head_norm(self.avgpool(x)), 1)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def init_weights(network: nn.Module) -> None:
    """Initialize convolutions with Kaiming normal (fan out), and batch norms with weight 1 and bias 0.

    Other layers keep PyTorch's initialization. The ``init_weights`` methods of modules run last.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if callable(own := getattr(module, "init_weights", None)):
            own()
