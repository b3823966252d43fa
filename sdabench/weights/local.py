"""Describe weights in a local file, and the statements of their publisher. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from sdabench.data.description import Preprocessing


@dataclass(frozen=True)
class Published:
    """The publisher's preprocessing and ImageNet validation accuracy (percent) of weights."""

    publisher: str
    name: str
    preprocessing: Preprocessing
    top1_pct: float | None = None
    top5_pct: float | None = None

    @property
    def accuracy(self) -> str | None:
        if self.top1_pct is None or self.top5_pct is None:
            return None
        numbers = f"{self.top1_pct:.3f} / {self.top5_pct:.3f}"
        return f"{self.publisher} publishes {numbers} (top-1 / top-5) for {self.name}"

    def __str__(self) -> str:
        images = self.preprocessing
        words = f"resize {images.resize}, crop {images.crop}, {images.interpolation}"
        normalized = f"mean {_format(images.mean)}, std {_format(images.std)}"
        return f"Preprocessing of {self.publisher} for {self.name}: {words}, {normalized}"

    def difference(self, measured: Preprocessing) -> str | None:
        """Describe how the published preprocessing differs from the measured one; None if it does not."""
        fields = ("resize", "crop", "interpolation", "mean", "std")
        published = self.preprocessing
        other = [field for field in fields if getattr(published, field) != getattr(measured, field)]
        if not other:
            return None
        there, here = (
            ", ".join(f"{field} {_format(getattr(each, field))}" for field in other)
            for each in (published, measured)
        )
        return f"{self.name} was published at {there}; measured here at {here}: expect another accuracy"


@dataclass(frozen=True)
class LocalWeights:
    """A local file of weights, or the path that it will be downloaded to."""

    path: Path
    source: str  # as in a record; also a value for ``--weights``
    sha256: str | None = None  # None until the file has been read
    published: Published | None = None
    wrapper: str | None = None  # key of the weights inside the file, if a user chose it

    @classmethod
    def of_file(cls, path: Path) -> "LocalWeights":
        return cls(path, str(path.resolve()))


def _format(value: object) -> str:
    return f"({', '.join(map(str, value))})" if isinstance(value, tuple) else str(value)
