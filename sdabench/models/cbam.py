"""CBAM: channel attention, then spatial attention.

Source: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018. The README's numbers come
from two codes: its CBAM row is the official one (Jongchan/attention-module), its CBAM-101, CBAM-86 and
SDA-CBAM-86 rows have the parameters of a bias-free one (luuuyi/CBAM.PyTorch). ``official`` chooses
between them: biases in the MLP, a batch norm after the 7x7 convolution, and (max, mean) instead of
(mean, max) as the order of its two input channels.
"""

import torch
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import BlockSpec, register_block


class ChannelGate(nn.Module):
    """Scales channels by a gate of their means and maxima, through one shared MLP: (N, C, H, W), same out."""

    def __init__(self, channels: int, reduction: int, bias: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, channels // reduction, 1, bias=bias),
            nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mlp(x.mean(dim=(2, 3), keepdim=True))
        maximum = self.mlp(x.amax(dim=(2, 3), keepdim=True))
        return x * torch.sigmoid(mean + maximum)


class SpatialGate(nn.Module):
    """Scales positions by a gate of the maximum and mean over channels: (N, C, H, W), same out."""

    def __init__(self, official: bool) -> None:
        super().__init__()
        self.maximum_first = official
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1, momentum=0.01) if official else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        maps = [x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)]
        if self.maximum_first:
            maps.reverse()
        return x * torch.sigmoid(self.bn(self.conv(torch.cat(maps, dim=1))))


@register_block("cbam")
class CBAMBottleneck(Bottleneck):
    def __init__(self, spec: BlockSpec, *, official: bool = True, reduction: int = 16) -> None:
        gates = nn.Sequential(ChannelGate(spec.out_channels, reduction, bias=official), SpatialGate(official))
        super().__init__(spec, attention=gates)
        self.official = official

    def init_weights(self) -> None:
        """The official initialisation: its rules go by parameter names, and so pass over some layers."""
        if not self.official:
            return
        assert self.attention is not None
        for module in [*self.attention[0].modules(), *(self.downsample or ())]:  # type: ignore[index, misc]
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.attention[1].bn.weight)  # type: ignore[index]
