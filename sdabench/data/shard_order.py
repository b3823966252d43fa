"""The order of the images of a training that reads its shards sequentially, for slow file systems.

As with random access, the order is a function of (seed, epoch) and does not depend on reading: each image is
read once per epoch, ranks have equal numbers of images, and a training resumes at any step.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sdabench.data.images import TrainingOrder
from sdabench.data.shards import ShardSplit
from sdabench.data.split import Split
from sdabench.errors import UsageError

Indices = NDArray[np.int64]
MIN_CLASSES = 0.5  # classes per shard, as a fraction of those expected in random order


class ShardOrder(TrainingOrder):
    """A TrainingOrder in which each micro-batch reads its own part of the shards from start to end.

    In each epoch, the shards are concatenated in random order and cut into ``micro_batches`` parts of nearly
    equal numbers of images. An image moves by less than ``window`` places within its part.

    Args:
        shards: the indices of the images of each shard, in the order of the file.
    """

    def __init__(self, shards: Sequence[Indices], window: int, micro_batches: int, **order: int) -> None:
        super().__init__(images=sum(map(len, shards)), **order)
        self.shards, self.window, self.micro_batches = shards, window, micro_batches

    def epoch_order(self, epoch: int) -> Indices:
        """Return the images of an epoch, step by step, those of all micro-batches of a step."""
        shards = np.random.default_rng([self.seed, epoch, 0]).permutation(len(self.shards))
        images = np.concatenate([self.shards[shard] for shard in shards])
        sizes = np.array([self._sizes(step) for step in range(self.steps_per_epoch)])
        ends = np.cumsum(sizes.sum(axis=0))
        parts = [
            self._shuffled(images[end - count : end], np.random.default_rng([self.seed, epoch, 1, number]))
            for number, (end, count) in enumerate(zip(ends, sizes.sum(axis=0), strict=True))
        ]
        stops = np.cumsum(sizes, axis=0)
        return np.concatenate(
            [
                part[stop - size : stop]
                for of_step, at in zip(sizes, stops, strict=True)
                for part, size, stop in zip(parts, of_step, at, strict=True)
            ]
        )

    def _sizes(self, step: int) -> list[int]:
        """Return the number of images of each micro-batch of a step, as RankBatches divides them."""
        size = min(self.batch_size, self.images - step * self.batch_size)
        share, more = divmod(size, self.micro_batches)
        return [share + (number < more) for number in range(self.micro_batches)]

    def _shuffled(self, images: Indices, random: np.random.Generator) -> Indices:
        """Move each image by less than ``window`` places."""
        places = np.arange(len(images)) + self.window * random.random(len(images))
        return images[np.argsort(places, kind="stable")]


def images_of_shards(split: Split) -> list[Indices]:
    """Return the indices of the images of each shard, in the order of the file.

    Raises:
        UsageError: the images are not in shards, or the shards are sorted by class.
    """
    if not isinstance(split, ShardSplit):
        raise UsageError(
            "shuffle_window is for classifiers and --data webdataset=PATH; leave it out, or write shards "
            "with 'sdabench data shards'"
        )
    shards = [np.array([index for _, index in sorted(each)]) for each in _places(split).values()]
    labels, classes = np.array([item.label for item in split.items]), len(split.occurring)
    there = sum(len(np.unique(labels[shard])) for shard in shards)
    random = sum(classes * (1 - (1 - 1 / classes) ** len(shard)) for shard in shards)
    if there < MIN_CLASSES * random:
        raise UsageError(
            f"the shards in {split.root} are sorted by class, so batches would have few classes; leave out "
            "shuffle_window, or write them again with 'sdabench data shards'"
        )
    return shards


def reading_order(split: Split) -> Iterator[int]:
    """Yield the indices of all images in the order of an evaluation: shard by shard, if there are shards."""
    if not isinstance(split, ShardSplit):
        yield from range(len(split.items))
        return
    for _, places in sorted(_places(split).items()):
        yield from (index for _, index in sorted(places))


def _places(split: ShardSplit) -> dict[str, list[tuple[int, int]]]:
    """Return the (offset, index) of each image, by shard."""
    places = defaultdict[str, list[tuple[int, int]]](list)
    for index, item in enumerate(split.items):
        member = split.file(item)
        places[str(member.archive)].append((member.place.offset, index))
    return dict(sorted(places.items()))
