"""How a record describes its data: which images, and how they become inputs. Free of torch."""

from pydantic import BaseModel, ConfigDict

from sdabench.models.inputs import MEAN, STD, Triple


class FrozenModel(BaseModel):
    """Base class of what specs and records consist of."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetInfo(FrozenModel):
    """``listing_sha256`` covers relative paths and sizes, ``fingerprint_sha256`` the bytes too.

    ``complete`` means the real dataset, whole, which alone is compared with the README.
    """

    name: str
    split: str
    root: str
    classes: int
    samples: int
    complete: bool
    listing_sha256: str
    fingerprint_sha256: str | None = None


class Preprocessing(FrozenModel):
    """From an image file to an input: short side to ``resize``, centre ``crop``, normalisation."""

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
        """The usual protocol at another crop: the short side stays 8/7 of it."""
        return cls(resize=round(resolution * 8 / 7), crop=resolution)


class Resizing(FrozenModel):
    """For detectors: short side to ``short``, but the long one at most ``long``; then normalisation.

    Up to so many ``detections`` an image are kept.
    """

    short: int = 800
    long: int = 1333
    interpolation: str = "bilinear"
    mean: Triple = MEAN
    std: Triple = STD
    decoder: str = "PIL"
    detections: int = 100

    @property
    def resolution(self) -> int:
        """Short side of the images in pixels."""
        return self.short

    @classmethod
    def at(cls, short: int) -> "Resizing":
        """The usual protocol at another short side: the long one stays in proportion."""
        return cls(short=short, long=round(short * 1333 / 800))
