"""How a record describes its data: which images, and how they become inputs. Free of torch."""

from pydantic import BaseModel, ConfigDict

Triple = tuple[float, float, float]
MEAN: Triple = (0.485, 0.456, 0.406)
STD: Triple = (0.229, 0.224, 0.225)


class Part(BaseModel):
    """A frozen piece of a record."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetInfo(Part):
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


class Preprocessing(Part):
    """From an image file to an input: short side to ``resize``, centre ``crop``, normalisation."""

    resize: int = 256
    crop: int = 224
    interpolation: str = "bilinear"
    mean: Triple = MEAN
    std: Triple = STD
    decoder: str = "PIL"

    @classmethod
    def at(cls, resolution: int) -> "Preprocessing":
        """The usual protocol at another crop: the short side stays 8/7 of it."""
        return cls(resize=round(resolution * 8 / 7), crop=resolution)
