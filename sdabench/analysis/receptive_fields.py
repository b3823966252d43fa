"""Effective receptive fields: which input pixels the center of a map depends on, and how much.

Source: Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks",
NeurIPS 2016. The shares of the area are those of Ding et al., "Scaling Up Your Kernels to 31x31",
CVPR 2022.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from math import nan, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sdabench.models.depth_attention import depth_weights_modules
from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import Trunk


@dataclass(frozen=True)
class ReceptiveField:
    """The mean absolute gradient (H, W) of the center of a map with respect to the input pixels.

    All lengths are in input pixels, around the centroid of the field. Areas are shares of the image. If the
    field is a mean over images, ``radii`` are those of each; NaN where no pixel has an effect.
    """

    gradient: NDArray[np.float64]
    radii: tuple[float, ...] = ()

    @property
    def _total(self) -> float:
        return float(self.gradient.sum())

    @cached_property
    def centroid(self) -> tuple[float, float]:
        """Row and column of the center of mass; NaN if no pixel has an effect."""
        rows, columns = self.gradient.sum(axis=1), self.gradient.sum(axis=0)
        if not self._total:
            return nan, nan
        return (
            float(rows @ np.arange(len(rows)) / self._total),
            float(columns @ np.arange(len(columns)) / self._total),
        )

    @property
    def radius(self) -> float:
        """The root mean square distance from the centroid, weighted by the gradient."""
        if not self._total:
            return nan
        y, x = np.indices(self.gradient.shape)
        squared = (y - self.centroid[0]) ** 2 + (x - self.centroid[1]) ** 2
        return sqrt(float((self.gradient * squared).sum()) / self._total)

    @cached_property
    def profile(self) -> NDArray[np.float64]:
        """The share of the gradient within a square of side 2 k + 1 around the centroid, for k from 0."""
        held = np.bincount(self._rings.ravel(), self.gradient.ravel()).cumsum()
        return held / (self._total or nan)

    @cached_property
    def _rings(self) -> NDArray[np.int64]:
        """For each pixel, the number k of the smallest square around the centroid that contains it."""
        y, x = np.indices(self.gradient.shape)
        at = [round(each) if self._total else 0 for each in self.centroid]
        rings: NDArray[np.int64] = np.maximum(abs(y - at[0]), abs(x - at[1]))
        return rings

    def area(self, share: float) -> float:
        """Return the area of the smallest square around the centroid that holds a share of the gradient.

        The square is cut off at the edges of the image; the area is a fraction of that of the image.
        """
        if not self._total:
            return nan
        enough = np.flatnonzero(self.profile >= share - 1e-9)
        return float((self._rings <= enough[0]).mean())


def places_of(trunk: Trunk, blocks: bool = True) -> dict[str, nn.Module]:
    """Return the stages of a network by name, each after its blocks, such as ``layer1.0``."""
    found: dict[str, nn.Module] = {}
    for info in trunk.feature_info:
        stage = trunk.get_submodule(info["module"])
        if blocks:
            found |= {f"{info['module']}.{name}": block for name, block in blocks_of(stage).items()}
        found[info["module"]] = stage
    return found


def blocks_of(stage: nn.Module) -> dict[str, nn.Module]:
    """Return the blocks within a stage by name; those of plugins may be any children of the stage."""
    named: dict[str, nn.Module] = {
        name: module for name, module in stage.named_modules() if isinstance(module, Bottleneck)
    }
    return named or {name: child for name, child in stage.named_children() if name.isdecimal()}


def receptive_fields(
    network: nn.Module,
    places: Mapping[str, nn.Module],
    batches: Iterable[Tensor],
    *,
    constant_weights: bool = False,
    seed: int = 0,
    advance: Callable[[int], None] = lambda images: None,
) -> dict[str, ReceptiveField]:
    """Measure the effective receptive field at the output of some modules of a network.

    It is the absolute gradient of the output's center with respect to the pixels, as a mean over images. The
    channels of the center are summed with random signs: with equal signs, channels of opposite effect would
    cancel, while the mean square over random signs is the sum of the squares over channels.

    The weights of depth attention depend on all pixels of an image, because the maps are pooled. With
    ``constant_weights``, this part of the gradient is left out, and the field is that of the weighted maps.

    Args:
        network: in the mode in which it is analyzed, usually evaluation mode.
        places: modules of the network with outputs (N, C, h, w).
        batches: images (N, 3, H, W) of one size, on the device of the network.
        seed: of the signs.

    Raises:
        ValueError: there are no images, or a module was not called, or returns another shape.
    """
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, Tensor] = {}
    radii: dict[str, list[float]] = {}
    images = 0
    with without_weight_gradients(network), ExitStack() as hooks:
        for module in depth_weights_modules(network).values() if constant_weights else ():
            hook = module.register_forward_hook(lambda module, inputs, output: output.detach())
            hooks.callback(hook.remove)
        for batch in batches:
            pixels = batch.detach().requires_grad_()
            for name, center in _centers(network, places, pixels).items():
                signs = torch.randint(0, 2, center.shape, generator=generator).to(center) * 2 - 1
                [gradient] = torch.autograd.grad((center * signs).sum(), pixels, retain_graph=True)
                maps = gradient.abs().sum(dim=1).double()
                sums[name] = sums.get(name, 0) + maps.sum(dim=0)
                radii.setdefault(name, []).extend(ReceptiveField(each).radius for each in maps.cpu().numpy())
            images += len(batch)
            advance(len(batch))
    if not images:
        raise ValueError("no images to measure receptive fields on")
    return {
        name: ReceptiveField((total / images).cpu().numpy(), tuple(radii[name]))
        for name, total in sums.items()
    }


def _centers(network: nn.Module, places: Mapping[str, nn.Module], pixels: Tensor) -> dict[str, Tensor]:
    """Return the outputs (N, C) of modules at the centers of their maps."""
    centers: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise ValueError(f"{name} does not return a map (N, C, h, w)")
        height, width = output.shape[2:]
        centers[name] = output[:, :, height // 2, width // 2].clone()  # a ReLU may change the map in place

    with ExitStack() as hooks, torch.enable_grad():
        for name, module in places.items():
            hook = module.register_forward_hook(partial(keep, name))
            hooks.callback(hook.remove)
        network(pixels)
    if missing := [name for name in places if name not in centers]:
        raise ValueError(f"{missing[0]} is not called in a forward pass")
    return {name: centers[name] for name in places}


@contextmanager
def without_weight_gradients(network: nn.Module) -> Iterator[None]:
    """Let no parameter require gradients, so that a forward pass stores fewer maps."""
    required = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in required:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in required:
            parameter.requires_grad_(True)
