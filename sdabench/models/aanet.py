"""AA-Net: self-attention over positions computes some output channels of the 3x3 convolution.

Source: Bello et al., "Attention Augmented Convolutional Networks", ICCV 2019. sdabench follows the rules
of that paper: 8 heads, 20 channels per head for keys, a tenth of the width for values, relative positions,
stages 2 to 4. The logits follow d-li14/dot-product-attention. The merging of heads does not, because there it
mixes positions with channels. The position tables are made for 224 pixels: smaller maps use their middle,
larger maps raise an error.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdabench.errors import UsageError
from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import Attention, BlockSpec, conv1x1, conv3x3, register_block

HEADS = 8
KEY_CHANNELS = 20  # per head
SIDES = {2: 14, 3: 14, 4: 7}  # side of the attended map by stage, at 224 pixels


class RelativeAttention(Attention):
    """Self-attention over the positions of a map: (N, C, H, W) to (N, out, H/stride, W/stride)."""

    def __init__(self, channels: int, out_channels: int, side: int, stride: int) -> None:
        super().__init__()
        self.side = side
        self.split = (HEADS * KEY_CHANNELS, HEADS * KEY_CHANNELS, out_channels)
        self.project = conv1x1(channels, sum(self.split), stride)
        self.merge = conv1x1(out_channels, out_channels)
        self.relative_height = nn.Parameter(torch.empty(2 * side - 1, KEY_CHANNELS))
        self.relative_width = nn.Parameter(torch.empty(2 * side - 1, KEY_CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.project(x)
        samples, _, height, width = maps.shape
        if max(height, width) > self.side:
            raise UsageError(
                f"a map of {height}x{width} exceeds AA-Net's position tables of {self.side}x{self.side}; "
                "use images of at most 224 pixels a side"
            )
        keys, queries, values = (
            part.reshape(samples, HEADS, -1, height * width).transpose(2, 3)
            for part in maps.split(self.split, dim=1)
        )  # (N, HEADS, HW, d)
        queries = queries * KEY_CHANNELS**-0.5
        logits = torch.matmul(queries, keys.transpose(2, 3))
        logits = logits + self.positions(queries.reshape(samples, HEADS, height, width, KEY_CHANNELS))
        attended = torch.matmul(logits.softmax(dim=3), values).transpose(2, 3)
        merged: Tensor = self.merge(attended.reshape(samples, -1, height, width))
        return merged

    def positions(self, queries: Tensor) -> Tensor:
        """Compute the logits of relative positions: (N, HEADS, H, W, d) to (N, HEADS, HW, HW)."""
        row_logits = self._shifted(queries.transpose(2, 3), self.relative_height).transpose(2, 3)
        column_logits = self._shifted(queries, self.relative_width)
        # (N, HEADS, H, W, H, W): position of the query, then of the key
        return (row_logits[..., :, None] + column_logits[..., None, :]).flatten(4).flatten(2, 3)

    def _shifted(self, queries: Tensor, table: Tensor) -> Tensor:
        """Multiply queries along a line with the table entry of each distance: (…, L, d) to (…, L, L)."""
        length = queries.shape[-2]
        positions = torch.arange(length, device=queries.device)
        distances = positions - positions[:, None] + self.side - 1
        products = torch.matmul(queries, table.T)
        return products.gather(-1, distances.expand(*products.shape[:-1], length))

    def init_weights(self) -> None:
        for table in (self.relative_height, self.relative_width):
            nn.init.normal_(table, std=KEY_CHANNELS**-0.5)


class AugmentedConv(nn.Module):
    """A 3x3 convolution and attention in parallel: (N, C, H, W) to (N, C, H/stride, W/stride).

    ``pooled`` attention (stage 2) works on an average-pooled map and upsamples its result.
    """

    def __init__(self, channels: int, side: int, stride: int, pooled: bool) -> None:
        super().__init__()
        attended = max(channels // 10 // HEADS, 1) * HEADS
        self.conv = conv3x3(channels, channels - attended, stride)
        self.attention = RelativeAttention(channels, attended, side, stride)
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        convolved = self.conv(x)
        if self.pooled:
            x = F.avg_pool2d(x, 3, stride=2, padding=1)
        attended = self.attention(x)
        if self.pooled:
            attended = F.interpolate(attended, convolved.shape[2:], mode="bilinear")
        return torch.cat([convolved, attended], dim=1)


@register_block("aanet")
class AABottleneck(Bottleneck):
    def __init__(self, spec: BlockSpec) -> None:
        side = SIDES.get(spec.stage)
        conv2 = None
        if side is not None:
            conv2 = AugmentedConv(spec.width, side, spec.stride, pooled=spec.stage == 2)
        super().__init__(spec, conv2=conv2)
