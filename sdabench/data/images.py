"""From image files to batches: decoding, evaluation's and training's view of an image, and digests.

Every file is decoded by Pillow and becomes RGB by its ``convert``: grey, palette, CMYK and transparent
images are taken as they are, whatever the file's name ends in. An EXIF rotation is ignored, as the usual
ImageNet pipelines do.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate
from torchvision import transforms

from sdabench.data.decoded import DecodedImages, decoded_images
from sdabench.data.decoding import decode_bytes
from sdabench.data.description import Preprocessing
from sdabench.data.folders import ImageSplit
from sdabench.data.jpeg import decode_jpeg
from sdabench.data.views import USUAL, Normalisation, Window, centre, levels_of, resized_window
from sdabench.errors import DataError
from sdabench.registry.recipes import Augmentation

B = TypeVar("B")


@dataclass(frozen=True)
class Sample:
    """One image (3, H, W) in uint8, its class index, its place in the listing, its file's sha256."""

    image: Tensor
    label: int
    index: int
    sha256: str
    normalisation: Normalisation = USUAL


@dataclass(frozen=True)
class Batch:
    """Images (N, 3, H, W) and labels (N,); ``skipped`` are the errors of images that were left out.

    The images are levels in uint8, channels last in memory, until :meth:`to` makes them what a network takes.
    """

    images: Tensor
    labels: Tensor
    indices: list[int]
    sha256: list[str]
    skipped: list[str]
    normalisation: Normalisation = USUAL

    @classmethod
    def of(cls, samples: Sequence[Sample], skipped: list[str]) -> "Batch":
        pixels = [sample.image.permute(1, 2, 0) for sample in samples]
        return cls(
            images=default_collate(pixels).permute(0, 3, 1, 2),  # in shared memory at once, in a worker
            labels=torch.tensor([sample.label for sample in samples]),
            indices=[sample.index for sample in samples],
            sha256=[sample.sha256 for sample in samples],
            skipped=skipped,
            normalisation=samples[0].normalisation,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def parts(self, count: int) -> Iterator["Batch"]:
        """In so many parts of nearly the same size."""
        for chosen in np.array_split(np.arange(len(self)), count):
            yield replace(
                self,
                images=self.images[chosen[0] : chosen[-1] + 1],
                labels=self.labels[chosen[0] : chosen[-1] + 1],
                indices=[self.indices[i] for i in chosen],
                sha256=[self.sha256[i] for i in chosen],
            )

    def to(self, device: torch.device, layout: torch.memory_format) -> "Batch":
        """On a device, the images normalised in float32."""
        images = self.normalisation(self.images.to(device, non_blocking=True), layout)
        return replace(self, images=images, labels=self.labels.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())


def decode(
    path: Path, size: tuple[int, int] | None = None, decoded: DecodedImages | None = None
) -> tuple[Image.Image, bytes] | DataError:
    """The image in RGB, and the file's bytes.

    A file that cannot be decoded comes back as the error itself, because an exception loses its words
    on the way out of a loader's worker; :func:`collated` passes it on. Nothing takes its place.

    Args:
        size: see :func:`sdabench.data.decoding.decode_bytes`.
        decoded: those that need not be decoded again.
    """
    data = _read(path)
    if isinstance(data, DataError):
        return data
    known = None if decoded is None else decoded.image(data)
    if known is not None and size in (None, known.size):
        return known, data
    image = decode_bytes(data, size)
    if isinstance(image, str):
        return DataError(f"{path} {image}; restore it from the original archive")
    return image, data


def decode_levels(path: Path, decoded: DecodedImages | None = None) -> Tensor | DataError:
    """(3, H, W) in uint8, for training: the pixels of :func:`decode`, sooner where a file is a usual JPEG."""
    if decoded is None:
        data = _read(path)
        if isinstance(data, DataError):
            return data
        levels = decode_jpeg(data)
        if levels is not None:
            return levels
    read = decode(path, decoded=decoded)
    return read if isinstance(read, DataError) else levels_of(read[0])


def _read(path: Path) -> bytes | DataError:
    try:
        return path.read_bytes()
    except OSError as error:
        return DataError(f"{path} cannot be read: {error.strerror}")


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Random numbers that follow from the key alone; those around are as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(number_of(*key))
        yield


def number_of(*key: int) -> int:
    """A seed that follows from some numbers, as if drawn at random."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


class EvaluationImages(Dataset[Sample | DataError]):
    """The images of a split under the evaluation protocol."""

    def __init__(self, split: ImageSplit, preprocessing: Preprocessing) -> None:
        self.split, self.preprocessing = split, preprocessing
        self.normalisation = Normalisation(preprocessing.mean, preprocessing.std)
        self.decoded = decoded_images(split)

    def __len__(self) -> int:
        return len(self.split.items)

    def __getitem__(self, index: int) -> Sample | DataError:
        item = self.split.items[index]
        decoded = decode(self.split.root / item.path, decoded=self.decoded)
        if isinstance(decoded, DataError):
            return decoded
        image, data = decoded
        levels, digest = levels_of(centre(image, self.preprocessing)), hashlib.sha256(data).hexdigest()
        return Sample(levels, item.label, index, digest, self.normalisation)


class TrainingImages(Dataset[Sample | DataError]):
    """The images of a split, cropped and flipped at random: by (seed, epoch, index) and nothing else."""

    def __init__(self, split: ImageSplit, augmentation: Augmentation, seed: int) -> None:
        self.split = split
        self.augmentation = augmentation
        self.seed = seed
        self.decoded = decoded_images(split)

    def __getitem__(self, key: tuple[int, int]) -> Sample | DataError:
        epoch, index = key
        item = self.split.items[index]
        levels = decode_levels(self.split.root / item.path, self.decoded)
        if isinstance(levels, DataError):
            return levels
        with seeded(self.seed, epoch, index):
            window, flipped = self._draw(levels)
        image = resized_window(levels, window, self.augmentation.crop)
        return Sample(image.flip(2) if flipped else image, item.label, index, "")

    def _draw(self, levels: Tensor) -> tuple[Window, bool]:
        """What is seen of an image, and whether in a mirror."""
        settings = self.augmentation
        window: Window = transforms.RandomResizedCrop.get_params(
            levels, list(settings.area), list(settings.aspect)
        )
        return window, torch.rand(1).item() < settings.flip


class TrainingOrder(Sampler[list[tuple[int, int]]]):
    """The batches of a whole training, as (epoch, index) pairs: a permutation of the images each epoch.

    A last batch is smaller; one of fewer than ``smallest`` images, too few for the batch norms, is left out.
    """

    def __init__(
        self, images: int, batch_size: int, epochs: int, seed: int, smallest: int = 2, first_step: int = 0
    ) -> None:
        self.images, self.batch_size, self.epochs, self.seed = images, batch_size, epochs, seed
        full, rest = divmod(images, batch_size)
        self.smallest = smallest
        self.steps_per_epoch = full + (rest >= smallest)
        self.first_step = first_step

    def __len__(self) -> int:
        return self.steps_per_epoch * self.epochs - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, skip = divmod(self.first_step, self.steps_per_epoch)
        for current in range(epoch, self.epochs):
            order = np.random.default_rng([self.seed, current]).permutation(self.images)
            for step in range(skip, self.steps_per_epoch):
                start = step * self.batch_size
                yield [(current, int(index)) for index in order[start : start + self.batch_size]]
            skip = 0


class OwnShare(Sampler[list[tuple[int, int]]]):
    """One process's share of the batches of a training: of ``parts`` nearly equal ones its ``own``."""

    def __init__(self, order: TrainingOrder, parts: int, own: int, rank: int) -> None:
        self.order, self.parts = order, parts
        self.own = slice(rank * own, (rank + 1) * own)

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self.order:
            size, larger = divmod(len(batch), self.parts)
            ends = [place * size + min(place, larger) for place in range(self.parts + 1)]
            yield batch[ends[self.own.start] : ends[self.own.stop]]


def collated(
    batch_of: Callable[[list[Any], list[str]], B], skip_broken: bool, samples: Sequence[Any]
) -> B | DataError:
    """A batch of samples, any of which may be an error instead.

    Args:
        batch_of: makes a batch of samples, and of the words of errors that were skipped.
        skip_broken: leaves errors out where there is any sample; else the first one is returned.
    """
    errors = [sample for sample in samples if isinstance(sample, DataError)]
    good = [sample for sample in samples if not isinstance(sample, DataError)]
    if errors and not (skip_broken and good):
        return errors[0]
    return batch_of(good, [str(error) for error in errors])
