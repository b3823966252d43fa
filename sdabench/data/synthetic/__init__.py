"""Generate datasets; the default one of each task is generated once in the user's cache."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import get_args

from sdabench.data.split import Split, SplitName
from sdabench.data.synthetic.classification import (
    ClassificationPlan,
    read_classification,
    write_classification,
)
from sdabench.data.synthetic.detection import DetectionPlan, read_detection, write_detection
from sdabench.errors import OutputError, SdabenchError
from sdabench.files import locked
from sdabench.hashing import sha256_of_file
from sdabench.paths import cache_dir
from sdabench.processes import note
from sdabench.registry.schema import DataTask

ELSEWHERE = "set SDABENCH_CACHE to another folder, or choose a dataset with --data"
DEFAULT = ClassificationPlan()
DEFAULT_DETECTION = DetectionPlan(categories=10, train=200, val=50, image_size=256)
_intact: set[Path] = set()  # folders whose files this process has verified


def default_plan(task: DataTask = "classification") -> ClassificationPlan | DetectionPlan:
    return DEFAULT if task == "classification" else DEFAULT_DETECTION


def default_folder(task: DataTask = "classification") -> Path:
    """Return the folder of the default dataset of a task."""
    plan = default_plan(task)
    return cache_dir() / f"{plan.generator.replace('/', '-')}-seed{plan.seed}"


def write_dataset(
    folder: Path,
    plan: ClassificationPlan | DetectionPlan,
    advance: Callable[[int], None] = lambda images: None,
) -> None:
    """Generate the dataset of a plan; see :func:`write_classification` and :func:`write_detection`."""
    if isinstance(plan, ClassificationPlan):
        write_classification(folder, plan, advance)
    else:
        write_detection(folder, plan, advance)


def default_dataset(
    advance: Callable[[int], None] = lambda images: None, task: DataTask = "classification"
) -> Path:
    """Return the folder of the default dataset, after generating it if it is missing or damaged.

    Other processes wait. A dataset that is there needs no write access to the cache.

    Raises:
        OutputError: the cache cannot be written.
    """
    folder = default_folder(task)
    if has_default(task):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f"{folder.name}.lock")
        with locked(lock, "another process that is generating the default dataset", ELSEWHERE):
            if not has_default(task):
                if folder.is_dir():
                    note(f"The default dataset in {folder} is damaged; it is generated again.")
                    shutil.rmtree(folder)
                write_dataset(folder, default_plan(task), advance)
    except OSError as error:
        raise OutputError(
            f"cannot write the default dataset to {folder}: {error.strerror}; {ELSEWHERE}"
        ) from None
    return folder


def has_default(task: DataTask = "classification") -> bool:
    """Return whether the default dataset of a task is in the cache and has the files of its manifest."""
    folder = default_folder(task)
    if folder not in _intact and folder.is_dir():
        read = read_classification if task == "classification" else read_detection
        with suppress(SdabenchError, OSError):
            if all(_is_intact(read(folder, split)) for split in get_args(SplitName)):
                _intact.add(folder)
    return folder in _intact


def _is_intact(split: Split) -> bool:
    digests = [sha256_of_file(split.root / item.path) for item in split.items]
    return split.describe(digests).fingerprint_sha256 == split.fingerprint_sha256
