"""Report on a dataset: counts, names, broken and duplicate files, fingerprints, leakage, label order.

split = read_imagenet(path, "val")
report = verify_split(split, inspect_files(split, workers=8))
print(report.dataset.fingerprint_sha256, report.errors)
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from sdabench.data.classes import list_names
from sdabench.data.coco import CocoSplit, category_difference
from sdabench.data.description import DatasetInfo
from sdabench.data.folders import ImageSplit
from sdabench.data.objects import nothing_to_score
from sdabench.data.official import AffectedFile, Found, Issue, Level, imagenet_deviations, plural
from sdabench.data.split import Split, SplitName
from sdabench.errors import DataError, NothingMeasuredError, SdabenchError
from sdabench.tools.verify.file_inspection import FileFinding
from sdabench.tools.verify.label_order import LabelOrder

FORMATS = {  # by file name extension
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}


@dataclass(frozen=True)
class ClassCounts:
    """Images per class: ``fewest`` and ``most`` in the ``classes`` with images; ``missing`` are names."""

    classes: int
    of: int
    fewest: int
    most: int
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnnotationCounts:
    """Annotations of a COCO split. They include ``crowds``; ``used`` categories have at least one."""

    annotations: int
    crowds: int
    categories: int
    used: int
    images_without: int


@dataclass(frozen=True)
class SplitReport:
    """Counts and issues of one split. ``modes`` counts the Pillow modes of the files that decode.

    The dataset has no fingerprint if a file cannot be read.
    """

    dataset: DatasetInfo
    counts: ClassCounts | AnnotationCounts
    broken: int
    modes: Mapping[str, int]
    issues: tuple[Issue, ...]

    @property
    def errors(self) -> tuple[Issue, ...]:
        return tuple(issue for issue in self.issues if issue.level == "error")

    def as_json(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset.model_dump(mode="json"),
            "counts": asdict(self.counts),
            "broken": self.broken,
            "modes": dict(self.modes),
            "remarks": [issue.as_json() for issue in self.issues],
        }


@dataclass(frozen=True)
class DatasetReport:
    """The reports on all splits, and the issues between them.

    ``failure`` is the error if the label order could not be inferred.
    """

    splits: tuple[SplitReport, ...]
    issues: tuple[Issue, ...] = ()
    label_order: LabelOrder | None = None
    failure: SdabenchError | None = None

    @property
    def error(self) -> SdabenchError | None:
        """The error of a dataset that is not what it claims to be or was not tested; None if it is sound."""
        errors = [f"{split.dataset.split}: {error.words}" for split in self.splits for error in split.errors]
        errors += [issue.words for issue in self.issues if issue.level == "error"]
        order = self.label_order
        if order is not None and order.order == "other":
            errors.append(order.words)
        if errors:
            total = f" (first of {len(errors)} errors)" if len(errors) > 1 else ""
            failure = f"; --probe failed: {self.failure}" if self.failure else ""
            return DataError(f"{errors[0]}{total}{failure}")
        if order is not None and order.order == "unknown":
            return NothingMeasuredError(order.words)
        return self.failure

    def as_json(self) -> dict[str, Any]:
        return {
            "sound": self.error is None,
            "splits": [split.as_json() for split in self.splits],
            "remarks": [issue.as_json() for issue in self.issues],
            "probe": self.label_order and self.label_order.as_json(),
        }


def verify_split(
    split: Split,
    files: Sequence[FileFinding],
    *,
    official: bool = False,
    fingerprint: str | None = None,
) -> SplitReport:
    """Report on a split, given the findings of its files in the order of the listing.

    Args:
        official: expect the complete official split; a deviation is an error.
        fingerprint: expected sha256, in lower case.
    """
    digests = [file.sha256 for file in files if file.sha256 is not None]
    info = split.describe(digests if len(digests) == len(split.items) else None)
    issues = (
        *_file_issues(split, files),
        *_header_issues(split, files),
        *_fingerprint_issues(split, info, fingerprint),
        *deviations(split, "error" if official else "note"),
        *(_object_issues(split) if isinstance(split, CocoSplit) else ()),
    )
    return SplitReport(
        dataset=info,
        counts=count_annotations(split) if isinstance(split, CocoSplit) else count_classes(split),
        broken=sum(file.broken is not None for file in files),
        modes=dict(Counter(file.header.mode for file in files if file.header).most_common()),
        issues=issues,
    )


def deviations(split: Split, level: Level = "note") -> tuple[Issue, ...]:
    """List the deviations from the official split in names, counts, classes and sizes, not in pixels.

    Args:
        level: level of the issues: "error" if the split is supposed to be official.
    """
    found: Found = iter(())
    if isinstance(split, CocoSplit):
        found = split.deviations() if split.dataset == "coco" else found
    elif isinstance(split, ImageSplit) and split.dataset == "imagenet":
        found = imagenet_deviations(split)
    issues = tuple(Issue(level, "not official", words, about) for words, about in found)
    if split.complete or issues:
        return issues
    words = f"the paper has no results on {split.dataset} data"
    if split.dataset == "synthetic":
        words = "synthetic data are generated, not official"
    return (Issue(level, "not official", words),)


def count_classes(split: Split) -> ClassCounts:
    assert isinstance(split, ImageSplit)
    counts = Counter(item.label for item in split.items)
    missing = tuple(name for label, name in enumerate(split.class_names) if label not in counts)
    return ClassCounts(len(counts), split.num_classes, min(counts.values()), max(counts.values()), missing)


def count_annotations(split: CocoSplit) -> AnnotationCounts:
    return AnnotationCounts(
        annotations=sum(len(item.labels) for item in split.items),
        crowds=sum(one.iscrowd for item in split.items for one in item.annotations),
        categories=split.num_classes,
        used=split.classes,
        images_without=sum(not item.labels for item in split.items),
    )


def find_leakage(
    splits: Mapping[SplitName, Split], files: Mapping[SplitName, Sequence[FileFinding]]
) -> Issue | None:
    """Find validation images whose bytes are also in the training split; None without both splits."""
    if len(splits) < 2:
        return None
    known = {file.sha256: item.path for item, file in zip(splits["train"].items, files["train"], strict=True)}
    about = tuple(
        AffectedFile(item.path, f"is identical to the training image {known[file.sha256]}")
        for item, file in zip(splits["val"].items, files["val"], strict=True)
        if file.sha256 is not None and file.sha256 in known
    )
    if not about:
        return None
    also = "is also a training image" if len(about) == 1 else "are also training images"
    return Issue("warning", "leakage", f"{plural(len(about), 'validation image')} {also} (leakage)", about)


def find_other_categories(splits: Mapping[SplitName, Split]) -> Issue | None:
    """Find categories that only one of the splits lists; training refuses such a pair."""
    train, val = splits.get("train"), splits.get("val")
    if isinstance(train, ImageSplit) and isinstance(val, ImageSplit):
        unknown = sorted(set(val.occurring) - set(train.occurring))
        words = (
            f"train has no images of {plural(len(unknown), 'class', 'classes')} of val: {list_names(unknown)}"
        )
        level: Level = "error" if train.own_classes else "note"
        return Issue(level, "categories", words) if unknown else None
    if not (isinstance(train, CocoSplit) and isinstance(val, CocoSplit)):
        return None
    difference = category_difference(train, val)
    return None if difference is None else Issue("error", "categories", difference)


def _object_issues(split: CocoSplit) -> Iterator[Issue]:
    """Report which annotations training or AP does not use, and boxes that training clips."""
    counts = split.count_objects()
    if split.split == "train":
        unused = counts.describe_unused()
        if not counts.used:
            reason = unused or f"no annotation in {counts.images:,} images"
            yield Issue("error", "no object", f"no object can be trained on: {reason}")
        elif unused:
            yield Issue("note", "unused", f"{unused}; training leaves them out")
        if categories := split.describe_unused_categories(counts):
            yield Issue("note", "unused categories", categories)
    else:
        if not counts.scored:
            reason = nothing_to_score(counts.images, counts.annotations, counts.crowds)
            yield Issue("error", "no object", f"no object can be scored: {reason}")
        elif unused := counts.describe_unscored():
            yield Issue("note", "unused", f"{unused}; AP ignores them")
    boxes = [
        AffectedFile(path, f"has the box of annotation {number}") for path, number in counts.reaching_out
    ]
    words = f"{plural(len(boxes), 'box reaches', 'boxes reach')} out of the image; training clips them"
    yield from _about("note", "box outside", words, boxes)
    masks = [
        AffectedFile(item.path, f"annotation {one.id} {problem}")
        for item, one, problem in split.mask_problems()
    ]
    words = plural(len(masks), "annotation has", "annotations have")
    yield from _about("note", "no mask", f"{words} no valid mask, which only networks with masks need", masks)


def _about(level: Level, name: str, words: str, files: Sequence[AffectedFile]) -> Iterator[Issue]:
    """Yield an issue about files, if there are any."""
    if files:
        yield Issue(level, name, words, tuple(files))


def _file_issues(split: Split, files: Sequence[FileFinding]) -> Iterator[Issue]:
    """Find files that are broken, truncated or duplicates."""
    pairs = [(item.path, file) for item, file in zip(split.items, files, strict=True)]
    next_steps = dict.fromkeys(file.broken.next_step for file in files if file.broken)
    for step in next_steps:
        broken = tuple(
            AffectedFile(path, file.broken.what)
            for path, file in pairs
            if file.broken and file.broken.next_step == step
        )
        yield Issue("error", "broken", f"{plural(len(broken), 'broken file')}: {step}", broken)
    cut = [AffectedFile(path, "has no end marker") for path, file in pairs if not file.has_end]
    words = f"{plural(len(cut), 'file')} without an end marker: decoded, but the last bytes are missing"
    yield from _about("warning", "no end", words, cut)
    groups: dict[str, list[str]] = defaultdict(list)
    for path, file in pairs:
        if file.sha256 is not None:
            groups[file.sha256].append(path)
    duplicates = [
        AffectedFile(path, f"is identical to {first}")
        for first, *others in groups.values()
        for path in others
    ]
    words = f"{plural(len(duplicates), 'duplicate file')}: the same bytes have another name too"
    yield from _about("warning", "doubled", words, duplicates)


def _header_issues(split: Split, files: Sequence[FileFinding]) -> Iterator[Issue]:
    """Find files in another format than their names say, of 16 bits, or with an EXIF orientation."""
    pairs = [(item.path, file.header) for item, file in zip(split.items, files, strict=True) if file.header]
    other = [
        AffectedFile(path, f"is {header.format}")
        for path, header in pairs
        if FORMATS.get(PurePath(path).suffix.lower()) != header.format
    ]
    words = f"{plural(len(other), 'file')} in another format than the name states, which has no effect"
    yield from _about("note", "other format", words, other)
    deep = [AffectedFile(path, f"has mode {header.mode}") for path, header in pairs if header.sixteen_bits]
    words = f"{plural(len(deep), 'file')} of 16 bits per channel, of which the upper 8 are used"
    yield from _about("note", "16 bits", words, deep)
    turned = [
        AffectedFile(path, f"has EXIF orientation {header.orientation}")
        for path, header in pairs
        if header.orientation != 1
    ]
    words = f"{plural(len(turned), 'file')} with an EXIF orientation, which is ignored"
    if isinstance(split, CocoSplit):
        words = f"{words}: check that the boxes fit the pixels without it"
        yield from _about("warning", "orientation", words, turned)
    else:
        yield from _about("note", "orientation", f"{words}, as usual for ImageNet", turned)


def _fingerprint_issues(split: Split, info: DatasetInfo, expected: str | None) -> Iterator[Issue]:
    generated, found = split.fingerprint_sha256, info.fingerprint_sha256
    if generated not in (None, found):
        words = "the images are not those that were generated: generate the dataset again"
        yield Issue("error", "fingerprint", words)
    if expected not in (None, found):
        actual = "there is none, because a file cannot be read" if found is None else f"it is {found}"
        yield Issue("error", "fingerprint", f"the fingerprint is not the expected one: {actual}")
