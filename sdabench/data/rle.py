"""Check that COCO's run-length encodings fill a mask of a given size. Free of torch.

Other packages do not check it, and evaluators loop forever on an RLE that is too short.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_CHARACTERS = 300_000  # compressed runs per block, to bound memory
MAX_PIECES = 6  # 30 bits with the sign: more than any number of pixels


def is_rle(value: Any, height: int, width: int) -> bool:
    """Return whether a value is ``{"size": [height, width], "counts": …}`` whose runs fill the size."""
    return are_rle([value], [(height, width)])[0]


def are_rle(values: Sequence[Any], sizes: Sequence[tuple[int, int]]) -> list[bool]:
    """Check many values with :func:`is_rle` by their (height, width); compressed runs in blocks."""
    valid = [False] * len(values)
    compressed: list[int] = []
    for index, (value, (height, width)) in enumerate(zip(values, sizes, strict=True)):
        if not isinstance(value, dict) or value.get("size") not in ([height, width], (height, width)):
            continue
        counts = value.get("counts")
        if is_compressed(value):
            compressed.append(index)
        elif isinstance(counts, list) and counts and all(type(n) is int and n >= 0 for n in counts):
            valid[index] = sum(counts) == height * width
    blocks = np.cumsum([len(values[index]["counts"]) for index in compressed]) // BLOCK_CHARACTERS
    for block in np.split(compressed, np.flatnonzero(np.diff(blocks)) + 1):
        pixels = _pixels([_as_bytes(values[index]["counts"]) for index in block])
        for index, count in zip(block, pixels, strict=True):
            height, width = sizes[index]
            valid[index] = bool(count == height * width)
    return valid


def is_compressed(value: Any) -> bool:
    """Return whether a value looks like an RLE with compressed runs."""
    return isinstance(value, dict) and isinstance(value.get("counts"), str | bytes)


def _as_bytes(counts: str | bytes) -> bytes:
    return counts if isinstance(counts, bytes) else counts.encode(errors="replace")


def _pixels(texts: Sequence[bytes]) -> NDArray[np.int64]:
    """Sum the compressed runs of each text (N,); -1 for invalid or empty runs.

    A number consists of pieces of five bits, lowest first, encoded as characters from '0' on. A sixth bit
    marks that more pieces follow; the highest bit of the last piece is the sign. From the fourth number on,
    numbers are differences to the number two indices before.
    """
    lengths = np.array([len(text) for text in texts])
    pixels = np.full(len(texts), -1, dtype=np.int64)
    filled = lengths > 0
    if not filled.any():
        return pixels
    ends = np.cumsum(lengths[filled])
    pieces = np.frombuffer(b"".join(texts), dtype=np.uint8) - np.uint8(ord("0"))  # wraps below '0'
    stops = pieces < 32
    wrong = ~stops[ends - 1]
    wrong[np.searchsorted(ends, np.flatnonzero(pieces > 63), side="right")] = True
    stops[ends - 1] = True
    last = np.flatnonzero(stops)
    in_pieces = np.diff(last, prepend=-1)
    signed = (pieces[last] << 3).view(np.int8) >> 3
    numbers = signed.astype(np.int32)
    for index in range(1, min(in_pieces.max(), MAX_PIECES)):
        longer = np.flatnonzero(in_pieces > index)
        numbers[longer] = (numbers[longer] << 5) + (pieces[last[longer] - index] & 31)
    begins = np.concatenate([[0], np.searchsorted(last, ends)[:-1]])
    runs = _runs(numbers, begins)
    impossible = np.flatnonzero((runs < 0) | (in_pieces > MAX_PIECES))
    wrong[np.searchsorted(begins, impossible, side="right") - 1] = True
    pixels[filled] = np.where(wrong, -1, np.add.reduceat(runs, begins))
    return pixels


def _runs(numbers: NDArray[np.int32], begins: NDArray[np.intp]) -> NDArray[np.int64]:
    """Decode numbers (N,) to run lengths; ``begins`` are the indices of the first number of each text."""
    runs = np.empty(len(numbers), dtype=np.int64)
    ends = np.append(begins[1:], len(numbers))
    for parity in (0, 1):
        sums = np.cumsum(numbers[parity::2], dtype=np.int64)
        # Numbers of this parity before each text, before its second number, and before its end.
        before, before_second, before_end = ((at + 1 - parity) // 2 for at in (begins, begins + 1, ends))
        others = np.concatenate([[0], sums])[before_second]
        runs[parity::2] = sums - np.repeat(others, before_end - before)
    runs[begins] = numbers[begins]  # the first number is not a difference
    return runs
