"""Check the validation images before a training, which would end with an error without its result."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from typing import TypeVar

import PIL
from torch.utils.data import Dataset

from sdabench.cache import read_entry, write_entry
from sdabench.data.coco import CocoImage
from sdabench.data.decoding import Location, check_file
from sdabench.data.images import BrokenImagesError
from sdabench.data.official import plural
from sdabench.data.split import Split
from sdabench.errors import DataError
from sdabench.progress import progress
from sdabench.training.distributed import world
from sdabench.training.job import AnyJob
from sdabench.training.signals import Stopped, stop_requested, stop_requests
from sdabench.training.tasks import load_batches

T = TypeVar("T")
KIND = "checked-images"
FULLY_DECODED = 32 * 2**20  # bytes of a split up to which its images are decoded completely
BATCH_SIZE = 16


def check_validation_images(job: AnyJob) -> None:
    """Check that the validation images of a training can be decoded, once for each listing.

    Headers and ends of the files are read; files without an end, and those of small datasets, are decoded.
    All processes of a job call this; the main process reads the files.

    Raises:
        Stopped: a signal requested it.
        DataError: images are broken, and the job does not skip them.
    """
    with stop_requests():
        if world().on_rank_zero(lambda: _is_stopped(job)):
            raise Stopped


def _is_stopped(job: AnyJob) -> bool:
    """Check the images in the main process; return whether a signal has requested to stop."""
    split, broken = job.split, list[str]()
    key = [str(split.root), split.listing_sha256, PIL.__version__]
    if read_entry(KIND, key) is not None:
        return False
    fully = sum(item.size for item in split.items) <= FULLY_DECODED
    batches = results_of_files(split, partial(_message, fully=fully), job.machine.workers, BATCH_SIZE)
    total = len(split.items)
    with closing(batches), progress(f"{job.model}  validation images", total, "images") as advance:
        for batch in batches:
            if isinstance(batch, Stopped) or stop_requested():
                return True
            assert not isinstance(batch, DataError)
            broken += filter(None, batch)
            advance(len(batch))
        if broken and job.skip_broken:
            advance.say(f"{job.model}: {plural(len(broken), 'broken validation image')} will be skipped")
    if not broken:
        write_entry(KIND, key, [b"all can be decoded"])
    elif not job.skip_broken:
        raise BrokenImagesError(*broken)
    return False


def _message(path: Location, size: tuple[int, int] | None, fully: bool) -> str:
    """Return the error message of a file; empty for a sound one."""
    unusable = check_file(path, size, fully)
    return "" if unusable is None else f"{path} {unusable}"


def results_of_files(
    split: Split, use: Callable[[Location, tuple[int, int] | None], T], workers: int, batch_size: int
) -> Generator[list[T] | DataError | Stopped]:
    """Yield the results of a function of the path and the annotated (width, height) of each file."""
    return load_batches(_Files(split, use), _collate, workers, pin=False, batch_size=batch_size)


class _Files(Dataset[T]):
    def __init__(self, split: Split, use: Callable[[Location, tuple[int, int] | None], T]) -> None:
        self.split, self.use = split, use

    def __len__(self) -> int:
        return len(self.split.items)

    def __getitem__(self, index: int) -> T:
        item = self.split.items[index]
        size = (item.width, item.height) if isinstance(item, CocoImage) else None
        return self.use(self.split.file(item), size)


def _collate(samples: Sequence[T], skipped: list[str]) -> list[T]:
    return list(samples)
