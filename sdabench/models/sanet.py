"""SA-Net: in each of 64 groups one half gets channel attention, the other spatial attention.

Source: Zhang and Yang, "SA-Net: Shuffle Attention for Deep Convolutional Neural Networks", ICASSP 2021
(wofmanaf/SA-Net).
"""

import torch
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import BlockSpec, register_block

GROUPS = 64


class ShuffleAttention(nn.Module):
    """Gates (N, C, H, W) and shuffles its channels; the groups share all parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % (2 * GROUPS):
            raise ValueError(f"{channels} channels do not make {GROUPS} groups of two halves")
        half = channels // (2 * GROUPS)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.norm = nn.GroupNorm(half, half)
        self.channel_weight = nn.Parameter(torch.empty(1, half, 1, 1))
        self.channel_bias = nn.Parameter(torch.empty(1, half, 1, 1))
        self.spatial_weight = nn.Parameter(torch.empty(1, half, 1, 1))
        self.spatial_bias = nn.Parameter(torch.empty(1, half, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        samples, channels, height, width = x.shape
        grouped = x.reshape(samples * GROUPS, channels // GROUPS, height, width)
        of_channels, of_positions = grouped.chunk(2, dim=1)
        channel_gate = self.channel_weight * self.pool(of_channels) + self.channel_bias
        spatial_gate = self.spatial_weight * self.norm(of_positions) + self.spatial_bias
        halves = (of_channels * torch.sigmoid(channel_gate), of_positions * torch.sigmoid(spatial_gate))
        gated = torch.cat(halves, dim=1).reshape(samples, 2, channels // 2, height, width)
        return gated.transpose(1, 2).reshape(x.shape)

    def init_weights(self) -> None:
        """At first every gate is sigmoid(1)."""
        for weight in (self.channel_weight, self.spatial_weight):
            nn.init.zeros_(weight)
        for bias in (self.channel_bias, self.spatial_bias):
            nn.init.ones_(bias)


@register_block("sanet")
class SABottleneck(Bottleneck):
    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec, attention=ShuffleAttention(spec.out_channels))
