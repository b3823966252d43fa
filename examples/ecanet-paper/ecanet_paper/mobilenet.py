"""MobileNetV2 with efficient channel attention after each inverted residual's last batch norm.

Source: BangguWu/ECANet 4329104 models/eca_mobilenetv2.py. Kernels are 1 for blocks with up to 96 output
channels and 3 for wider ones.
"""

from torch import nn
from torchvision.models import MobileNetV2
from torchvision.models.mobilenetv2 import InvertedResidual

from sdabench.models.ecanet import EfficientChannelAttention

WIDEST_WITH_KERNEL_1 = 96


def eca_mobilenet_v2(num_classes: int = 1000) -> nn.Module:
    """Build torchvision's MobileNetV2 with attention; (N, 3, H, W) to (N, num_classes)."""
    network = MobileNetV2(num_classes=num_classes, dropout=0.25)
    for block in network.features:
        if isinstance(block, InvertedResidual):
            kernel_size = 1 if block.out_channels <= WIDEST_WITH_KERNEL_1 else 3
            block.conv.append(EfficientChannelAttention(kernel_size))
    return network
