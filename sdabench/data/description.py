"""Description of datasets and preprocessing in specs and records. Free of torch."""

from sdabench.models.inputs import MEAN, STD, Triple
from sdabench.registry.schema import Strict


class FrozenModel(Strict):
    """Base class of specs and records."""


class DatasetInfo(FrozenModel):
    """A split of a dataset."""

    name: str
    split: str
    root: str
    classes: int
    samples: int
    complete: bool  # the complete real dataset; other results are not compared with the paper
    listing_sha256: str  # of relative paths and sizes
    fingerprint_sha256: str | None = None  # of paths, sizes and contents of the evaluated images
    subset_of: int | None = None  # number of images of the split, if only some of them are used
    skipped: tuple[str, ...] = ()  # images of the listing that were left out because they are broken
    layout: str | None = None  # what the files were taken for, if it is not the usual layout
    num_classes: int | None = None  # including those that do not occur, if there are any
    candidates: int | None = None  # number of classes among which the best are chosen, unless all
    classes_sha256: str | None = None  # of the names of all classes, unless the kind of dataset fixes them


# Filters of Pillow, all with antialiasing but the first.
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


class Preprocessing(FrozenModel):
    """Preprocessing for classification: resize the short side, take the center crop, normalize.

    ``interpolation`` is one of ``INTERPOLATIONS``.
    """

    resize: int = 256
    crop: int = 224
    interpolation: str = "bilinear"
    mean: Triple = MEAN
    std: Triple = STD
    decoder: str = "PIL"

    @property
    def resolution(self) -> int:
        """Side of the crop in pixels."""
        return self.crop

    @classmethod
    def at(cls, resolution: int) -> "Preprocessing":
        """Return the standard protocol at another crop size; the short side stays 8/7 of it."""
        return cls().resized(resolution)

    def resized(self, resolution: int) -> "Preprocessing":
        """Return the same preprocessing at another crop size; the short side stays in proportion."""
        resize = round(resolution * self.resize / self.crop)
        return self.model_copy(update={"resize": resize, "crop": resolution})


class Resizing(FrozenModel):
    """Preprocessing for detectors: scale to the ``short`` side, at most to ``long``, and normalize."""

    short: int = 800
    long: int = 1333
    interpolation: str = "bilinear"
    mean: Triple = MEAN
    std: Triple = STD
    decoder: str = "PIL"
    detections: int = 100  # maximum per image

    @property
    def resolution(self) -> int:
        """Short side of the images in pixels."""
        return self.short

    @classmethod
    def at(cls, short: int) -> "Resizing":
        """Return the standard protocol at another short side; the long side stays in proportion."""
        return cls().resized(short)

    def resized(self, short: int) -> "Resizing":
        """Return the same preprocessing at another short side; the long side stays in proportion."""
        return self.model_copy(update={"short": short, "long": round(short * self.long / self.short)})
