"""Read shards in large extents before their images are used, so that a slow file system gets few requests."""

from math import ceil
from pathlib import Path

import torch

from sdabench.data.archives import Member
from sdabench.data.shards import ShardSplit

EXTENT = 4 * 2**20  # bytes


class ReadAhead:
    """Read each extent of the shards of a split once per epoch, for all DataLoader workers of a process.

    The system's page cache then has the other images of the extent. Without a page cache, each image is read
    from the file system once more.
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
        # Per extent, one more than the last epoch in which it was read. Workers share it; if two of them read
        # an extent at once, it is read twice.
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
        except OSError:  # reading the image gives the error message
            pass
