"""Res2Net: inside a block, groups of channels pass a chain of 3x3 convolutions.

Source: Gao et al., "Res2Net: A New Multi-scale Backbone Architecture", TPAMI 2021
(Res2Net/Res2Net-PretrainedModels), 26w x 4s: 26, 52, 104, 208 channels a group, four groups.
"""

import torch
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import BlockSpec, conv3x3, register_block


class HierarchicalConv(nn.Module):
    """Chained 3x3 convolutions over ``scale`` groups of channels: (N, C, H, W) to (N, C, H/s, W/s).

    The last group is passed on as it is. In a stage's first block nothing is chained: each convolution
    carries the stride, and the last group is average-pooled.
    """

    def __init__(self, group_width: int, scale: int, stride: int, first: bool) -> None:
        super().__init__()
        self.group_width = group_width
        self.convs = nn.ModuleList(conv3x3(group_width, group_width, stride) for _ in range(scale - 1))
        self.bns = nn.ModuleList(nn.BatchNorm2d(group_width) for _ in range(scale - 1))
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(3, stride=stride, padding=1) if first else None

    def forward(self, x: Tensor) -> Tensor:
        *groups, last = torch.split(x, self.group_width, dim=1)
        outputs: list[Tensor] = []
        for group, conv, bn in zip(groups, self.convs, self.bns, strict=True):
            chained = group if self.pool is not None or not outputs else group + outputs[-1]
            outputs.append(self.relu(bn(conv(chained))))
        outputs.append(last if self.pool is None else self.pool(last))
        return torch.cat(outputs, dim=1)


@register_block("res2net")
class Res2NetBottleneck(Bottleneck):
    def __init__(self, spec: BlockSpec, *, base_width: int = 26, scale: int = 4) -> None:
        group_width = spec.width * base_width // 64
        conv2 = HierarchicalConv(group_width, scale, spec.stride, first=spec.index == 0)
        super().__init__(spec, width=group_width * scale, conv2=conv2, norm2=False)
