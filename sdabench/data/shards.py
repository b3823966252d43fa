"""Read shards of the webdataset format where they are: tar archives with samples KEY.jpg and KEY.cls.

The library streams shards and gives no access to a single sample, so the places of images are indexed. The
library expands patterns, groups files to samples and decodes labels; a cached index is read without it.
"""

import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from os.path import commonpath
from pathlib import Path, PurePosixPath
from typing import Any

from sdabench.data.archives import EXTENSIONS, Member, Place, cached_index, check_end
from sdabench.data.class_folders import FOLDERS
from sdabench.data.folders import ImageSplit, Item
from sdabench.data.official import plural
from sdabench.data.split import ImageFile, SplitName
from sdabench.errors import DataError, OutputError, UsageError
from sdabench.files import locked
from sdabench.paths import cache_dir

KIND = "shard-index"
WORDS = tuple(word for words in FOLDERS.values() for word in words)
NAMES_FILE = "classnames.txt"
LABELS = ("cls", "json")  # extensions
KEYS = ("label", "cls", "class", "class_name")  # of the label in a JSON file
MAX_LABEL_BYTES = 1 << 20
MAX_CLASSES = 100_000  # without names
FORM = (
    "it needs local shards: a folder with train-0000.tar and val-0000.tar, or a pattern such as "
    "val-{0000..0049}.tar"
)
HINT = "a sample is an image and its label: KEY.jpg with KEY.cls, or with KEY.json that has the key 'label'"


@dataclass(frozen=True)
class ShardSplit(ImageSplit):
    """A split of samples in shards; ``members`` are the places of its images by path."""

    members: Mapping[str, Member] = field(default_factory=dict)

    def file(self, item: ImageFile) -> Member:
        return self.members[item.path]


def split_files(path: Path, split: SplitName) -> list[Path]:
    """List the shards whose name or folder tells this split; all shards are ``val`` if none tells any.

    Raises:
        UsageError: a shard of a pattern is missing, or the library that expands it.
    """
    of_word = defaultdict[str | None, list[Path]](list)
    for shard in _shards(path):
        of_word[_word(shard)].append(shard)
    if set(of_word) == {None}:
        return of_word[None] if split == "val" else []
    return next((of_word[word] for word in FOLDERS[split] if word in of_word), [])


def read_shards(path: Path, split: SplitName = "val", sizes: Mapping[str, int] | None = None) -> ShardSplit:
    """List the images of a split; its classes are those of ``classnames.txt``, or the labels of all splits.

    Raises:
        UsageError: there are no such shards, or the library is missing.
        DataError: a shard is damaged, or has no images with labels.
    """
    files = {name: split_files(path, name) for name in FOLDERS}
    own = files[split]
    if not own:
        raise UsageError(f"no shards of {split} at {path}; --data webdataset=PATH: {FORM}")
    root = path if path.is_dir() else Path(commonpath([file.parent for file in own]))
    with _one_process():
        indices = {file: _index(file) for shards in files.values() for file in shards}
    labels = {row[3] for index in indices.values() for row in index["rows"]}
    if not any(indices[file]["rows"] for file in own):
        raise DataError(f"{own[0]} has no images with labels; {HINT}")
    names, how = _class_names(own[0], labels)
    positions = {name: label for label, name in enumerate(names)}
    members, items = dict[str, Member](), list[Item]()
    for file in own:
        # Named by its place below the root, also if it is a link: the order of a training follows from that.
        below = file.relative_to(root)
        archive, shard = root.resolve() / below, below.with_suffix("").as_posix()
        for number, (name, offset, size, label) in enumerate(indices[file]["rows"]):
            place = label if type(label) is int else positions[label]
            image = f"{names[place].replace('/', '_')}/{shard}-{number:06d}{PurePosixPath(name).suffix}"
            members[image] = Member(archive, name, Place(offset, size))
            items.append(Item(image, size, place))
    if sizes is not None:
        items = [item for item in items if item.path in sizes]
    left_out = sum(indices[file]["left_out"] for file in own)
    layout = f"{plural(len(own), 'shard')} of {split}, {plural(len(names), 'class', 'classes')}{how}" + (
        f"; {plural(left_out, 'sample')} without image or label left out" if left_out else ""
    )
    return ShardSplit(
        "webdataset", split, root.resolve(), tuple(sorted(items, key=lambda item: item.path)), len(names),
        class_names=names, own_classes=True, layout=layout, members=members,
    )  # fmt: skip


def _shards(path: Path) -> list[Path]:
    """List the shards in a folder and in its folders of splits, those of a pattern, or the path itself."""
    if path.is_dir():
        return sorted(
            each for place in (path, *(path / word for word in WORDS)) for each in place.glob("*.tar")
        )
    if path.is_file() or "{" not in str(path):
        return [path] if path.is_file() else []
    try:
        from braceexpand import braceexpand
    except ImportError:
        raise missing_library() from None
    try:
        shards = [Path(each) for each in braceexpand(str(path))]
    except ValueError as error:
        raise UsageError(f"{path} is not a pattern ({error}); {FORM}") from None
    if (missing := next((shard for shard in shards if not shard.is_file()), None)) is not None:
        raise UsageError(f"no shard at {missing}, one of {len(shards):,} of {path}; {FORM}")
    return shards


def missing_library() -> UsageError:
    return UsageError("shards need the webdataset library: pip install 'sdabench[webdataset]'")


def _word(shard: Path) -> str | None:
    """Return the word in the name of a shard, or of its folder, that tells the split."""
    for name in (shard.stem, shard.parent.name):
        if found := [word for word in re.findall("[a-z]+", name.lower()) if word in WORDS]:
            return str(found[0])
    return None


def _class_names(shard: Path, labels: set[Any]) -> tuple[tuple[str, ...], str]:
    """Return the names of the classes in the order of labels, and where they are from."""
    numbers = {label for label in labels if type(label) is int}
    words = sorted(labels - numbers)
    file = next(
        (f for f in (shard.parent / NAMES_FILE, shard.parent.parent / NAMES_FILE) if f.is_file()), None
    )
    if file is not None:
        try:
            lines = [line.strip() for line in file.read_text("utf-8").rstrip().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{file} cannot be read ({error}); save it as UTF-8 text, a class a line"
            ) from None
        names = tuple(  # 'missile' is two of ImageNet's classes
            f"{name} ({label})" if lines.count(name) > 1 or not name else name
            for label, name in enumerate(lines)
        )
        unnamed = [max(numbers)] if numbers and max(numbers) >= len(names) else []
        if unnamed := [*unnamed, *(word for word in words if word not in names)]:
            raise DataError(
                f"{file} names {plural(len(names), 'class', 'classes')}, and the shards have the label "
                f"{unnamed[0]}; it needs a line for each class, in the order of the labels"
            )
        return names, f", named by {NAMES_FILE}"
    if words and numbers:
        raise DataError(
            f"{shard} and the other shards have both numbers and words for labels ({min(numbers)}, "
            f"{words[0]}); write one kind, or name the classes in {NAMES_FILE}"
        )
    if not numbers:
        return tuple(words), ""
    if max(numbers) >= MAX_CLASSES:
        raise DataError(
            f"{shard} and the other shards have the label {max(numbers)}, which is too large; number the "
            f"classes from 0, or name them in {NAMES_FILE}"
        )
    return tuple(
        map(str, range(max(numbers) + 1))
    ), f", which have numbers for names, as {NAMES_FILE} is missing"


@contextmanager
def _one_process() -> Iterator[None]:
    """Let one process of a machine index shards, while the others wait for the index in the cache."""
    with ExitStack() as stack:
        with suppress(OutputError):  # without a cache, each process indexes
            lock = locked(cache_dir() / f"{KIND}.lock", "another process that is indexing shards", "")
            stack.enter_context(lock)
        yield


def _index(shard: Path) -> dict[str, Any]:
    """Return (name, offset, size, label) of each image in ``rows``, and how many samples are left out."""

    def read(tar: tarfile.TarFile) -> dict[str, Any]:
        try:
            from webdataset.tariterators import group_by_keys
        except ImportError:
            raise missing_library() from None
        rows, left_out = [], 0
        try:
            for sample in group_by_keys(_files(shard, tar)):
                image, label = _image(shard, sample), _label(shard, sample)
                if image is None or label is None:
                    left_out += 1
                else:
                    rows.append((*image, label))
        except ValueError as error:  # of the library
            name = str(error.args[0]).partition(":")[0]
            raise DataError(f"{shard} has two files {name} in a sample; write the shard again") from None
        return {"rows": rows, "left_out": left_out}

    return dict(cached_index(KIND, shard, read))


def _files(shard: Path, tar: tarfile.TarFile) -> Iterator[dict[str, Any]]:
    """Yield the files of a shard as the library does, with the content of labels and the place of others."""
    for member in tar:
        if not member.isreg():
            continue
        data: Any = (member.name, member.offset_data, member.size)
        if member.name.lower().endswith(tuple(f".{extension}" for extension in LABELS)):
            if member.size > MAX_LABEL_BYTES or (content := tar.extractfile(member)) is None:
                raise DataError(f"{shard}: {member.name} has {member.size:,} bytes, too many for a label")
            data = content.read()
        yield {"fname": member.name, "data": data, "__url__": str(shard)}
    check_end(shard, tar)


def _image(shard: Path, sample: Mapping[str, Any]) -> tuple[str, int, int] | None:
    found = {key: value for key, value in sample.items() if f".{key}".endswith(EXTENSIONS)}
    images = {key: value for key, value in found.items() if "." not in key} or found
    if len(images) > 1:
        several = ", ".join(sorted(images))
        raise DataError(
            f"{shard}: sample {sample['__key__']} has several images ({several}); write a sample for each, "
            "with a key without dots"
        )
    return next(iter(images.values()), None)


def _label(shard: Path, sample: Mapping[str, Any]) -> int | str | None:
    """Return the label, a number or a word; None without one, and for -1, which says that it is unknown."""
    from webdataset.autodecode import basichandlers

    extension = next((each for each in LABELS if each in sample), None)
    if extension is None:
        return None
    value: Any
    try:
        value = basichandlers(extension, sample[extension])
    except (ValueError, RecursionError) as error:
        if extension == "json":
            raise DataError(f"{shard}: {sample['__key__']}.json is not JSON ({error}); {HINT}") from None
        value = sample[extension].decode(errors="replace")
    if isinstance(value, dict):
        value = next((value[key] for key in KEYS if value.get(key) is not None), None)
    if isinstance(value, str):
        value = int(value) if value.strip().isdecimal() else value.strip()
    known = (type(value) is int and value >= 0) or (isinstance(value, str) and value)
    return value if known else None
