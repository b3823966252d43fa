"""Read shards in large extents before their images are used: few requests for a slow file system."""

from math import ceil
from pathlib import Path

import torch

from sdabench.data.archives import Member
from sdabench.data.shards import ShardSplit

EXTENT = 4 * 2**20  # bytes


class ReadAhead:
    """Read each extent of the shards of a split once per epoch, for all DataLoader workers of a process.

    The other images of an extent are then in the page cache. Without a page cache, each image is read twice.
    """

    def __init__(self, split: ShardSplit) -> None:
        ends = dict[Path, int]()
        for member in split.members.values():
            place = member.place
            ends[member.archive] = max(ends.get(member.archive, 0), place.offset + place.size)
        self.first, extents = dict[Path, int](), 0
        for archive, end in ends.items():
            self.first[archive] = extents
            extents += ceil(end / EXTENT)
        # The last epoch in which each extent was read, counted from 1. Workers share it; two of them can read
        # an extent at the same time.
        self.epochs = torch.zeros(extents, dtype=torch.int32)
        self.epochs.share_memory_()  # type: ignore[no-untyped-call]

    def prepare(self, member: Member, epoch: int = 0) -> None:
        """Read the extents that contain an image, unless they were read in this epoch."""
        place = member.place
        for extent in range(place.offset // EXTENT, ceil((place.offset + place.size) / EXTENT)):
            index = self.first[member.archive] + extent
            if self.epochs[index] != epoch + 1:
                self.epochs[index] = epoch + 1
                self.read(member.archive, extent)

    def read(self, archive: Path, extent: int) -> None:
        try:
            with archive.open("rb", buffering=0) as file:
                file.seek(extent * EXTENT)
                file.read(EXTENT)
        except OSError:  # reading the image raises the error
            pass
