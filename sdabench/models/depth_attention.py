"""Selective depth attention (SDA): the output of a stage is a weighted sum of its blocks' outputs.

Source: Guo et al., "Selective Depth Attention Networks for Adaptive Multi-scale Feature
Representation", IEEE TAI 2024, and its released code (QingbeiGuo/SDA-xNet). The released code stacks the
maps of the blocks and pools their sum. Here no map is stacked or cloned: each output is pooled when it is
computed (the mean of a sum is the sum of the means), and the weighted sum is computed once per stage.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DepthAttention(nn.Module):
    """Attention over the depth of a stage: n maps (N, C, H, W) to their weighted sum (N, C, H, W).

    The weights are a softmax over the n blocks for each sample and channel. They are computed from the pooled
    sum of the maps by a bottleneck of ``max(C / 16, 64)`` channels and one 1x1 convolution per block.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 64)
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.relu = nn.ReLU(inplace=True)
        self.select = nn.ModuleList(nn.Conv2d(hidden, channels, 1) for _ in range(depth))

    def weights(self, pooled: Tensor) -> Tensor:
        """Compute weights (n, N, C, 1, 1), which sum to 1 over n, from the pooled sum (N, C, 1, 1)."""
        hidden = self.relu(self.bn(self.reduce(pooled)))
        return torch.stack([select(hidden) for select in self.select]).softmax(dim=0)

    def forward(self, outputs: Sequence[Tensor], pooled: Tensor) -> Tensor:
        # Autocast computes the softmax in float32, which would make the map float32 as well.
        weights = self.weights(pooled).to(outputs[0].dtype)
        fused = weights[0] * outputs[0]
        for weight, output in zip(weights[1:], outputs[1:], strict=True):
            fused.addcmul_(weight, output)  # in place: no gradient needs the partial sum
        return fused


class DepthAttentionStage(nn.Sequential):
    """A chain of blocks whose outputs, before their last ReLU, are fused by depth attention.

    Build the blocks with ``activate=False``; the stage's own ``activate`` applies a ReLU to the fused map.
    Block i is ``stage[i]``, as in a plain stage.
    """

    def __init__(self, blocks: Sequence[nn.Module], channels: int, activate: bool = True) -> None:
        super().__init__(*blocks)
        self.attention = DepthAttention(channels, len(blocks))
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        *blocks, attention = self
        outputs: list[Tensor] = []
        pooled = x.new_zeros(())
        for block in blocks:
            output = block(F.relu(outputs[-1]) if outputs else x)
            outputs.append(output)
            pooled = pooled + output.mean(dim=(2, 3), keepdim=True)
        fused: Tensor = attention(outputs, pooled)
        return F.relu_(fused) if self.activate else fused
