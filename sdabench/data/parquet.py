"""Read Parquet files of Hugging Face's image datasets with pyarrow, an optional dependency. Free of torch."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from sdabench.cache import read_entry, write_entry
from sdabench.data.decoding import Stored, Unusable
from sdabench.data.folders import ImageSplit, Item
from sdabench.data.split import ImageFile, SplitName
from sdabench.errors import DataError, UsageError

T = TypeVar("T")
KIND = "parquet-images"
STARTS = {b"\x89PNG": ".png", b"RIFF": ".webp", b"II*": ".tif", b"BM": ".bmp"}  # of files; others are JPEG
PREFIXES: Mapping[SplitName, tuple[str, ...]] = {"train": ("train",), "val": ("val", "test")}  # of file names
FORM = "it needs files such as data/train-00000-of-00002.parquet and data/validation-00000-of-00001.parquet"
HINT = "with images as bytes and labels with names, as datasets.Dataset.to_parquet writes them"


@dataclass(frozen=True)
class Row(Stored):
    """An image in a row of a Parquet file; ``group`` is its row group, ``row`` its place in this group."""

    path: Path
    column: str
    group: int
    row: int

    def read(self) -> bytes | Unusable:
        try:
            data = _row_group(self.path, self.column, self.group)[self.row]
        except Exception as error:  # pyarrow raises many types
            return Unusable(f"cannot be read ({str(error).splitlines()[0] if str(error) else error!r})")
        return Unusable("has no bytes, but maybe the path of a file") if data is None else data

    def __str__(self) -> str:
        return f"{self.path}, row {self.row} of row group {self.group}"


@dataclass(frozen=True)
class ParquetSplit(ImageSplit):
    """A split of rows; ``rows`` are the places of its images by path."""

    rows: Mapping[str, Row] = field(default_factory=dict)

    def file(self, item: ImageFile) -> Row:
        return self.rows[item.path]


def split_files(path: Path, split: SplitName) -> list[Path]:
    """List the files of a split, in ``path`` or in ``path/data``; a single file is ``val``."""
    if path.is_file():
        return [path] if split == "val" else []
    patterns = (f"{folder}{prefix}*.parquet" for prefix in PREFIXES[split] for folder in ("", "data/"))
    return next(filter(None, (sorted(path.glob(pattern)) for pattern in patterns)), [])


def _class_names(path: Path) -> tuple[str, ...]:
    """Return the classes of all splits, so that a class has the same label in each.

    They are those that the training files name, then those that only the others name; or all words.

    Raises:
        DataError: files of one split name different classes, or a class twice.
    """
    found, words = list[str](), set[str]()
    for split in PREFIXES:
        own = list[str]()
        for file in split_files(path, split):
            names = _opened(file, lambda _, columns: columns[2])
            if own and names != own:
                raise DataError(
                    f"{file} names other classes than another file of {split}; use files of one dataset"
                )
            own = names
            words |= set() if names else {row[2] for row in _index(file)["rows"]}
        if len(set(own)) < len(own):
            raise DataError(f"the {split} files at {path} name a class twice; rename one of them")
        found += own
    return tuple(dict.fromkeys([*found, *sorted(words)]))


def read_parquet(
    path: Path, split: SplitName = "val", sizes: Mapping[str, int] | None = None
) -> ParquetSplit:
    """List the images of a split; the classes are those that the files of all splits name.

    Raises:
        UsageError: there is no such file, or pyarrow is missing.
        DataError: a file is damaged, or has no images with labels.
    """
    files = split_files(path, split)
    if not files:
        raise UsageError(f"no {split} files at {path}; --data parquet=PATH: {FORM}")
    indices = [_index(file) for file in files]
    names = _class_names(path)
    labels = {name: label for label, name in enumerate(names)}
    rows, items = dict[str, Row](), list[Item]()
    for file, index in zip(files, indices, strict=True):
        for number, (group, row, label, size, suffix) in enumerate(index["rows"]):
            name = index["names"][label] if index["names"] else label
            image = f"{name.replace('/', '_')}/{file.stem}-{number:06d}{suffix}"
            rows[image] = Row(file.resolve(), index["column"], group, row)
            items.append(Item(image, size, labels[name]))
    if sizes is not None:
        items = [item for item in items if item.path in sizes]
    layout = f"{len(files):,} Parquet file{'s' * (len(files) > 1)} of {split}, {len(names):,} classes"
    return ParquetSplit(
        "parquet", split, path.resolve(), tuple(sorted(items, key=lambda item: item.path)), len(names),
        class_names=names, own_classes=True, layout=layout, rows=rows,
    )  # fmt: skip


@lru_cache(maxsize=2)
def _row_group(path: Path, column: str, group: int) -> list[bytes | None]:
    """Read the images of one row group, which are compressed together."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        read = file.read_row_group(group, [f"{column}.bytes"])[column].to_pylist()
    return [None if each is None else each["bytes"] for each in read]


def _index(path: Path) -> dict[str, Any]:
    """Return names of classes, the column of images, and (group, row, label, size, suffix) of each image."""
    status = path.stat()
    key = [str(path.resolve()), str(status.st_size), str(status.st_mtime_ns)]
    if (content := read_entry(KIND, key)) is not None:
        return dict(json.loads(bytes(content)))
    (image, _, names), rows = _opened(path, lambda file, columns: (columns, list(_rows(file, *columns[:2]))))
    if not rows or (names and max(row[2] for row in rows) >= len(names)):
        raise DataError(f"{path} has no images, or labels without a name; it needs rows {HINT}")
    index = {"names": names, "column": image, "rows": rows}
    write_entry(KIND, key, [json.dumps(index).encode()])
    return index


def _opened(path: Path, use: Callable[[Any, tuple[str, str, list[str]]], T]) -> T:
    """Use an open file and its columns; see :func:`_columns`."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise UsageError("Parquet files need pyarrow: pip install 'sdabench[parquet]'") from None
    try:
        with pq.ParquetFile(path) as file:
            return use(file, _columns(path, file.schema_arrow))
    except DataError:
        raise
    except Exception as error:  # pyarrow raises many types
        raise DataError(f"{path} cannot be read as a Parquet file ({error}); download it again") from None


def _columns(path: Path, schema: Any) -> tuple[str, str, list[str]]:
    """Return the columns of images and labels, and the names of the classes, empty if labels are names."""
    import pyarrow.types as types

    notes = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = notes.get("info", {}).get("features", {})
    images = [
        each.name
        for each in schema
        if types.is_struct(each.type) and "bytes" in {inner.name for inner in each.type}
    ]
    named = {
        name: each["names"] for name, each in features.items() if isinstance(each, dict) and "names" in each
    }
    labels = [name for name in named if name in schema.names]
    words = [each.name for each in schema if each.name == "label" and types.is_string(each.type)]
    if len(images) != 1 or len(labels or words) != 1:
        raise DataError(
            f"{path} has the columns {', '.join(schema.names)}; it needs one of images and one of "
            f"labels, {HINT}"
        )
    label = (labels or words)[0]
    return images[0], label, [str(name) for name in named.get(label, [])]


def _rows(file: Any, image: str, label: str) -> Iterator[tuple[int, int, Any, int, str]]:
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, [f"{image}.bytes", label])
        pairs = zip(table[image].to_pylist(), table[label].to_pylist(), strict=True)
        for row, (content, value) in enumerate(pairs):
            if value is None or (type(value) is int and value < 0):
                continue  # test sets without labels have -1
            data = content["bytes"] or b"" if content else b""
            suffix = next((suffix for start, suffix in STARTS.items() if data.startswith(start)), ".jpg")
            yield group, row, value, len(data), suffix
