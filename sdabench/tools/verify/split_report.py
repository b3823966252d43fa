"""Whether a dataset is what it claims to be: counts, names, broken and doubled files, and a fingerprint.

Free of torch. :func:`sdabench.tools.verify.file_loading.inspect_files` reads the files::

    split = read_imagenet(path, "val")
    report = verify_split(split, inspect_files(split, workers=8))
    print(report.dataset.fingerprint_sha256, report.errors)
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from sdabench.data.coco import CocoSplit
from sdabench.data.description import DatasetInfo
from sdabench.data.folders import ImageSplit
from sdabench.data.imagenet import class_indices
from sdabench.data.official import AffectedFile, Issue, deviations, plural
from sdabench.data.split import Split
from sdabench.tools.verify.file_findings import FileFinding

FORMATS = {".jpeg": "JPEG", ".jpg": "JPEG", ".png": "PNG"}  # what a name's ending says of the content


@dataclass(frozen=True)
class ClassCounts:
    """Of the classes that are there, the ``fewest`` and ``most`` images; ``missing`` are ImageNet's wnids."""

    classes: int
    of: int
    fewest: int
    most: int
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnnotationCounts:
    """``crowds`` are among the annotations, ``used`` categories have at least one."""

    annotations: int
    crowds: int
    categories: int
    used: int
    images_without: int


@dataclass(frozen=True)
class SplitReport:
    """One split: what there is, and what was noticed. ``modes`` counts Pillow's modes of good files.

    The fingerprint is missing where a file could not be read.
    """

    dataset: DatasetInfo
    counts: ClassCounts | AnnotationCounts
    broken: int
    modes: Mapping[str, int]
    remarks: tuple[Issue, ...]

    @property
    def errors(self) -> tuple[Issue, ...]:
        return tuple(remark for remark in self.remarks if remark.level == "error")

    def as_json(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset.model_dump(mode="json"),
            "counts": asdict(self.counts),
            "broken": self.broken,
            "modes": dict(self.modes),
            "remarks": [remark.as_json() for remark in self.remarks],
        }


def verify_split(
    split: Split,
    files: Sequence[FileFinding],
    *,
    official: bool = False,
    fingerprint: str | None = None,
) -> SplitReport:
    """Puts together what the listing and the findings of its files say.

    Args:
        files: in the order of the listing.
        official: claims that this is the whole official split; all else is an error then.
        fingerprint: the sha256 that is claimed, in lower case.
    """
    digests = [file.sha256 for file in files if file.sha256 is not None]
    info = split.describe(digests if len(digests) == len(split.items) else None)
    remarks = (
        *_about_bytes(split, files),
        *_about_fingerprint(split, info, fingerprint),
        *deviations(split, "error" if official else "note"),
    )
    return SplitReport(
        dataset=info,
        counts=count_annotations(split) if isinstance(split, CocoSplit) else count_classes(split),
        broken=sum(file.broken is not None for file in files),
        modes=dict(Counter(file.mode for file in files if file.broken is None).most_common()),
        remarks=remarks,
    )


def count_classes(split: Split) -> ClassCounts:
    assert isinstance(split, ImageSplit)
    counts = Counter(item.label for item in split.items)
    known = class_indices() if split.dataset == "imagenet" else {}
    missing = tuple(wnid for wnid, label in known.items() if label not in counts)
    return ClassCounts(len(counts), split.num_classes, min(counts.values()), max(counts.values()), missing)


def count_annotations(split: CocoSplit) -> AnnotationCounts:
    return AnnotationCounts(
        annotations=sum(len(item.labels) for item in split.items),
        crowds=sum(one.iscrowd for item in split.items for one in item.annotations),
        categories=split.num_classes,
        used=split.classes,
        images_without=sum(not item.labels for item in split.items),
    )


def leakage(
    train: Split, train_files: Sequence[FileFinding], val: Split, val_files: Sequence[FileFinding]
) -> Issue | None:
    """Validation images whose very bytes are among the training images."""
    known = {file.sha256: item.path for item, file in zip(train.items, train_files, strict=True)}
    about = tuple(
        AffectedFile(item.path, f"has the bytes of the training image {known[file.sha256]}")
        for item, file in zip(val.items, val_files, strict=True)
        if file.sha256 is not None and file.sha256 in known
    )
    if not about:
        return None
    words = f"{_files(about)} for validation {_are(about)} among the training images too: leakage"
    return Issue("warning", "leakage", words, about)


def _about_bytes(split: Split, files: Sequence[FileFinding]) -> Iterator[Issue]:
    """What is broken, doubled, cut at its very end, or of another format than its name says."""
    pairs = [(item.path, file) for item, file in zip(split.items, files, strict=True)]
    if broken := tuple(AffectedFile(path, file.broken) for path, file in pairs if file.broken):
        words = f"{_files(broken)} {_are(broken)} broken: restore from the original archive"
        yield Issue("error", "broken", words, broken)
    if cut := tuple(AffectedFile(path, "lacks its end") for path, file in pairs if not file.ended):
        words = f"{_files(cut)} without an end: decoded, but the last bytes are missing"
        yield Issue("warning", "no end", words, cut)
    groups: dict[str, list[str]] = defaultdict(list)
    for path, file in pairs:
        if file.sha256 is not None:
            groups[file.sha256].append(path)
    doubled = tuple(
        AffectedFile(path, f"has the bytes of {first}")
        for first, *others in groups.values()
        for path in others
    )
    if doubled:
        words = f"{_files(doubled)} {_are(doubled)} there already, under another name"
        yield Issue("warning", "doubled", words, doubled)
    other = tuple(
        AffectedFile(path, f"is {file.format}")
        for path, file in pairs
        if file.broken is None and FORMATS.get(PurePath(path).suffix.lower()) != file.format
    )
    if other:
        words = f"{_files(other)} of another format than the name says; decoded as what they are"
        yield Issue("note", "other format", words, other)


def _about_fingerprint(split: Split, info: DatasetInfo, claimed: str | None) -> Iterator[Issue]:
    made, found = split.fingerprint_sha256, info.fingerprint_sha256
    if made not in (None, found):
        yield Issue("error", "fingerprint", "the images are not those that were made; make them anew")
    if claimed not in (None, found):
        having = "there is none, as a file cannot be read" if found is None else f"it is {found}"
        yield Issue("error", "fingerprint", f"the fingerprint is not the one that is claimed: {having}")


def _files(about: Sequence[AffectedFile]) -> str:
    return plural(len(about), "file")


def _are(about: Sequence[AffectedFile]) -> str:
    return "is" if len(about) == 1 else "are"
