"""Which dataset a command reads: ``imagenet=PATH``, ``synthetic=PATH``, or ``synthetic`` for the default."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sdabench.data.folders import ImageSplit, SplitName
from sdabench.errors import UsageError

Kind = Literal["imagenet", "synthetic"]


@dataclass(frozen=True)
class DataSource:
    """``path`` is None for the default dataset, which is made where it is first read."""

    kind: Kind = "synthetic"
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "DataSource":
        """Reads the words of a command line.

        Raises:
            UsageError: they name no dataset.
        """
        kind, equals, path = text.partition("=")
        if kind not in get_args(Kind) or bool(equals) != bool(path) or (kind == "imagenet" and not path):
            raise UsageError(f"'{text}' is not imagenet=PATH, synthetic=PATH or synthetic")
        try:
            return cls(kind, Path(path).expanduser() if path else None)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise UsageError(f"{text}: {error}") from None

    def __str__(self) -> str:
        return self.kind if self.path is None else f"{self.kind}={self.path}"

    def located(self, advance: Callable[[int], None] = lambda images: None) -> "DataSource":
        """The same with a path: the default dataset is made if it is not there yet.

        Args:
            advance: called with the number of images just made.
        """
        if self.path is not None:
            return self
        from sdabench.data.synthetic import default_dataset

        return DataSource(self.kind, default_dataset(advance))

    def read(self, split: SplitName) -> ImageSplit:
        """The listing of a split.

        Raises:
            UsageError: there is no such folder.
            DataError: the folder is not what it claims to be.
        """
        located = self.located()
        assert located.path is not None
        if self.kind == "imagenet":
            from sdabench.data.imagenet import read_imagenet

            return read_imagenet(located.path, split)
        from sdabench.data.synthetic.classification import read_classification

        return read_classification(located.path, split)
