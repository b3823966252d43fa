"""Which dataset a command reads: ``imagenet=PATH``, ``coco=PATH``, ``synthetic=PATH``, or ``synthetic``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, overload

from sdabench.data.split import Split, SplitName
from sdabench.errors import UsageError
from sdabench.registry.schema import DataTask

if TYPE_CHECKING:
    from sdabench.data.coco import CocoSplit
    from sdabench.data.folders import ImageSplit

Kind = Literal["imagenet", "coco", "synthetic"]
NOT_FOR: dict[tuple[Kind, DataTask], str] = {
    ("imagenet", "detection"): "imagenet has no boxes; for detection say --data coco=PATH or synthetic",
    ("coco", "classification"): "coco's images are of no single class; for classification say "
    "--data imagenet=PATH or synthetic",
}


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
        if kind not in get_args(Kind) or bool(equals) != bool(path) or (kind != "synthetic" and not path):
            raise UsageError(f"'{text}' is not imagenet=PATH, coco=PATH, synthetic=PATH or synthetic")
        try:
            return cls(kind, Path(path).expanduser() if path else None)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise UsageError(f"{text}: {error}") from None

    def absolute(self) -> "DataSource":
        """The same source for a process in another directory."""
        return self if self.path is None else DataSource(self.kind, self.path.absolute())

    def check(self, task: DataTask) -> None:
        """Refuses a task that this kind of dataset is not for.

        Raises:
            UsageError: it is not.
        """
        if (self.kind, task) in NOT_FOR:
            raise UsageError(NOT_FOR[self.kind, task])

    def own_task(self) -> DataTask:
        """What it is for. A generated dataset says so itself; the default one is for classification.

        Raises:
            UsageError: there is no such folder.
            DataError: it is no generated dataset.
        """
        if self.kind == "synthetic" and self.path is not None:
            from sdabench.data.synthetic.files import read_manifest

            return read_manifest(self.path).task
        return "detection" if self.kind == "coco" else "classification"

    def splits(self) -> tuple[SplitName, ...]:
        """Those that are there; ``val`` where there is none, which reading then says better."""
        if self.kind == "synthetic" or self.path is None:
            return get_args(SplitName)
        if self.kind == "imagenet":
            parts = {name: [self.path / name] for name in get_args(SplitName)}
        else:
            annotations = self.path / "annotations"
            parts = {
                name: [self.path / f"{name}2017", annotations / f"instances_{name}2017.json"]
                for name in get_args(SplitName)
            }
        return tuple(name for name in parts if all(part.exists() for part in parts[name])) or ("val",)

    def __str__(self) -> str:
        return self.kind if self.path is None else f"{self.kind}={self.path}"

    def located(
        self, advance: Callable[[int], None] = lambda images: None, task: DataTask = "classification"
    ) -> "DataSource":
        """The same with a path: the task's default dataset is made if it is not there yet.

        Args:
            advance: called with the number of images just made.
        """
        if self.path is not None:
            return self
        from sdabench.data.synthetic import default_dataset

        return DataSource(self.kind, default_dataset(advance, task))

    @overload
    def read(
        self,
        split: SplitName,
        task: Literal["classification"] = "classification",
        sizes: Mapping[str, int] | None = None,
    ) -> "ImageSplit": ...

    @overload
    def read(
        self, split: SplitName, task: Literal["detection"], sizes: Mapping[str, int] | None = None
    ) -> "CocoSplit": ...

    @overload
    def read(self, split: SplitName, task: DataTask, sizes: Mapping[str, int] | None = None) -> Split: ...

    def read(
        self, split: SplitName, task: DataTask = "classification", sizes: Mapping[str, int] | None = None
    ) -> Split:
        """List a split: an ImageSplit for classification, a CocoSplit for detection.

        Args:
            sizes: the sizes in bytes of its files by path, where they are known; then none is looked for.

        Raises:
            UsageError: there is no such folder, or it is for another task.
            DataError: the folder is not what it claims to be.
        """
        self.check(task)
        located = self.located(task=task)
        assert located.path is not None
        if self.kind == "imagenet":
            from sdabench.data.imagenet import read_imagenet

            return read_imagenet(located.path, split, sizes)
        if self.kind == "coco":
            from sdabench.data.coco import read_coco

            return read_coco(located.path, split, sizes)
        if task == "detection":
            from sdabench.data.synthetic.detection import read_detection

            return read_detection(located.path, split, sizes)
        from sdabench.data.synthetic.classification import read_classification

        return read_classification(located.path, split, sizes)
