"""EPSANet: a pyramid of grouped convolutions whose branches are weighted by attention.

Source: Zhang et al., "EPSANet: An Efficient Pyramid Squeeze Attention Block on Convolutional Neural
Network", ACCV 2022 (murufeng/EPSANet, "Small"). As in the released code, the branches are concatenated in
reverse order (4, 3, 2, 1), so that its weights can be loaded.
"""

import torch
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import Attention, BlockSpec, register_block

KERNELS = (3, 5, 7, 9)
GROUPS = (1, 4, 8, 16)


class BranchGate(nn.Module):
    """Squeeze-and-excitation gate of one branch: (N, C, H, W) to (N, C, 1, 1), from 0 to 1."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.fc2(self.relu(self.fc1(self.pool(x)))))


class PyramidSqueezeAttention(Attention):
    """Four convolutions of one input, weighted by a softmax over branches: (N, C, H, W) to (N, C, H/s, W/s).

    The four branches share one gate; counters that add parameters at each call count it four times.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        share = channels // len(KERNELS)
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, share, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
            for kernel, groups in zip(KERNELS, GROUPS, strict=True)
        )
        self.gate = BranchGate(share)

    def forward(self, x: Tensor) -> Tensor:
        branches = [conv(x) for conv in self.convs]
        weights = torch.stack([self.gate(branch) for branch in branches]).softmax(dim=0)
        weighted = [weight * branch for weight, branch in zip(weights, branches, strict=True)]
        return torch.cat(weighted[::-1], dim=1)


@register_block("epsanet")
class EPSABottleneck(Bottleneck):
    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec, conv2=PyramidSqueezeAttention(spec.width, spec.stride))
