"""ScaleNet: 3x3 convolutions at four scales, whose numbers of channels were learned from data.

Source: Li et al., "Data-Driven Neuron Allocation for Scale Aggregation Networks", CVPR 2019
(Eli-YiLi/ScaleNet). The first block of a stage max-pools its input before branch and shortcut, so odd sides
are rounded down, and images need at least 32 pixels a side. A branch at 1/7 in the last stage would be a 1x1
convolution in the released code; the published allocation has none.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import BlockSpec, conv3x3, register_block, stage_option

SCALES = (1, 2, 4, 7)


class ScaleAggregation(nn.Module):
    """Convolve (N, C, H, W) at several scales and resize the results: (N, sum of ``widths``, H, W).

    ``widths`` are the channels at each scale; 0 omits a branch.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        if len(widths) != len(SCALES) or not any(widths):
            raise ValueError(f"{list(widths)} must be the channels of {len(SCALES)} scales, not all 0")
        self.convs = nn.ModuleDict()
        self.bns = nn.ModuleDict()
        for branch, width in enumerate(widths):
            if width:
                self.convs[str(branch)] = conv3x3(channels, width)
                self.bns[str(branch)] = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for branch, conv in self.convs.items():
            shrunken = conv(shrink(x, SCALES[int(branch)]))
            outputs.append(self.bns[branch](enlarge(shrunken, x.shape[2:])))
        combined: Tensor = self.relu(torch.cat(outputs, dim=1))
        return combined


def shrink(x: Tensor, scale: int) -> Tensor:
    """Max-pool by ``scale``, or by the side of the map if that is smaller."""
    window = [min(scale, side) for side in x.shape[2:]]
    return x if scale == 1 else F.max_pool2d(x, window)


def enlarge(x: Tensor, size: torch.Size) -> Tensor:
    """Resize to ``size``: nearest if that is a multiple, else bilinear, as in the released code."""
    if x.shape[2:] == size:
        return x
    divides = all(side % own == 0 for side, own in zip(size, x.shape[2:], strict=True))
    return F.interpolate(x, size, mode="nearest" if divides else "bilinear")


@register_block("scalenet")
class ScaleBottleneck(Bottleneck):
    """A bottleneck with scale aggregation; ``allocation`` has the channels per stage, block and scale."""

    def __init__(self, spec: BlockSpec, *, allocation: Sequence[Sequence[Sequence[int]]]) -> None:
        blocks = stage_option(allocation, spec.stage, "allocation")
        if len(blocks) != spec.depth:
            raise ValueError(f"allocation: {len(blocks)} blocks, but stage {spec.stage} has {spec.depth}")
        widths = blocks[spec.index]
        super().__init__(
            replace(spec, stride=1),
            conv2=ScaleAggregation(spec.width, widths),
            conv2_width=sum(widths),
            norm2=False,
        )
        self.pool = nn.MaxPool2d(spec.stride) if spec.stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pool(x))
