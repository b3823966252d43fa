"""The skeleton that every family shares: stem, four stages of blocks, optional depth attention, head.

A family brings the part in which it differs, most often its block; which parts, how many and how wide
is declared in ``registry/models/*.yaml`` (:class:`sdabench.registry.schema.Network`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sdabench.models.depth_attention import DepthAttentionStage
from sdabench.models.parts import Parts

T = TypeVar("T")


@dataclass(frozen=True)
class BlockSpec:
    """What a block is told about its place in the network.

    ``activate`` is False where the block's output is wanted before its last ReLU: inside a stage that
    depth attention fuses.
    """

    in_channels: int
    width: int
    out_channels: int
    stride: int
    stage: int  # 1 to 4
    index: int = 0  # 0 for the block that changes resolution and channels
    depth: int = 1  # blocks of its stage
    activate: bool = True


BlockFactory = Callable[[BlockSpec], nn.Module]


@dataclass(frozen=True)
class StageSpec:
    """What a stage is told: (N, in, H, W) to (N, out, H/stride, W/stride), of ``depth`` blocks in all."""

    block: BlockFactory
    depth: int
    in_channels: int
    width: int
    out_channels: int
    stride: int
    stage: int  # 1 to 4
    fused: bool  # by depth attention

    def chain(self, *, activate: bool = True) -> nn.Sequential:
        """The blocks in a chain, fused if they shall be; ``activate=False`` leaves out the last ReLU."""
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
            return DepthAttentionStage(blocks, self.out_channels, activate)
        return nn.Sequential(*blocks)


StageFactory = Callable[[StageSpec], nn.Module]
BLOCKS: Parts[Callable[..., nn.Module]] = Parts("block")  # (spec, **options)
STAGES: Parts[StageFactory] = Parts("stage")  # (spec)
STEMS: Parts[Callable[[int], nn.Module]] = Parts("stem")  # (in_chans), to 64 channels, halves the resolution
STEM_POOLS: Parts[Callable[[int], nn.Module]] = Parts("stem pool")  # (channels), halves it again
register_block, register_stage = BLOCKS.register, STAGES.register
register_stem, register_stem_pool = STEMS.register, STEM_POOLS.register

HEAD = ("head_norm.", "fc.")  # keys of a classifier that its trunk lacks


@register_stage("plain")
def plain_stage(spec: StageSpec) -> nn.Module:
    return spec.chain()


@register_stem("plain")
def conv7x7(in_chans: int) -> nn.Module:
    return nn.Conv2d(in_chans, 64, 7, stride=2, padding=3, bias=False)


@register_stem_pool("max")
def max_pool(channels: int) -> nn.Module:
    return nn.MaxPool2d(3, stride=2, padding=1)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)


def normalised(conv: nn.Conv2d, activate: bool = False) -> nn.Sequential:
    """A convolution, its batch norm and, if it is to be, a ReLU."""
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(conv.out_channels)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if activate else []))


def of_stage(values: Sequence[T], stage: int, option: str) -> T:
    """What an option with an entry for each stage says of this one.

    Raises:
        ValueError: it has not four entries.
    """
    if len(values) != 4:
        raise ValueError(f"{option} has {len(values)} entries, for four stages")
    return values[stage - 1]


class Trunk(nn.Module):
    """Stem and stages: (N, in_chans, H, W) to four maps, mostly of strides 4, 8, 16 and 32.

    Args:
        block: builds one block from a :class:`BlockSpec`.
        depths: blocks in each stage.
        stage: builds one stage from a :class:`StageSpec`.
        widths: inner width of the blocks of each stage; a stage puts out ``width * expansion`` channels.
        strides: stride of each stage's first block.
        stem: builds the convolution, or several, before the first batch norm.
        stem_pool: builds what halves the resolution after the stem, if anything does.
        depth_attention: for each stage, whether its blocks are fused by depth attention.
        out_indices: which stages (0 to 3) :meth:`forward` returns.
    """

    model_name: str | None = None  # in the registry; set by create_model

    def __init__(
        self,
        block: BlockFactory,
        depths: Sequence[int],
        *,
        stage: StageFactory = plain_stage,
        widths: Sequence[int] = (64, 128, 256, 512),
        expansion: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        stem: Callable[[int], nn.Module] = conv7x7,
        stem_pool: Callable[[int], nn.Module] | None = max_pool,
        depth_attention: Sequence[bool] = (False, False, False, False),
        in_chans: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
    ) -> None:
        super().__init__()
        self.out_indices = tuple(out_indices)
        self.conv1 = stem(in_chans)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.stem_pool = stem_pool(64) if stem_pool else nn.Identity()

        channels, reduction = 64, 4 if stem_pool else 2
        self._stages: list[dict[str, Any]] = []
        plan = zip(depths, widths, strides, depth_attention, strict=True)
        for number, (depth, width, stride, fused) in enumerate(plan, start=1):
            spec = StageSpec(block, depth, channels, width, width * expansion, stride, number, fused)
            channels, reduction = spec.out_channels, reduction * stride
            name = f"layer{number}"
            self.add_module(name, stage(spec))
            self._stages.append({"num_chs": channels, "reduction": reduction, "module": name})
        self.num_features = channels
        init_weights(self)

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Channels, stride and module name of each map that ``features_only`` returns, as in timm."""
        return [self._stages[index] for index in self.out_indices]

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        """The output of every stage, after its last ReLU."""
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
    """A trunk and its head: (N, in_chans, H, W) to logits (N, num_classes).

    With depth attention the pooled features pass a batch norm before the classifier, as in the
    authors' code.
    """

    def __init__(self, *args: Any, num_classes: int = 1000, fc_init: str = "default", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fused = any(isinstance(module, DepthAttentionStage) for module in self.modules())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.head_norm = nn.BatchNorm2d(self.num_features) if fused else nn.Identity()
        self.fc: nn.Module
        self.reset_classifier(num_classes)
        if fc_init == "kaiming" and num_classes:
            nn.init.kaiming_normal_(self.fc.weight)
            nn.init.zeros_(self.fc.bias)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one; 0 classes leaves the pooled features."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """The last stage's map, (N, num_features, H/32, W/32) where its stride is 32."""
        return self.forward_maps(x)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """From the last map to logits, or with ``pre_logits`` to the features (N, num_features)."""
        x = torch.flatten(self.head_norm(self.avgpool(x)), 1)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def init_weights(network: nn.Module) -> None:
    """Kaiming normal (fan out) for convolutions, 1 and 0 for batch norms, PyTorch's default for the rest.

    A module with an ``init_weights`` method has the last word on its own parameters.
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
