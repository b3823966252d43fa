"""AA-Net: self-attention over positions gives some channels of the 3x3 convolution's output.

Source: Bello et al., "Attention Augmented Convolutional Networks", ICCV 2019. A construction by the
paper's rules (8 heads, 20 channels a head for keys, a tenth of the width for values, relative
positions, stages 2 to 4). d-li14/dot-product-attention shows its logits; how it joins the heads, which
mixes positions with channels, is not followed. The position tables are made for 224 pixels: smaller
maps use their middle, larger ones are refused.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdabench.errors import UsageError
from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import BlockSpec, conv1x1, conv3x3, register_block

HEADS = 8
KEY_CHANNELS = 20  # of one head
SIDES = {2: 14, 3: 14, 4: 7}  # of the map that attends, at 224 pixels


class RelativeAttention(nn.Module):
    """Self-attention over the positions of a map: (N, C, H, W) to (N, out, H/stride, W/stride).

    Raises:
        UsageError: the map has more than ``side`` positions in a direction.
    """

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
                f"AA-Net's position tables are for maps of up to {self.side}x{self.side} here, not "
                f"{height}x{width}: images may have at most 224 pixels a side"
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
        """What a key's place relative to the query's adds to their logit.

        (N, HEADS, H, W, d) to (N, HEADS, HW, HW).
        """
        of_rows = self._shifted(queries.transpose(2, 3), self.relative_height).transpose(2, 3)
        of_columns = self._shifted(queries, self.relative_width)
        # (N, HEADS, H, W, H, W): the query's place, then the key's
        return (of_rows[..., :, None] + of_columns[..., None, :]).flatten(4).flatten(2, 3)

    def _shifted(self, queries: Tensor, table: Tensor) -> Tensor:
        """(…, L, d) to (…, L, L): for queries along a line, the products with each key's distance."""
        length = queries.shape[-2]
        places = torch.arange(length, device=queries.device)
        distances = places - places[:, None] + self.side - 1
        products = torch.matmul(queries, table.T)
        return products.gather(-1, distances.expand(*products.shape[:-1], length))

    def init_weights(self) -> None:
        for table in (self.relative_height, self.relative_width):
            nn.init.normal_(table, std=KEY_CHANNELS**-0.5)


class AugmentedConv(nn.Module):
    """A 3x3 convolution and attention side by side: (N, C, H, W) to (N, C, H/stride, W/stride).

    In stage 2 the map that attends is average-pooled first, and the result is upsampled.
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
