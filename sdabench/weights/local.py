"""Weights in a file of this machine, and what their publisher says of them. Free of torch."""

from dataclasses import dataclass
from pathlib import Path

from sdabench.data.description import Preprocessing


@dataclass(frozen=True)
class Published:
    """What the publisher of weights says of them; accuracies in percent of ImageNet's validation images."""

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

    def difference(self, own: Preprocessing) -> str | None:
        """How images became inputs otherwise than in our measurement, so that another accuracy is due."""
        fields = ("resize", "crop", "interpolation", "mean", "std")
        theirs, ours = self.preprocessing, own
        other = [field for field in fields if getattr(theirs, field) != getattr(ours, field)]
        if not other:
            return None
        there, here = (
            ", ".join(f"{field} {_in_words(getattr(each, field))}" for field in other)
            for each in (theirs, ours)
        )
        return (
            f"{self.name} was published at {there}; measured here at {here}: another accuracy is to be "
            "expected"
        )


@dataclass(frozen=True)
class LocalWeights:
    """A file of this machine, or where it would be.

    ``source`` is what a record says of it, and what ``--weights`` takes again; ``sha256`` is None where
    nothing has read it yet.
    """

    path: Path
    source: str
    sha256: str | None = None
    published: Published | None = None

    @classmethod
    def of_file(cls, path: Path) -> "LocalWeights":
        return cls(path, str(path.resolve()))


def _in_words(value: object) -> str:
    return f"({', '.join(map(str, value))})" if isinstance(value, tuple) else str(value)
