"""The generated datasets, and the default one, which is made once in the user's cache."""

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs
from filelock import FileLock

from sdabench.data.synthetic.classification import ClassificationPlan, write_classification
from sdabench.errors import SdabenchError

DEFAULT = ClassificationPlan()


def cache_dir() -> Path:
    """Where generated datasets lie; ``SDABENCH_CACHE`` names another folder."""
    override = os.environ.get("SDABENCH_CACHE")
    return Path(override) if override else Path(platformdirs.user_cache_dir("sdabench"))


def default_folder() -> Path:
    """Where the default dataset lies, or would."""
    return cache_dir() / f"{DEFAULT.generator.replace('/', '-')}-seed{DEFAULT.seed}"


def default_dataset(advance: Callable[[int], None] = lambda images: None) -> Path:
    """The folder of the default dataset; made if it is not there, while other processes wait.

    Args:
        advance: called with the number of images just made.

    Raises:
        SdabenchError: the cache cannot be written.
    """
    folder = default_folder()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                write_classification(folder, DEFAULT, advance)
    except OSError as error:
        raise SdabenchError(
            f"cannot write the default dataset to {folder}: {error.strerror}; set SDABENCH_CACHE to "
            "another folder, or name a dataset with --data"
        ) from None
    return folder
