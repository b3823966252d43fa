"""SENet: channel attention from globally pooled features.

Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, as in the SDA-xNet authors' code
(``SDA-SENet/models/senet/se_resnet.py``): the two linear layers have biases. That code pools with fixed
windows for 224x224 inputs; here the pooling is global at every size.
"""

import torch
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import Attention, BlockSpec, register_block


class SqueezeExcitation(Attention):
    """Scale the channels of (N, C, H, W) by a sigmoid gate of their global means, or of ``pool``."""

    def __init__(
        self, channels: int, reduction: int = 16, bias: bool = True, pool: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1) if pool is None else pool
        self.fc1 = nn.Linear(channels, channels // reduction, bias=bias)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Linear(channels // reduction, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.pool(x).flatten(1)
        gate = torch.sigmoid(self.fc2(self.relu(self.fc1(squeezed))))
        return x * gate[:, :, None, None]


@register_block("senet")
class SEBottleneck(Bottleneck):
    def __init__(self, spec: BlockSpec, *, reduction: int = 16, bias: bool = True) -> None:
        super().__init__(spec, attention=SqueezeExcitation(spec.out_channels, reduction, bias))
