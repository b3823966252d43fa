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
from torch.utils.data import Dataset, Sampler
from torchvision import transforms
from torchvision.transforms import functional

from sdabench.data.decoding import decode_bytes
from sdabench.data.description import Preprocessing
from sdabench.data.folders import ImageSplit
from sdabench.errors import DataError
from sdabench.models.inputs import MEAN, STD
from sdabench.registry.recipes import Augmentation

B = TypeVar("B")


@dataclass(frozen=True)
class Sample:
    """One preprocessed image (3, H, W), its class index, its place in the listing, its file's sha256."""

    image: Tensor
    label: int
    index: int
    sha256: str


@dataclass(frozen=True)
class Batch:
    """Images (N, 3, H, W) and labels (N,); ``skipped`` are the errors of images that were left out."""

    images: Tensor
    labels: Tensor
    indices: list[int]
    sha256: list[str]
    skipped: list[str]

    @classmethod
    def of(cls, samples: Sequence[Sample], skipped: list[str]) -> "Batch":
        return cls(
            images=torch.stack([sample.image for sample in samples]),
            labels=torch.tensor([sample.label for sample in samples]),
            indices=[sample.index for sample in samples],
            sha256=[sample.sha256 for sample in samples],
            skipped=skipped,
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
        images = self.images.to(device, memory_format=layout, non_blocking=True)
        return replace(self, images=images, labels=self.labels.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())


def decode(path: Path, size: tuple[int, int] | None = None) -> tuple[Image.Image, bytes] | DataError:
    """The image in RGB, and the file's bytes.

    A file that cannot be decoded comes back as the error itself, because an exception loses its words
    on the way out of a loader's worker; :func:`collated` passes it on. Nothing takes its place.

    Args:
        size: see :func:`sdabench.data.decoding.decode_bytes`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        return DataError(f"{path} cannot be read: {error.strerror}")
    image = decode_bytes(data, size)
    if isinstance(image, str):
        return DataError(f"{path} {image}; restore it from the original archive")
    return image, data


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Random numbers that follow from the key alone; those around are as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(number_of(*key))
        yield


def number_of(*key: int) -> int:
    """A seed that follows from some numbers, as if drawn at random."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def evaluation_transform(preprocessing: Preprocessing) -> Callable[[Image.Image], Tensor]:
    """From an RGB image to an input (3, crop, crop)."""
    interpolation = transforms.InterpolationMode(preprocessing.interpolation)
    steps = [
        transforms.Resize(preprocessing.resize, interpolation),
        transforms.CenterCrop(preprocessing.crop),
        transforms.ToTensor(),
        transforms.Normalize(preprocessing.mean, preprocessing.std),
    ]
    transform: Callable[[Image.Image], Tensor] = transforms.Compose(steps)
    return transform


class EvaluationImages(Dataset[Sample | DataError]):
    """The images of a split under the evaluation protocol."""

    def __init__(self, split: ImageSplit, preprocessing: Preprocessing) -> None:
        self.split = split
        self.transform = evaluation_transform(preprocessing)

    def __len__(self) -> int:
        return len(self.split.items)

    def __getitem__(self, index: int) -> Sample | DataError:
        item = self.split.items[index]
        decoded = decode(self.split.root / item.path)
        if isinstance(decoded, DataError):
            return decoded
        image, data = decoded
        return Sample(self.transform(image), item.label, index, hashlib.sha256(data).hexdigest())


class TrainingImages(Dataset[Sample | DataError]):
    """The images of a split, cropped and flipped at random: by (seed, epoch, index) and nothing else."""

    def __init__(self, split: ImageSplit, augmentation: Augmentation, seed: int) -> None:
        self.split = split
        self.augmentation = augmentation
        self.seed = seed
        self.normalize = transforms.Normalize(MEAN, STD)

    def __getitem__(self, key: tuple[int, int]) -> Sample | DataError:
        epoch, index = key
        item = self.split.items[index]
        decoded = decode(self.split.root / item.path)
        if isinstance(decoded, DataError):
            return decoded
        with seeded(self.seed, epoch, index):
            image = self._augment(decoded[0])
        return Sample(self.normalize(functional.to_tensor(image)), item.label, index, "")

    def _augment(self, image: Image.Image) -> Image.Image:
        settings = self.augmentation
        window = transforms.RandomResizedCrop.get_params(image, list(settings.area), list(settings.aspect))
        image = functional.resized_crop(image, *window, [settings.crop, settings.crop])
        return functional.hflip(image) if torch.rand(1).item() < settings.flip else image


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
