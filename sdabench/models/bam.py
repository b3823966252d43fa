"""BAM: attention between stages, as the product of a channel gate and a spatial gate.

Source: Park et al., "BAM: Bottleneck Attention Module", BMVC 2018 (Jongchan/attention-module), after stages
1 to 3. The BAM paper adds the two gates; this follows the released code, which multiplies them.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from sdabench.models.skeleton import Attention, StageSpec, conv_bn, register_stage


class BottleneckAttention(Attention):
    """Compute x (1 + sigmoid(channel gate * spatial gate)) for x (N, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 16, dilation: int = 4) -> None:
        super().__init__()
        hidden = channels // reduction
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.channel = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels),
        )
        self.spatial = nn.Sequential(
            conv_bn(nn.Conv2d(channels, hidden, 1), activate=True),
            conv_bn(nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation), activate=True),
            conv_bn(nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation), activate=True),
            nn.Conv2d(hidden, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        channel_gate = self.channel(self.pool(x).flatten(1))[:, :, None, None]
        return x * (1 + torch.sigmoid(channel_gate * self.spatial(x)))


@register_stage("bam")
def bam_stage(spec: StageSpec) -> nn.Module:
    """Build the blocks of a stage, and attention after them except in the last stage."""
    blocks = spec.chain()
    if spec.stage == 4:
        return blocks
    return nn.Sequential(
        OrderedDict(blocks=blocks, bottleneck_attention=BottleneckAttention(spec.out_channels))
    )
