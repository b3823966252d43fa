"""A2-Net: one attention gathers features from all positions, a second one distributes them.

Source: Chen et al., "A2-Nets: Double Attention Networks", NeurIPS 2018. No two-dimensional code was
released. sdabench adds five double-attention blocks on ResNet-50, after every second
residual block of stages 2 and 3. Each of the three maps has C / 2 channels, which gives the numbers closest
to the paper's (d-li14/dot-product-attention has C / 4).
"""

import torch
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import Attention, BlockSpec, conv1x1, register_block


class DoubleAttention(Attention):
    """Add attended global features to each position: (N, C, H, W) to (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.features = conv1x1(channels, hidden)
        self.gather = conv1x1(channels, hidden)
        self.distribute = conv1x1(channels, hidden)
        self.expand = conv1x1(hidden, channels)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x).flatten(2)  # (N, C/2, HW), as the next two
        gathering = self.gather(x).flatten(2).softmax(dim=2)
        distribution = self.distribute(x).flatten(2).softmax(dim=1)
        descriptors = torch.matmul(features, gathering.transpose(1, 2))  # (N, C/2, C/2)
        spread = torch.matmul(descriptors, distribution).reshape(features.shape[:2] + x.shape[2:])
        added: Tensor = x + self.bn(self.expand(spread))
        return added


@register_block("a2net")
class A2Bottleneck(Bottleneck):
    """A residual block, with double attention on its activated output in every second block.

    No ReLU follows, except after depth attention.
    """

    def __init__(self, spec: BlockSpec, *, stride_in_1x1: bool = False) -> None:
        super().__init__(spec, stride_in_1x1=stride_in_1x1)
        attended = spec.stage in (2, 3) and spec.index % 2 == 1
        self.double_attention = DoubleAttention(spec.out_channels) if attended else None

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        if self.double_attention is None:
            return x
        attended: Tensor = self.double_attention(x if self.activate else self.relu(x))
        return attended
