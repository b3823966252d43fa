"""ResNet: the bottleneck block that the other families vary.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with the stride on the 3x3
convolution ("v1.5"), as in torchvision and in the authors' code. With ``groups=8`` it is the block of the
released SDA-ResNet-86, and of ``resnet86_g8``, the same model without depth attention.
"""

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from sdabench.errors import UsageError
from sdabench.models.skeleton import BlockSpec, conv1x1, conv3x3, conv_bn, register_block


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, attention, shortcut: (N, in, H, W) to (N, out, H/stride, W/stride).

    The blocks of other families override single components.

    Args:
        stride_in_1x1: put the stride on the first convolution ("v1", as in the ResNet paper).
        width: channels between the convolutions [default: ``spec.width``].
        conv2: replaces the 3x3 convolution.
        conv2_width: output channels of ``conv2`` [default: ``width``].
        norm2: False if ``conv2`` includes batch norm and ReLU.
        attention: applied to the output of the last batch norm, before the shortcut is added.
        downsample: replaces the shortcut's 1x1 convolution and batch norm in the first block of a stage.
    """

    def __init__(
        self,
        spec: BlockSpec,
        *,
        groups: int = 1,
        stride_in_1x1: bool = False,
        width: int | None = None,
        conv2: nn.Module | None = None,
        conv2_width: int | None = None,
        norm2: bool = True,
        attention: nn.Module | None = None,
        downsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        width = width or spec.width
        conv2_width = conv2_width or width
        strides = (spec.stride, 1) if stride_in_1x1 else (1, spec.stride)
        self.conv1 = conv1x1(spec.in_channels, width, strides[0])
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, strides[1], groups) if conv2 is None else conv2
        self.bn2 = nn.BatchNorm2d(conv2_width) if norm2 else None
        self.conv3 = conv1x1(conv2_width, spec.out_channels)
        self.bn3 = nn.BatchNorm2d(spec.out_channels)
        self.attention = attention
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if spec.index == 0:
            self.downsample = projection(spec, spec.stride) if downsample is None else downsample
        self.activate = spec.activate
        self.stochastic_depth: nn.Module | None = None  # see set_stochastic_depth

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.conv2(x)
        if self.bn2 is not None:
            x = self.relu(self.bn2(x))
        x = self.bn3(self.conv3(x))
        if self.attention is not None:
            x = self.attention(x)
        if self.stochastic_depth is not None:
            x = self.stochastic_depth(x)
        x = x + shortcut
        return self.relu(x) if self.activate else x


def set_stochastic_depth(network: nn.Module, rate: float) -> None:
    """Let training leave out residual branches at random, each for single images of a batch.

    The probability rises linearly from 0 at the first block to ``rate`` at the last one. All blocks of this
    package are subclasses of :class:`Bottleneck`; the branches that they leave out include attention.

    Raises:
        UsageError: the network has no such blocks.
    """
    blocks = [module for module in network.modules() if isinstance(module, Bottleneck)]
    if not blocks:
        raise UsageError(
            "stochastic_depth needs blocks that are subclasses of sdabench.models.resnet.Bottleneck, and "
            "this network has none; leave it out of the recipe"
        )
    for index, block in enumerate(blocks):
        share = index / max(len(blocks) - 1, 1)
        block.stochastic_depth = StochasticDepth(rate * share, "row").train(block.training)


def projection(spec: BlockSpec, stride: int) -> nn.Sequential:
    """Build the shortcut of the first block of a stage: a 1x1 convolution and a batch norm."""
    return conv_bn(conv1x1(spec.in_channels, spec.out_channels, stride))


@register_block("resnet")
class ResNetBottleneck(Bottleneck):
    def __init__(self, spec: BlockSpec, *, groups: int = 1) -> None:
        super().__init__(spec, groups=groups)
