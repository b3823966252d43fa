"""Check the validation images before a training, which would end with an error without its result."""

from collections.abc import Sequence
from contextlib import closing

import PIL
from torch.utils.data import Dataset

from sdabench.cache import read_entry, write_entry
from sdabench.data.coco import CocoImage
from sdabench.data.decoding import check_file
from sdabench.data.images import BrokenImagesError
from sdabench.data.official import plural
from sdabench.data.split import Split
from sdabench.errors import DataError
from sdabench.progress import progress
from sdabench.training.distributed import world
from sdabench.training.job import AnyJob
from sdabench.training.signals import Stopped, stop_requested, stop_requests
from sdabench.training.tasks import load_batches

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
    files, total = _Files(split), len(split.items)
    batches = load_batches(files, _collate, job.machine.workers, pin=False, batch_size=BATCH_SIZE)
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


class _Files(Dataset[str]):
    """The error message of each file; empty for a sound one."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.fully = sum(item.size for item in split.items) <= FULLY_DECODED

    def __len__(self) -> int:
        return len(self.split.items)

    def __getitem__(self, index: int) -> str:
        item = self.split.items[index]
        size = (item.width, item.height) if isinstance(item, CocoImage) else None
        path = self.split.file(item)
        unusable = check_file(path, size, self.fully)
        return "" if unusable is None else f"{path} {unusable}"


def _collate(samples: Sequence[str], skipped: list[str]) -> list[str]:
    return list(samples)
