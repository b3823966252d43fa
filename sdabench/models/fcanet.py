"""FcaNet: channel attention whose squeeze is a discrete cosine transform.

Source: Qin et al., "FcaNet: Frequency Channel Attention Networks", ICCV 2021 (cfzd/FcaNet), with its 16
best frequencies ("top16"). The transform of a stage is made for its map at 224 pixels; maps of other sizes
are average-pooled to that grid first, as in the released code.
"""

from math import pi, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdabench.models.resnet import Bottleneck
from sdabench.models.senet import SqueezeExcitation
from sdabench.models.skeleton import BlockSpec, register_block

# (vertical, horizontal) on a 7x7 grid, in the order of the FcaNet paper's ranking
FREQUENCIES = (
    (0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0),
    (5, 0), (1, 6), (3, 0), (0, 4), (0, 6), (0, 3), (3, 5), (2, 2),
)  # fmt: skip


def cosine(frequency: int, side: int) -> Tensor:
    """Sample one basis function of the orthonormal cosine transform at ``side`` points."""
    positions = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    scale = sqrt((2 if frequency else 1) / side)
    return scale * torch.cos(pi * frequency * positions)


class FrequencySqueeze(nn.Module):
    """Pool (N, C, H, W) to (N, C, 1, 1) with one frequency for each sixteenth of the channels."""

    basis: Tensor  # (C, side, side)

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        if channels % len(FREQUENCIES):
            raise ValueError(f"{channels} channels are not a multiple of {len(FREQUENCIES)} frequencies")
        self.side = side
        zoom = side // 7
        planes = [torch.outer(cosine(v * zoom, side), cosine(h * zoom, side)) for v, h in FREQUENCIES]
        basis = torch.stack(planes).repeat_interleave(channels // len(planes), dim=0)
        self.register_buffer("basis", basis.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        fits = x.shape[2:] == (self.side, self.side)
        pooled = x if fits else average_pool(x, self.side)
        return (pooled * self.basis).sum(dim=(2, 3), keepdim=True)


def average_pool(x: Tensor, side: int) -> Tensor:
    """Average maps (N, C, H, W) over a grid of overlapping cells: (N, C, side, side).

    The backward pass of torch's operator adds in no fixed order on a GPU, so deterministic mode refuses it.
    There, matrix products compute the same means.
    """
    if x.is_cpu or not torch.are_deterministic_algorithms_enabled():
        return F.adaptive_avg_pool2d(x, side)
    rows, columns = (cell_means(length, side, x.device) for length in x.shape[2:])
    with torch.autocast(x.device.type, enabled=False):
        return (rows @ x.float() @ columns.T).to(x.dtype)


def cell_means(length: int, cells: int, device: torch.device) -> Tensor:
    """Return the matrix (cells, length) that averages over the cells of adaptive pooling."""
    index, position = torch.arange(cells, device=device)[:, None], torch.arange(length, device=device)
    inside = (position >= index * length // cells) & (position < -(-(index + 1) * length // cells))
    return inside / inside.sum(dim=1, keepdim=True)


@register_block("fcanet")
class FcaBottleneck(Bottleneck):
    """A bottleneck with squeeze-and-excitation that pools by frequencies and has no biases."""

    def __init__(self, spec: BlockSpec) -> None:
        squeeze = FrequencySqueeze(spec.out_channels, side=56 // 2 ** (spec.stage - 1))
        super().__init__(spec, attention=SqueezeExcitation(spec.out_channels, bias=False, pool=squeeze))
