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
from sdabench.training.signals import Stopped, stop_requests
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
    with stop_requests() as stop_requested:

        def check() -> bool:
            key = [str(job.split.root), job.split.listing_sha256, PIL.__version__]
            if read_entry(KIND, key) is not None:
                return False
            broken: list[str] = []
            batches = load_batches(
                _Files(job.split), _collate, job.machine.workers, pin=False, batch_size=BATCH_SIZE
            )
            total = len(job.split.items)
            with closing(batches), progress(f"{job.model}  validation images", total, "images") as advance:
                for batch in batches:
                    if isinstance(batch, Stopped) or stop_requested():
                        return True
                    assert not isinstance(batch, DataError)
                    broken += [message for message in batch if message]
                    advance(len(batch))
                if broken and job.skip_broken:
                    count = plural(len(broken), "broken validation image")
                    advance.say(f"{job.model}: {count} will be skipped")
            if broken and not job.skip_broken:
                raise BrokenImagesError(*broken)
            if not broken:
                write_entry(KIND, key, [b"all can be decoded"])
            return False

        if world().on_rank_zero(check):
            raise Stopped


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
