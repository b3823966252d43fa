"""Res2Net: groups of channels pass through a chain of 3x3 convolutions inside a block.

Source: Gao et al., "Res2Net: A New Multi-scale Backbone Architecture", TPAMI 2021
(Res2Net/Res2Net-PretrainedModels), 26w x 4s: four groups of 26, 52, 104 and 208 channels. Detectors use
mmdetection's "v1b" as backbone: a stem of three 3x3 convolutions, a shortcut that is average-pooled by the
stride, and no pooling of the last group where the stride is 1.
"""

import torch
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import BlockSpec, conv1x1, conv3x3, conv_bn, register_block, register_stem


class HierarchicalConv(nn.Module):
    """Chained 3x3 convolutions over ``scale`` groups of channels: (N, C, H, W) to (N, C, H/s, W/s).

    The last group is unchanged. In the ``first`` block of a stage the groups are independent: each
    convolution has the stride, and the last group is average-pooled, also at stride 1 if ``pool``.
    """

    def __init__(self, group_width: int, scale: int, stride: int, first: bool, pool: bool = True) -> None:
        super().__init__()
        self.group_width = group_width
        self.convs = nn.ModuleList(conv3x3(group_width, group_width, stride) for _ in range(scale - 1))
        self.bns = nn.ModuleList(nn.BatchNorm2d(group_width) for _ in range(scale - 1))
        self.relu = nn.ReLU(inplace=True)
        self.chained = not first
        pooled = first and (pool or stride > 1)
        self.pool = nn.AvgPool2d(3, stride=stride, padding=1) if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        *groups, last = torch.split(x, self.group_width, dim=1)
        outputs: list[Tensor] = []
        for group, conv, bn in zip(groups, self.convs, self.bns, strict=True):
            chained = group + outputs[-1] if self.chained and outputs else group
            outputs.append(self.relu(bn(conv(chained))))
        outputs.append(last if self.pool is None else self.pool(last))
        return torch.cat(outputs, dim=1)


@register_block("res2net")
class Res2NetBottleneck(Bottleneck):
    def __init__(
        self,
        spec: BlockSpec,
        *,
        base_width: int = 26,
        scale: int = 4,
        pool_at_stride_1: bool = True,
        pooled_shortcut: bool = False,
    ) -> None:
        group_width = spec.width * base_width // 64
        first = spec.index == 0
        conv2 = HierarchicalConv(group_width, scale, spec.stride, first, pool_at_stride_1)
        shortcut = pooled_projection(spec) if pooled_shortcut and first else None
        super().__init__(spec, width=group_width * scale, conv2=conv2, norm2=False, downsample=shortcut)


def pooled_projection(spec: BlockSpec) -> nn.Sequential:
    """Build the shortcut of the first block of a stage: average pooling, then a 1x1 convolution."""
    pool = nn.AvgPool2d(spec.stride, spec.stride, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(pool, *conv_bn(conv1x1(spec.in_channels, spec.out_channels)))


@register_stem("deep")
def three_convs(in_chans: int, width: int) -> nn.Module:
    """Build 3x3 convolutions with strides 2, 1 and 1, the first two of which have half the channels."""
    narrow = width // 2
    return nn.Sequential(
        *conv_bn(conv3x3(in_chans, narrow, 2), activate=True),
        *conv_bn(conv3x3(narrow, narrow), activate=True),
        conv3x3(narrow, width),
    )
