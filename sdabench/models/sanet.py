"""SA-Net: channel attention for one half of each of 64 groups, spatial attention for the other.

Source: Zhang and Yang, "SA-Net: Shuffle Attention for Deep Convolutional Neural Networks", ICASSP 2021
(wofmanaf/SA-Net).
"""

import torch
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import Attention, BlockSpec, register_block

GROUPS = 64


class ShuffleAttention(Attention):
    """Gate (N, C, H, W) and shuffle its channels; the groups share all parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % (2 * GROUPS):
            raise ValueError(f"{channels} channels cannot be split into {GROUPS} groups of two halves")
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
        channel_half, spatial_half = grouped.chunk(2, dim=1)
        channel_gate = self.channel_weight * self.pool(channel_half) + self.channel_bias
        spatial_gate = self.spatial_weight * self.norm(spatial_half) + self.spatial_bias
        halves = (channel_half * torch.sigmoid(channel_gate), spatial_half * torch.sigmoid(spatial_gate))
        gated = torch.cat(halves, dim=1).reshape(samples, 2, channels // 2, height, width)
        return gated.transpose(1, 2).reshape(x.shape)

    def init_weights(self) -> None:
        """Initialize every gate to sigmoid(1)."""
        for weight in (self.channel_weight, self.spatial_weight):
            nn.init.zeros_(weight)
        for bias in (self.channel_bias, self.spatial_bias):
            nn.init.ones_(bias)


@register_block("sanet")
class SABottleneck(Bottleneck):
    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec, attention=ShuffleAttention(spec.out_channels))
