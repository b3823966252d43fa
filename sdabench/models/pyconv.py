"""PyConv: the 3x3 convolution becomes a pyramid of kernels of 3 to 9 with growing groups.

Source: Duta et al., "Pyramidal Convolution: Rethinking Convolutional Neural Networks for Visual
Recognition", 2020 (iduta/pyconv). The stem has no max pool: all four stages start with stride 2, and the
first shortcut of a stage max-pools before its 1x1 convolution. The registry declares the pyramid of each
stage, which is wider and has more groups in the "HG" networks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck, projection
from sdabench.models.skeleton import BlockSpec, register_block, stage_option

KERNELS = (3, 5, 7, 9)


class PyramidalConv(nn.Module):
    """Parallel convolutions of one input, (N, C, H, W), concatenated to (N, C, H/stride, W/stride).

    A pyramid of n levels has the n smallest kernels of 3, 5, 7 and 9; the largest one has the remaining
    channels.
    """

    def __init__(self, channels: int, stride: int, groups: Sequence[int]) -> None:
        super().__init__()
        share = channels // (4 if len(groups) > 2 else 2)
        widths = [share] * (len(groups) - 1)
        widths.append(channels - sum(widths))
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, groups=group, bias=False)
            for width, kernel, group in zip(widths, KERNELS, groups, strict=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([conv(x) for conv in self.convs], dim=1)


@register_block("pyconv")
class PyConvBottleneck(Bottleneck):
    """A bottleneck with a pyramidal convolution; ``pyramids`` has the groups of each level per stage."""

    def __init__(self, spec: BlockSpec, *, pyramids: Sequence[Sequence[int]]) -> None:
        pool = nn.MaxPool2d(3, stride=spec.stride, padding=1)
        super().__init__(
            spec,
            conv2=PyramidalConv(spec.width, spec.stride, stage_option(pyramids, spec.stage, "pyramids")),
            downsample=nn.Sequential(pool, *projection(spec, stride=1)),
        )
