"""Generate datasets; the default one of each task, and those of plans, once in the user's cache."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
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
from sdabench.hashing import sha256_of_file, sha256_of_lines
from sdabench.paths import cache_dir
from sdabench.processes import note
from sdabench.registry.schema import DataTask

ELSEWHERE = "set SDABENCH_CACHE to another folder, or choose a dataset with --data"
DEFAULT = ClassificationPlan()
DEFAULT_DETECTION = DetectionPlan(categories=10, train=200, val=50, image_size=256)
Plan = ClassificationPlan | DetectionPlan
_intact: set[Path] = set()  # folders whose files this process has verified


def default_plan(task: DataTask = "classification") -> Plan:
    return DEFAULT if task == "classification" else DEFAULT_DETECTION


def default_folder(task: DataTask = "classification") -> Path:
    """Return the folder of the default dataset of a task."""
    return folder_of(default_plan(task))


def folder_of(plan: Plan) -> Path:
    """Return the folder in the cache of the dataset of a plan."""
    digest = sha256_of_lines([json.dumps(asdict(plan), sort_keys=True)])
    name = f"seed{plan.seed}" if plan in (DEFAULT, DEFAULT_DETECTION) else digest[:16]
    return cache_dir() / f"{plan.generator.replace('/', '-')}-{name}"


def write_dataset(
    folder: Path,
    plan: Plan,
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
    """Return the folder of the default dataset; see :func:`ensure_dataset`."""
    return ensure_dataset(default_plan(task), advance)


def ensure_dataset(plan: Plan, advance: Callable[[int], None] = lambda images: None) -> Path:
    """Return the folder of the dataset of a plan, after generating it if it is missing or damaged.

    Other processes wait. A dataset that is there needs no write access to the cache.

    Raises:
        OutputError: the cache cannot be written.
    """
    folder, what = folder_of(plan), "default dataset" if plan in (DEFAULT, DEFAULT_DETECTION) else "dataset"
    if has_dataset(plan):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f"{folder.name}.lock")
        with locked(lock, f"another process that is generating the {what}", ELSEWHERE):
            if not has_dataset(plan):
                if folder.is_dir():
                    note(f"The {what} in {folder} is damaged; it is generated again.")
                    shutil.rmtree(folder)
                write_dataset(folder, plan, advance)
    except OSError as error:
        raise OutputError(f"cannot write the {what} to {folder}: {error.strerror}; {ELSEWHERE}") from None
    return folder


def has_default(task: DataTask = "classification") -> bool:
    """Return whether the default dataset of a task is in the cache; see :func:`has_dataset`."""
    return has_dataset(default_plan(task))


def has_dataset(plan: Plan) -> bool:
    """Return whether the dataset of a plan is in the cache and has the files of its manifest."""
    folder = folder_of(plan)
    if folder not in _intact and folder.is_dir():
        read = read_classification if isinstance(plan, ClassificationPlan) else read_detection
        with suppress(SdabenchError, OSError):
            if all(_is_intact(read(folder, split)) for split in get_args(SplitName)):
                _intact.add(folder)
    return folder in _intact


def _is_intact(split: Split) -> bool:
    digests = [sha256_of_file(split.root / item.path) for item in split.items]
    return split.describe(digests).fingerprint_sha256 == split.fingerprint_sha256
