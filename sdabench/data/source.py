"""Parse and read the dataset of ``--data``: ``KIND=PATH``, or ``synthetic`` for generated images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sdabench.data.description import Preprocessing
from sdabench.data.split import Split, SplitName
from sdabench.errors import UsageError
from sdabench.registry.schema import DataTask

Kind = Literal[
    "imagenet", "folder", "cifar10", "cifar100", "fashion-mnist", "parquet", "webdataset", "coco", "synthetic"
]
ARRAYS = ("cifar10", "cifar100", "fashion-mnist")  # small images in arrays
FORMS = ", ".join(f"{kind}=PATH" for kind in get_args(Kind)) + " or synthetic"
COCO_PATHS = ("{}2017", "annotations/instances_{}2017.json")  # of a split, below the path of the dataset


@dataclass(frozen=True)
class DataSource:
    """A dataset to read; without a path, the default dataset, which is generated on first use."""

    kind: Kind = "synthetic"
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "DataSource":
        """Parse the value of ``--data``.

        Raises:
            UsageError: the value is invalid.
        """
        kind, equals, path = text.partition("=")
        if kind not in get_args(Kind) or bool(equals) != bool(path) or (kind != "synthetic" and not path):
            raise UsageError(f"'{text}' is not {FORMS}")
        try:
            return cls(kind, Path(path).expanduser() if path else None)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise UsageError(f"{text}: {error}") from None

    def absolute(self) -> "DataSource":
        """Return the source with an absolute path."""
        return self if self.path is None else DataSource(self.kind, self.path.absolute())

    def is_for(self, task: DataTask) -> bool:
        return self.kind == "synthetic" or (self.kind == "coco") == (task == "detection")

    def check(self, task: DataTask) -> None:
        """Check that this kind of dataset fits a task.

        Raises:
            UsageError: the dataset is for another task.
        """
        if self.is_for(task):
            return
        if self.kind == "coco":
            raise UsageError(
                "coco's images have no single class; use --data imagenet=PATH, folder=PATH or synthetic for "
                "classification"
            )
        raise UsageError(f"{self.kind} has no boxes; use --data coco=PATH or synthetic for detection")

    @property
    def preprocessing(self) -> Preprocessing:
        """The standard preprocessing of classification, or that of small images: whole, at 32 pixels."""
        if self.kind not in ARRAYS:
            return Preprocessing()
        from sdabench.data.small_images import KINDS

        return KINDS[self.kind].preprocessing

    def own_task(self) -> DataTask:
        """Return the task of the dataset; a generated one states it in its manifest.

        Raises:
            UsageError: there is no such folder.
            DataError: the folder is not a generated dataset.
        """
        if self.kind == "synthetic" and self.path is not None:
            from sdabench.data.synthetic.manifest import read_manifest

            return read_manifest(self.path).task
        return "detection" if self.kind == "coco" else "classification"

    def splits(self) -> tuple[SplitName, ...]:
        """List the splits that exist, or ``val`` if none does, so that reading it gives the error."""

        def exists(name: SplitName) -> bool:
            if self.path is None:
                return True
            if self.kind in ARRAYS:
                return True
            if self.kind == "parquet":
                from sdabench.data.parquet import split_files

                return bool(split_files(self.path, name))
            if self.kind == "webdataset":
                from sdabench.data import shards

                return bool(shards.split_files(self.path, name))
            if self.kind == "imagenet":
                from sdabench.data.imagenet import has_split

                return has_split(self.path, name)
            if self.kind == "folder":
                from sdabench.data import class_folders

                return class_folders.has_split(self.path, name)
            needed = COCO_PATHS if self.kind == "coco" else ()
            return all((self.path / path.format(name)).exists() for path in needed)

        return tuple(filter(exists, get_args(SplitName))) or ("val",)

    def __str__(self) -> str:
        return self.kind if self.path is None else f"{self.kind}={self.path}"

    def ensure_generated(
        self, advance: Callable[[int], None] = lambda images: None, task: DataTask = "classification"
    ) -> "DataSource":
        """Return the source with a path, after generating the default dataset of the task if needed."""
        if self.path is not None:
            return self
        from sdabench.data.synthetic import default_dataset

        return DataSource(self.kind, default_dataset(advance, task))

    def read(
        self, split: SplitName, task: DataTask = "classification", sizes: Mapping[str, int] | None = None
    ) -> Split:
        """List a split: an ImageSplit for classification, a CocoSplit for detection.

        Args:
            sizes: known sizes in bytes of its files by path; then no folder is read.

        Raises:
            UsageError: there is no such folder, or it is for another task.
            DataError: the folder is invalid.
        """
        self.check(task)
        path = self.ensure_generated(task=task).path
        assert path is not None
        if self.kind == "imagenet":
            from sdabench.data.imagenet import read_imagenet

            return read_imagenet(path, split, sizes)
        if self.kind in ARRAYS:
            from sdabench.data.small_images import read_arrays

            return read_arrays(self.kind, path, split, sizes)
        if self.kind == "parquet":
            from sdabench.data.parquet import read_parquet

            return read_parquet(path, split, sizes)
        if self.kind == "webdataset":
            from sdabench.data.shards import read_shards

            return read_shards(path, split, sizes)
        if self.kind == "folder":
            from sdabench.data.class_folders import read_folder

            return read_folder(path, split, sizes)
        if self.kind == "coco":
            from sdabench.data.coco import read_coco

            return read_coco(path, split, sizes)
        if task == "detection":
            from sdabench.data.synthetic.detection import read_detection

            return read_detection(path, split, sizes)
        from sdabench.data.synthetic.classification import read_classification

        return read_classification(path, split, sizes)
