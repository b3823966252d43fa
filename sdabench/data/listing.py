"""Store the list of files of a split, so that other processes need not list the folders again."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from sdabench.data.description import FrozenModel
from sdabench.data.folders import ImageSplit
from sdabench.data.source import DataSource
from sdabench.data.split import Split, SplitName
from sdabench.errors import DataError
from sdabench.files import atomic_write
from sdabench.registry.schema import DataTask


class Listing(FrozenModel):
    """A stored listing: a file with the lines of the ``listing_sha256`` of a split."""

    file: Path
    sha256: str
    complete: bool
    fingerprint_sha256: str | None
    subset_of: int | None = None
    layout: str | None = None
    class_names: tuple[str, ...] | None = None  # unless the kind of dataset fixes them
    candidates: tuple[int, ...] | None = None

    @classmethod
    def write(cls, split: Split, folder: Path) -> "Listing":
        """Write the listing of a split to a folder, unless it exists.

        Raises:
            OutputError: the file cannot be written.
        """
        path = folder / f"{split.listing_sha256}.tsv"
        if not path.is_file():
            text = "".join(f"{line}\n" for line in split.listing_lines())
            with atomic_write(path) as file:
                file.write(text.encode(errors="surrogateescape"))
        return cls(
            file=path,
            sha256=split.listing_sha256,
            complete=split.complete,
            fingerprint_sha256=split.fingerprint_sha256,
            subset_of=split.subset_of,
            layout=split.layout,
            class_names=split.class_names if split.own_classes else None,
            candidates=split.candidates if isinstance(split, ImageSplit) else None,
        )

    def read(self, source: DataSource, split: SplitName, task: DataTask) -> Split:
        """Read the split from the listing instead of its folders.

        Raises:
            DataError: the listing is damaged, or class names or annotations have changed.
        """
        found = source.read(split, task, self._sizes())
        if found.listing_sha256 != self.sha256:
            raise DataError(f"the {split} split of {source} has changed since the run started; run it again")
        if isinstance(found, ImageSplit):
            if self.class_names is not None:
                found = found.with_classes(self.class_names)
            found = replace(found, candidates=self.candidates)
        names = ("complete", "fingerprint_sha256", "subset_of", "layout")
        return replace(found, **{name: getattr(self, name) for name in names})

    def _sizes(self) -> dict[str, int]:
        """Read the size in bytes of each file by its path relative to the root of the split."""
        try:
            content = self.file.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {self.file}: {error.strerror}; run the command again") from None
        if sha256(content).hexdigest() != self.sha256:
            raise DataError(f"{self.file} is damaged; delete it and run the command again")
        lines = content.decode(errors="surrogateescape").split("\n")
        pairs = (line.rpartition("\t") for line in lines)
        return {path: int(size) for path, tab, size in pairs if tab and size.isdecimal()}
