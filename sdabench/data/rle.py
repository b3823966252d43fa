"""COCO's run-length encoding: whether one is of a mask's size, which nobody else looks at.

The evaluators run for ever on one that is too short. Free of torch.
"""

from typing import Any

import numpy as np


def is_rle(value: Any, height: int, width: int) -> bool:
    """Whether this is ``{"size": [height, width], "counts": …}`` whose runs fill that size exactly."""
    if not isinstance(value, dict) or value.get("size") not in ([height, width], (height, width)):
        return False
    counts = value.get("counts")
    if isinstance(counts, str | bytes):
        runs = _uncompressed(counts if isinstance(counts, bytes) else counts.encode(errors="replace"))
    else:
        runs = counts if isinstance(counts, list) and all(type(n) is int for n in counts) else []
    return len(runs) > 0 and min(runs) >= 0 and sum(runs) == height * width


def _uncompressed(data: bytes) -> list[int]:
    """The lengths of compressed runs; none where they are not such.

    A number is written in pieces of five bits, the lowest first, each as a character from '0' on; a
    sixth bit says that more follow, and the last piece's highest bit is the sign. From the fourth
    number on it is the difference to the number before the last.
    """
    pieces = np.frombuffer(data, dtype=np.uint8).astype(np.int64) - ord("0")
    if len(pieces) == 0 or pieces.min() < 0 or pieces.max() > 63 or pieces[-1] & 32:
        return []
    last = np.flatnonzero(pieces & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > 7:  # 35 bits: more than any number of pixels
        return []
    shifts = 5 * (np.arange(len(pieces)) - np.repeat(first, lengths))
    numbers = np.add.reduceat((pieces & 31) << shifts, first)
    numbers -= np.where(pieces[last] & 16, np.left_shift(1, 5 * lengths), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    runs: list[int] = numbers.tolist()
    return runs
