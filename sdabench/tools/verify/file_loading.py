"""Inspecting the files of a split in several processes."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from sdabench.data.split import Split
from sdabench.errors import DataError
from sdabench.tools.verify.file_findings import FileFinding, FileInspection
from sdabench.training.tasks import load_batches

FILES_AT_ONCE = 4  # few enough for a bar that moves and a stop that is prompt


def inspect_files(
    split: Split, workers: int = 0, advance: Callable[[int], None] = lambda images: None
) -> list[FileFinding]:
    """Reads and decodes every file of a split once; returns what was found, in the order of the listing.

    Args:
        workers: loader processes; 0 does it in this one.
        advance: called with the number of files just done.
    """
    findings: list[FileFinding] = []
    files: Any = FileInspection(split)  # a Dataset in all but its class, which is torch's
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # who asks for more processes may
        with closing(load_batches(files, _findings, workers, pin=False, batch_size=FILES_AT_ONCE)) as batches:
            for batch in batches:
                assert not isinstance(batch, DataError)  # a broken file is a finding
                findings += batch
                advance(len(batch))
    return findings


def _findings(samples: Sequence[FileFinding], skipped: list[str]) -> list[FileFinding]:
    return list(samples)
