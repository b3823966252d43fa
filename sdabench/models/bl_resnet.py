"""bL-ResNet: deep blocks at half resolution beside a shallow, narrow branch at full resolution.

Source: Chen et al., "Big-Little Net: An Efficient Multi-Scale Feature Representation for Visual and
Speech Recognition", ICLR 2019 (IBM/BigLittleNet), with alpha 2 and beta 4. The block that merges two
branches has the stride of the next stage. In the released code it is the last block of a stage; here it is
the first block of the next one, so that the maps have strides 4, 8, 16 and 32. Depth attention fuses the
big branches and the last stage.
"""

from collections import OrderedDict
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import (
    BlockSpec,
    StageSpec,
    conv1x1,
    conv3x3,
    conv_bn,
    register_block,
    register_stage,
    register_stem_pool,
)

ALPHA = 2  # reduction of channels in the little branch
BETA = 4  # reduction of blocks in the little branch


@register_block("big_little")
class BigLittleBottleneck(Bottleneck):
    """A bottleneck whose shortcut has average pooling by the stride, and a projection to other channels."""

    def __init__(self, spec: BlockSpec) -> None:
        shortcut = nn.Sequential()
        if spec.stride > 1:
            shortcut.append(nn.AvgPool2d(3, spec.stride, padding=1))
        if spec.in_channels != spec.out_channels:
            shortcut.extend(conv_bn(conv1x1(spec.in_channels, spec.out_channels)))
        super().__init__(spec, downsample=shortcut)

    def init_weights(self) -> None:
        """Initialize the residual branch to zero, so that the block is its shortcut."""
        nn.init.zeros_(self.bn3.weight)


@register_stem_pool("big_little")
class BigLittlePool(nn.Module):
    """Halve the resolution of (N, C, H, W) with two branches instead of a max pool."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // ALPHA
        self.big = conv_bn(conv3x3(channels, channels, 2))
        self.little = nn.Sequential(
            conv_bn(conv3x3(channels, narrow), activate=True),
            conv_bn(conv3x3(narrow, narrow, 2), activate=True),
            conv_bn(conv1x1(narrow, channels)),
        )
        self.relu = nn.ReLU(inplace=True)
        self.merge = conv_bn(conv1x1(channels, channels), activate=True)

    def forward(self, x: Tensor) -> Tensor:
        merged: Tensor = self.merge(self.relu(self.big(x) + self.little(x)))
        return merged


class BigLittle(nn.Module):
    """All but one block of a stage at half resolution, beside the little branch at full resolution."""

    def __init__(self, spec: StageSpec) -> None:
        super().__init__()
        if spec.depth < 2:
            raise ValueError(f"stage {spec.stage} needs at least two blocks, because one merges its branches")
        self.big = replace(spec, depth=spec.depth - 1, stride=2).chain(activate=False)
        narrow = replace(
            spec,
            depth=max(spec.depth // BETA - 1, 1),
            width=spec.width // ALPHA,
            out_channels=spec.out_channels // ALPHA,
            stride=1,
            fused=False,
        )
        self.little = nn.Sequential(narrow.chain(), conv_bn(conv1x1(narrow.out_channels, spec.out_channels)))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        little = self.little(x)
        summed: Tensor = self.relu(F.interpolate(self.big(x), little.shape[2:]) + little)
        return summed


@register_stage("big_little")
def big_little_stage(spec: StageSpec) -> nn.Module:
    """Build the merge of the previous branches, and two branches, or plain blocks in stage 4."""
    if spec.stage == 1:
        if spec.stride != 1:
            raise ValueError("the first big-little stage keeps the resolution: its stride must be 1")
        return BigLittle(spec)
    last = spec.stage == 4
    merge = BlockSpec(
        in_channels=spec.in_channels,
        width=spec.width * spec.in_channels // spec.out_channels,
        out_channels=spec.in_channels,
        stride=1 if last else spec.stride,
        stage=spec.stage,
    )
    rest = {"blocks": spec.chain()} if last else {"branches": BigLittle(spec)}
    return nn.Sequential(OrderedDict(merge=spec.block(merge), **rest))
