"""VarNet: channel attention from how much a channel varies over the image."""

import torch
from torch import Tensor, nn

from sdabench.models import Attention, BlockSpec, Bottleneck, register_block


class VarianceGate(Attention):
    """Scale each channel of (N, C, H, W) by a gate computed from its variance over the positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        variance = x.var(dim=(2, 3), keepdim=True, correction=0)
        return x * torch.sigmoid(self.gate(variance))


@register_block("varnet")
class VarBottleneck(Bottleneck):
    """A bottleneck whose output channels are gated by their variances."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec, attention=VarianceGate(spec.out_channels))
