"""Datasets and batches of images: decode, crop and collate image files.

Pillow decodes every file and converts it to RGB: gray, palette, CMYK, transparent and 16-bit images,
independent of the file name extension; see :mod:`sdabench.data.decoding`. EXIF rotation is ignored, as in
common ImageNet pipelines.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from math import ceil
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate
from torchvision import io
from torchvision.transforms.functional import pil_to_tensor

from sdabench.data.archives import Member
from sdabench.data.augmentation import Augmenter
from sdabench.data.decoded import DecodedImages, decoded_images
from sdabench.data.decoding import Location, Unusable, decode_bytes, open_image, read_file
from sdabench.data.description import Preprocessing
from sdabench.data.folders import ImageSplit
from sdabench.data.read_ahead import ReadAhead
from sdabench.data.shards import ShardSplit
from sdabench.data.views import IMAGENET_NORMALIZATION, Normalization, resize_and_crop
from sdabench.errors import DataError
from sdabench.registry.recipe_parts import Augmentation

B = TypeVar("B")
BROKEN_SHOWN = 20


@dataclass(frozen=True)
class Sample:
    """One uint8 image (3, H, W), its class index, its index in the listing, and the sha256 of its file."""

    image: Tensor
    label: int
    index: int
    sha256: str
    normalization: Normalization = IMAGENET_NORMALIZATION


@dataclass(frozen=True)
class Batch:
    """Images (N, 3, H, W) and labels (N,); ``skipped`` are the errors of images that were left out.

    The images are uint8 pixels, channels last in memory, until :meth:`to` normalizes them.
    """

    images: Tensor
    labels: Tensor
    indices: list[int]
    sha256: list[str]
    skipped: list[str]
    normalization: Normalization = IMAGENET_NORMALIZATION

    @classmethod
    def of(cls, samples: Sequence[Sample], skipped: list[str]) -> "Batch":
        pixels = [sample.image.permute(1, 2, 0) for sample in samples]
        return cls(
            images=default_collate(pixels).permute(0, 3, 1, 2),  # collates into shared memory in a worker
            labels=torch.tensor([sample.label for sample in samples]),
            indices=[sample.index for sample in samples],
            sha256=[sample.sha256 for sample in samples],
            skipped=skipped,
            normalization=samples[0].normalization,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def micro_batches(self, count: int) -> Iterator["Batch"]:
        """Split into ``count`` micro-batches of nearly equal size."""
        for chosen in np.array_split(np.arange(len(self)), count):
            yield replace(
                self,
                images=self.images[chosen[0] : chosen[-1] + 1],
                labels=self.labels[chosen[0] : chosen[-1] + 1],
                indices=[self.indices[i] for i in chosen],
                sha256=[self.sha256[i] for i in chosen],
            )

    def to(self, device: torch.device, layout: torch.memory_format) -> "Batch":
        """Move to a device and normalize the images to float32."""
        there = self.mapped(partial(move, device=device))
        return replace(there, images=self.normalization(there.images, layout))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch with ``change`` applied to each tensor."""
        return replace(self, images=change(self.images), labels=change(self.labels))

    def pin_memory(self) -> "Batch":
        return self.mapped(Tensor.pin_memory)


def move(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to a device; the host waits only for copies to the CPU, whose values it reads."""
    return tensor.to(device, non_blocking=device.type != "cpu")


def decode(
    path: Location, size: tuple[int, int] | None = None, decoded: DecodedImages | None = None
) -> tuple[Image.Image, str] | DataError:
    """Read a file; return its RGB image and its sha256.

    Errors are returned, not raised, because a data loader worker loses the messages of exceptions;
    :func:`collate` passes them on. Broken images are never replaced by others. ``size`` is (width,
    height) in pixels according to the annotations.
    """
    data = read_file(path)
    if isinstance(data, Unusable):
        return DataError(f"{path} {data}")
    digest = hashlib.sha256(data).hexdigest()
    known = None if decoded is None else decoded.image(digest)
    if known is not None and size in (None, known.size):
        return known, digest
    image = decode_bytes(data, size)
    if isinstance(image, Unusable):
        return DataError(f"{path} {image}")
    return image, digest


def decode_pixels(path: Location, decoded: DecodedImages | None = None) -> Tensor | DataError:
    """Read the uint8 pixels (3, H, W) of a file for training; faster than :func:`decode` for common JPEGs."""
    if decoded is None:
        data = read_file(path)
        if isinstance(data, bytes) and (pixels := decode_jpeg(data)) is not None:
            return pixels
    read = decode(path, decoded=decoded)
    return read if isinstance(read, DataError) else pil_to_tensor(read[0])


def decode_jpeg(data: bytes) -> Tensor | None:
    """Decode a JPEG file to uint8 (3, H, W), channels last in memory, with the same pixels as Pillow.

    Returns None for files that Pillow should decode: other formats and color spaces, broken and too large
    files (for its error message), and all files if torchvision has no decoder, as is planned.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        open_image(BytesIO(data))
        with warnings.catch_warnings(action="ignore"):  # of its removal, and of read-only bytes
            pixels: Tensor = io.decode_jpeg(torch.frombuffer(data, dtype=torch.uint8))
    except Exception:  # of which Pillow gives the message
        return None
    return pixels.expand(3, -1, -1) if len(pixels) in (1, 3) else None


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed torch's random numbers from a key; the generator state is restored at the end."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_from(*key))
        yield


def seed_from(*key: int) -> int:
    """Derive a seed from a sequence of numbers."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


class EvaluationImages(Dataset[Sample | DataError]):
    """Images of a split under the evaluation protocol."""

    def __init__(self, split: ImageSplit, preprocessing: Preprocessing) -> None:
        self.split, self.preprocessing = split, preprocessing
        self.normalization = Normalization(preprocessing.mean, preprocessing.std)
        self.decoded = decoded_images(split)
        self.ahead = None
        if (
            isinstance(split, ShardSplit) and split.subset_of is None
        ):  # of a subset, most of an extent is not used
            self.ahead = ReadAhead(split)

    def __len__(self) -> int:
        return len(self.split.items)

    def __getitem__(self, index: int) -> Sample | DataError:
        item = self.split.items[index]
        file = self.split.file(item)
        if self.ahead is not None and isinstance(file, Member):
            self.ahead.prepare(file)
        decoded = decode(file, decoded=self.decoded)
        if isinstance(decoded, DataError):
            return decoded
        image, digest = decoded
        pixels = pil_to_tensor(resize_and_crop(image, self.preprocessing))
        return Sample(pixels, item.label, index, digest, self.normalization)


class TrainingImages(Dataset[Sample | DataError]):
    """Images of a split, augmented by random numbers that depend only on (seed, epoch, index[, copy]).

    With ``read_ahead``, for images in the order of their shards, shards are read in large extents.
    """

    def __init__(
        self,
        split: ImageSplit,
        augmentation: Augmentation,
        seed: int,
        normalization: Normalization = IMAGENET_NORMALIZATION,
        read_ahead: bool = False,
    ) -> None:
        self.split, self.seed, self.normalization = split, seed, normalization
        self.augment = Augmenter(augmentation, normalization.mean)
        self.decoded = decoded_images(split)
        self.ahead = ReadAhead(split) if read_ahead and isinstance(split, ShardSplit) else None

    def __getitem__(self, key: tuple[int, ...]) -> Sample | DataError:
        epoch, index = key[:2]
        item = self.split.items[index]
        file = self.split.file(item)
        if self.ahead is not None and isinstance(file, Member):
            self.ahead.prepare(file, epoch)
        pixels = decode_pixels(file, self.decoded)
        if isinstance(pixels, DataError):
            return pixels
        with seeded(self.seed, *key):
            image = self.augment(pixels)
        return Sample(image, item.label, index, "", self.normalization)


class TrainingOrder(Sampler[list[tuple[int, ...]]]):
    """Batches of a training run as (epoch, index) pairs: a permutation of the images per epoch.

    The last batch of an epoch can be smaller. It is dropped if it has fewer than ``smallest`` images, the
    minimum for batch norm. With ``repeats``, a batch has so many times fewer images, and copies of them as
    (epoch, index, copy), as far apart as possible; an epoch has as many steps as without.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        epochs: int,
        seed: int,
        smallest: int = 2,
        first_step: int = 0,
        repeats: int = 1,
    ) -> None:
        self.repeats = repeats
        self.images, self.batch_size, self.epochs, self.seed = images, batch_size, epochs, seed
        full, rest = divmod(images, batch_size)
        self.smallest = smallest
        self.steps_per_epoch = full + (rest >= smallest)
        self.first_step = first_step

    def __len__(self) -> int:
        return self.steps_per_epoch * self.epochs - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        epoch, skip = divmod(self.first_step, self.steps_per_epoch)
        for current in range(epoch, self.epochs):
            order = self.epoch_order(current)
            for step in range(skip, self.steps_per_epoch):
                size = min(self.batch_size, self.images - step * self.batch_size)
                start = step * ceil(self.batch_size / self.repeats)
                chosen = order[start : start + ceil(size / self.repeats)]
                places = (divmod(place, len(chosen)) for place in range(size))
                yield [(current, int(chosen[index]), *[copy][:copy]) for copy, index in places]
            skip = 0

    def epoch_order(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the indices of the images of an epoch in order."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.images)


class RankBatches(Sampler[list[tuple[int, ...]]]):
    """The share of one rank in each batch: ``own`` of the nearly equal ``micro_batches``."""

    def __init__(self, order: TrainingOrder, micro_batches: int, own: int, rank: int) -> None:
        self.order, self.micro_batches = order, micro_batches
        self.own = slice(rank * own, (rank + 1) * own)

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        for batch in self.order:
            own = np.array_split(np.arange(len(batch)), self.micro_batches)[self.own]
            yield [batch[index] for index in np.concatenate(own)]


class BrokenImagesError(DataError):
    """Images that cannot be used; the arguments are their messages, of one line each."""

    def __str__(self) -> str:
        if len(self.args) == 1:
            return str(self.args[0])
        reasons = [message.rpartition("; ")[0] or message for message in self.args]  # without the next steps
        rest = f" and {len(reasons) - BROKEN_SHOWN:,} more" if len(reasons) > BROKEN_SHOWN else ""
        return (
            f"{len(reasons):,} broken images: {', '.join(reasons[:BROKEN_SHOWN])}{rest}; restore them "
            "('sdabench data verify' lists all), or leave them out with --skip-broken"
        )


def collate(
    batch_of: Callable[[list[Any], list[str]], B], skip_broken: bool, samples: Sequence[Any]
) -> B | DataError:
    """Collate samples, any of which can be an error, into a batch.

    Args:
        batch_of: makes a batch from samples and the messages of skipped errors.
        skip_broken: skip errors if there is at least one sample; otherwise return the errors as one.
    """
    errors = [sample for sample in samples if isinstance(sample, DataError)]
    good = [sample for sample in samples if not isinstance(sample, DataError)]
    if errors and not (skip_broken and good):
        return errors[0] if len(errors) == 1 else BrokenImagesError(*map(str, errors))
    return batch_of(good, [str(error) for error in errors])
