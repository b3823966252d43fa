"""CBAM: channel attention, then spatial attention.

Source: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018. The paper's numbers come from
two implementations: its CBAM row from the official one (Jongchan/attention-module), its CBAM-101, CBAM-86 and
SDA-CBAM-86 rows from a bias-free one (luuuyi/CBAM.PyTorch). ``official`` selects the former: biases in the
MLP, a batch norm after the 7x7 convolution, and the input maps of that convolution in the order (max, mean).
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import Attention, BlockSpec, register_block


class ChannelGate(Attention):
    """Scale channels by a gate of their means and maxima through a shared MLP: (N, C, H, W), same out."""

    def __init__(self, channels: int, reduction: int, official: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, channels // reduction, 1, bias=official),
            nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, 1, bias=official),
        )

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mlp(x.mean(dim=(2, 3), keepdim=True))
        maximum = self.mlp(x.amax(dim=(2, 3), keepdim=True))
        return x * torch.sigmoid(mean + maximum)

    def init_weights(self) -> None:
        for layer in self.mlp:
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                layer.reset_parameters()
                nn.init.zeros_(layer.bias)


class SpatialGate(Attention):
    """Scale positions by a gate of the maximum and mean over channels: (N, C, H, W), same out."""

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

    def init_weights(self) -> None:
        if isinstance(self.bn, nn.BatchNorm2d):
            nn.init.zeros_(self.bn.weight)


@register_block("cbam")
class CBAMBottleneck(Bottleneck):
    def __init__(self, spec: BlockSpec, *, official: bool, reduction: int = 16) -> None:
        gates: OrderedDict[str, nn.Module] = OrderedDict(
            channel=ChannelGate(spec.out_channels, reduction, official), spatial=SpatialGate(official)
        )
        super().__init__(spec, attention=nn.Sequential(gates))
        self.official = official

    def init_weights(self) -> None:
        """Reset the shortcut's convolution: the official rules select parameters by name and miss it."""
        if self.official and self.downsample is not None:
            for layer in self.downsample.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.reset_parameters()
