"""GCNet: a global context vector, gathered by attention over positions, is added at every position.

Source: Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCVW 2019
(xvjiarui/GCNet), ratio 16, in every block. The repository has detection code only; this follows its block.
"""

import torch
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import Attention, BlockSpec, register_block


class GlobalContext(Attention):
    """Add a transform of the attention-weighted sum over positions to (N, C, H, W)."""

    without_effect = ("mask.bias",)

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = channels // reduction
        self.mask = nn.Conv2d(channels, 1, 1)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.norm = nn.LayerNorm([hidden, 1, 1])
        self.relu = nn.ReLU(inplace=True)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.mask(x).flatten(2).softmax(dim=2)  # (N, 1, HW)
        context = torch.matmul(x.flatten(2), weights.transpose(1, 2))  # (N, C, 1)
        added: Tensor = self.expand(self.relu(self.norm(self.reduce(context[..., None]))))
        return x + added

    def init_weights(self) -> None:
        """Initialize the added context to zero."""
        nn.init.kaiming_normal_(self.mask.weight, mode="fan_in", nonlinearity="relu")
        for parameter in self.expand.parameters():
            nn.init.zeros_(parameter)


@register_block("gcnet")
class GCBottleneck(Bottleneck):
    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec, attention=GlobalContext(spec.out_channels))
