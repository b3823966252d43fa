"""ScaleNet: 3x3 convolutions at four scales, with as many channels each as were learnt from data.

Source: Li et al., "Data-Driven Neuron Allocation for Scale Aggregation Networks", CVPR 2019
(Eli-YiLi/ScaleNet). A stage's first block halves its input by a max pool, before branch and shortcut.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import BlockSpec, conv1x1, conv3x3, register_block

SCALES = (1, 2, 4, 7)


class ScaleAggregation(nn.Module):
    """Convolves shrunken copies of (N, C, H, W) and enlarges the results: (N, sum of ``widths``, H, W).

    ``widths`` are the channels at each of the scales; 0 leaves a branch out. At 224 pixels the last
    stage's map is 7x7, so that its smallest copy is one position, with a 1x1 convolution.
    """

    def __init__(self, channels: int, widths: Sequence[int], stage: int) -> None:
        super().__init__()
        self.convs = nn.ModuleDict()
        self.bns = nn.ModuleDict()
        for branch, width in enumerate(widths):
            if width:
                conv = conv1x1 if (stage, SCALES[branch]) == (4, 7) else conv3x3
                self.convs[str(branch)] = conv(channels, width)
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
    """Max pooling by ``scale``, or by the map's side where that is less."""
    window = [min(scale, side) for side in x.shape[2:]]
    return x if scale == 1 else F.max_pool2d(x, window)


def enlarge(x: Tensor, size: torch.Size) -> Tensor:
    """To ``size``: nearest if that is a multiple, bilinear if not, as the released code does."""
    if x.shape[2:] == size:
        return x
    divides = all(side % own == 0 for side, own in zip(size, x.shape[2:], strict=True))
    return F.interpolate(x, size, mode="nearest" if divides else "bilinear")


@register_block("scalenet")
class ScaleBottleneck(Bottleneck):
    """``allocation``: for each stage and block, the channels at each scale."""

    def __init__(self, spec: BlockSpec, *, allocation: Sequence[Sequence[Sequence[int]]]) -> None:
        widths = allocation[spec.stage - 1][spec.index]
        super().__init__(
            replace(spec, stride=1),
            conv2=ScaleAggregation(spec.width, widths, spec.stage),
            conv2_width=sum(widths),
            norm2=False,
        )
        self.pool = nn.MaxPool2d(spec.stride) if spec.stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pool(x))
