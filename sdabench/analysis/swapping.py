"""Whether the depth weights of an image suit its object: accuracy with the weights of other images.

Each image is classified with the depth weights of another one, whose object has a size of the same octave or
of another octave. Another image is a disturbance in any case; what a wrong size costs beyond it is the
accuracy within octaves minus that across octaves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

Accuracies = dict[int, float]  # top-1 in percent, by octave
Classify = Callable[[Mapping[str, Tensor]], Accuracies]


@dataclass(frozen=True)
class Swapped:
    """Accuracies by octave with own depth weights, and with those of other images."""

    own: Accuracies
    within: Accuracies
    across: Accuracies

    @property
    def within_drop_pct(self) -> float:
        """Drop of the mean accuracy over octaves with weights of images of the same octave, in points."""
        return mean_over_octaves(self.own) - mean_over_octaves(self.within)

    @property
    def across_drop_pct(self) -> float:
        """Drop of the mean accuracy over octaves with weights of images of another octave, in points."""
        return mean_over_octaves(self.own) - mean_over_octaves(self.across)

    @property
    def drop_pct(self) -> float:
        """What another octave costs beyond another image, in points."""
        return self.across_drop_pct - self.within_drop_pct


def swap_depth_weights(
    weights: Mapping[str, Tensor],
    octaves: Tensor,
    own: Accuracies,
    classify: Classify,
    permutations: int,
    seed: int = 0,
) -> Swapped:
    """Classify images with the depth weights of others.

    Args:
        weights: of each stage, (N, blocks, C).
        octaves: of the object in each image, (N,).
        own: the accuracies with the image's own weights.
        classify: returns the accuracies with given weights.
        permutations: number of random assignments, within octaves and across.

    Raises:
        ValueError: an octave has one image only, or all images have one octave.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[bool, list[Accuracies]] = {False: [], True: []}
    for number in range(permutations):
        for across in found:
            chosen = donors(octaves, generator, shift=number if across else None)
            found[across].append(classify({stage: each[chosen] for stage, each in weights.items()}))
    return Swapped(own, within=_means(found[False]), across=_means(found[True]))


def donors(octaves: Tensor, generator: torch.Generator, shift: int | None = None) -> Tensor:
    """Draw for each image (N,) another one, whose depth weights it gets: (N,).

    Without ``shift``, it is one of the same octave, and each image is drawn once. With it, the images of an
    octave get those of another octave, which ``shift`` selects; each is drawn once if octaves are equally
    frequent.

    Raises:
        ValueError: see :func:`swap_depth_weights`.
    """
    groups = [torch.nonzero(octaves == octave).flatten() for octave in sorted(set(octaves.tolist()))]
    if len(groups) < 2 and shift is not None:
        raise ValueError("all images have objects of one octave")
    if any(len(group) < 2 for group in groups):
        raise ValueError("an octave has one image only, so that there is no other to swap with")
    chosen = torch.empty_like(octaves, dtype=torch.long)
    shuffled = [group[torch.randperm(len(group), generator=generator)] for group in groups]
    for place, group in enumerate(shuffled):
        if shift is None:
            chosen[group] = group.roll(1)
            continue
        other = shuffled[(place + 1 + shift % (len(groups) - 1)) % len(groups)]
        chosen[group] = other.repeat(-(-len(group) // len(other)))[: len(group)]
    return chosen


def accuracies_by_octave(hits: Tensor, octaves: Tensor) -> Accuracies:
    """Compute the top-1 accuracy in percent of each octave from right and wrong predictions (N,)."""
    found = sorted(set(octaves.tolist()))
    return {octave: 100 * float(hits[octaves == octave].double().mean()) for octave in found}


def mean_over_octaves(accuracies: Accuracies) -> float:
    return fmean(accuracies.values())


def _means(found: list[Accuracies]) -> Accuracies:
    return {octave: fmean(each[octave] for each in found) for octave in found[0]}
