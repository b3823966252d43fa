"""GSoP-Net1: channel attention from the covariance of channels, in the last block of a stage.

Source: Gao et al., "Global Second-order Pooling Convolutional Networks", CVPR 2019
(ZilinGao/Global-Second-order-Pooling-Convolutional-Networks). The last stage keeps the resolution of the
third. Options select the stages with the module and the convolution with the stride, because the released
script and the paper's numbers differ in both.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import Attention, BlockSpec, register_block


class SecondOrderPooling(Attention):
    """Scale the channels of (N, C, H, W) by a gate of the covariances of ``hidden`` mixtures of them."""

    def __init__(self, channels: int, stride: int, hidden: int = 128) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.reduce = nn.Conv2d(channels, hidden, 1, stride=stride)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.rows = nn.Conv2d(hidden, 4 * hidden, (hidden, 1), groups=hidden)
        self.expand = nn.Conv2d(4 * hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mixtures = self.relu(self.bn1(self.reduce(self.relu(x)))).flatten(2)  # (N, hidden, HW)
        centered = mixtures - mixtures.mean(dim=2, keepdim=True)
        # divide first, so that half precision does not overflow
        covariance = torch.matmul(centered / centered.shape[2], centered.transpose(1, 2))
        # Each row of the covariance becomes a channel with a column of 128 positions.
        gate = torch.sigmoid(self.expand(self.rows(self.bn2(covariance[..., None]))))
        return x * gate


@register_block("gsop")
class GSoPBottleneck(Bottleneck):
    """A bottleneck with second-order pooling in the last block of each of ``stages``."""

    def __init__(self, spec: BlockSpec, *, stages: Sequence[int], stride_in_1x1: bool) -> None:
        if not set(stages) <= {1, 2, 3, 4}:
            raise ValueError(f"stages {list(stages)} must be within 1 to 4")
        attention = None
        if spec.stage in stages and spec.index == spec.depth - 1:
            attention = SecondOrderPooling(spec.out_channels, stride=2 if spec.stage == 1 else 1)
        super().__init__(spec, stride_in_1x1=stride_in_1x1, attention=attention)
