"""From image files to batches: decoding, the evaluation protocol, and each file's digest on the way."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from sdabench.data.description import Preprocessing
from sdabench.data.imagenet import ImageNetSplit
from sdabench.errors import DataError


@dataclass(frozen=True)
class Sample:
    """One preprocessed image (3, H, W), its class index, its place in the listing, its file's sha256."""

    image: Tensor
    label: int
    index: int
    sha256: str


@dataclass(frozen=True)
class Batch:
    """Images (N, 3, H, W) and labels (N,)."""

    images: Tensor
    labels: Tensor
    indices: list[int]
    sha256: list[str]

    def pin_memory(self) -> "Batch":
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.indices, self.sha256)


class EvaluationImages(Dataset[Sample | DataError]):
    """The images of a split under the evaluation protocol.

    A file that cannot be decoded comes back as the error itself, because an exception loses its words
    on the way out of a loader's worker; :func:`collate` passes it on. Nothing takes its place.
    """

    def __init__(self, split: ImageNetSplit, preprocessing: Preprocessing) -> None:
        self.split = split
        self.transform = transforms.Compose(
            [
                transforms.Resize(
                    preprocessing.resize, transforms.InterpolationMode(preprocessing.interpolation)
                ),
                transforms.CenterCrop(preprocessing.crop),
                transforms.ToTensor(),
                transforms.Normalize(preprocessing.mean, preprocessing.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.split.items)

    def __getitem__(self, index: int) -> Sample | DataError:
        item = self.split.items[index]
        path = self.split.root / item.path
        try:
            data = path.read_bytes()
        except OSError as error:
            return DataError(f"{path} cannot be read: {error.strerror}")
        try:
            image = Image.open(io.BytesIO(data)).convert("RGB")
        except UnidentifiedImageError:
            return DataError(f"{path} is no image; restore it from the original archive")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return DataError(f"{path} cannot be decoded ({error}); restore it from the original archive")
        return Sample(self.transform(image), item.label, index, hashlib.sha256(data).hexdigest())


def collate(samples: Sequence[Sample | DataError]) -> Batch | DataError:
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
    good = [sample for sample in samples if isinstance(sample, Sample)]
    return Batch(
        images=torch.stack([sample.image for sample in good]),
        labels=torch.tensor([sample.label for sample in good]),
        indices=[sample.index for sample in good],
        sha256=[sample.sha256 for sample in good],
    )
