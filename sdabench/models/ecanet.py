"""ECANet: channel attention by one small convolution over the channels.

Source: Wang et al., "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks",
CVPR 2020 (BangguWu/ECANet). Its ResNet-50 was published with kernels 3, 5, 5 and 7 for the four stages; the
default of the released code is 3 in all stages.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import Attention, BlockSpec, register_block, stage_option


class EfficientChannelAttention(Attention):
    """Scale each channel of (N, C, H, W) by a gate of the global means of neighboring channels."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"a kernel of {kernel_size} channels has no center; use an odd size")
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x).flatten(2).transpose(1, 2)  # (N, 1, C)
        gate = torch.sigmoid(self.conv(pooled))
        return x * gate.transpose(1, 2)[..., None]


@register_block("ecanet")
class ECABottleneck(Bottleneck):
    """A bottleneck with efficient channel attention; ``kernel_sizes`` has one size per stage."""

    def __init__(self, spec: BlockSpec, *, kernel_sizes: Sequence[int]) -> None:
        kernel_size = stage_option(kernel_sizes, spec.stage, "kernel_sizes")
        super().__init__(spec, attention=EfficientChannelAttention(kernel_size))
