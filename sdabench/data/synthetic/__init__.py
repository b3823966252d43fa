"""Generate datasets; the default one of each task is generated once in the user's cache."""

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from sdabench.data.synthetic.classification import ClassificationPlan, write_classification
from sdabench.data.synthetic.detection import DetectionPlan, write_detection
from sdabench.errors import SdabenchError
from sdabench.paths import cache_dir
from sdabench.registry.schema import DataTask

DEFAULT = ClassificationPlan()
DEFAULT_DETECTION = DetectionPlan(categories=10, train=200, val=50, image_size=256)


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
    """Return the folder of the default dataset, after generating it if needed; other processes wait.

    Raises:
        SdabenchError: the cache cannot be written.
    """
    folder = default_folder(task)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                write_dataset(folder, default_plan(task), advance)
    except OSError as error:
        raise SdabenchError(
            f"cannot write the default dataset to {folder}: {error.strerror}; set SDABENCH_CACHE to "
            "another folder, or choose a dataset with --data"
        ) from None
    return folder
