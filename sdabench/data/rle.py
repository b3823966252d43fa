"""COCO's run-length encoding: whether one is of a mask's size, which nobody else looks at.

The evaluators run for ever on one that is too short. Free of torch.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 300_000  # characters of compressed runs: enough to be quick, and little memory
MOST_PIECES = 6  # 30 bits with the sign: more than any number of pixels


def is_rle(value: Any, height: int, width: int) -> bool:
    """Whether this is ``{"size": [height, width], "counts": …}`` whose runs fill that size exactly."""
    if not isinstance(value, dict) or value.get("size") not in ([height, width], (height, width)):
        return False
    counts = value.get("counts")
    if isinstance(counts, str | bytes):
        return bool(_pixels([_as_bytes(counts)])[0] == height * width)
    runs = counts if isinstance(counts, list) and all(type(n) is int for n in counts) else []
    return len(runs) > 0 and min(runs) >= 0 and sum(runs) == height * width


def are_rle(values: Sequence[Any], sizes: Sequence[tuple[int, int]]) -> list[bool]:
    """As :func:`is_rle` for each by its (height, width), and many times as quick for compressed ones."""
    right = [False] * len(values)
    compressed: list[int] = []
    for place, (value, (height, width)) in enumerate(zip(values, sizes, strict=True)):
        if not is_compressed(value):
            right[place] = is_rle(value, height, width)
        elif value.get("size") in ([height, width], (height, width)):
            compressed.append(place)
    for block in _blocks(compressed, [len(values[place]["counts"]) for place in compressed]):
        pixels = _pixels([_as_bytes(values[place]["counts"]) for place in block]).tolist()
        for place, count in zip(block, pixels, strict=True):
            right[place] = count == sizes[place][0] * sizes[place][1]
    return right


def is_compressed(value: Any) -> bool:
    """Whether the runs are written as text, if this is RLE at all."""
    return isinstance(value, dict) and isinstance(value.get("counts"), str | bytes)


def _blocks(places: list[int], lengths: list[int]) -> Iterator[list[int]]:
    block: list[int] = []
    characters = 0
    for place, length in zip(places, lengths, strict=True):
        block.append(place)
        characters += length
        if characters > AT_ONCE:
            yield block
            block, characters = [], 0
    if block:
        yield block


def _as_bytes(counts: str | bytes) -> bytes:
    return counts if isinstance(counts, bytes) else counts.encode(errors="replace")


def _pixels(texts: Sequence[bytes]) -> NDArray[np.int64]:
    """(N,) the sums of compressed runs, of one length or more; -1 where they are not such.

    A number is written in pieces of five bits, the lowest first, each as a character from '0' on; a
    sixth bit says that more follow, and the last piece's highest bit is the sign. From the fourth
    number on it is the difference to the number before the last.
    """
    lengths = np.array([len(text) for text in texts])
    pixels = np.full(len(texts), -1, dtype=np.int64)
    there = lengths > 0
    if not there.any():
        return pixels
    ends = np.cumsum(lengths[there])
    pieces = np.frombuffer(b"".join(texts), dtype=np.uint8) - np.uint8(ord("0"))  # wraps below '0'
    stops = pieces < 32
    wrong = ~stops[ends - 1]
    wrong[np.searchsorted(ends, np.flatnonzero(pieces > 63), side="right")] = True
    stops[ends - 1] = True
    last = np.flatnonzero(stops)
    in_pieces = np.diff(last, prepend=-1)
    signed = (pieces[last] << 3).view(np.int8) >> 3
    numbers = signed.astype(np.int32)
    for place in range(1, min(in_pieces.max(), MOST_PIECES)):
        longer = np.flatnonzero(in_pieces > place)
        numbers[longer] = (numbers[longer] << 5) + (pieces[last[longer] - place] & 31)
    begins = np.concatenate([[0], np.searchsorted(last, ends)[:-1]])
    runs = _runs(numbers, begins)
    impossible = np.flatnonzero((runs < 0) | (in_pieces > MOST_PIECES))
    wrong[np.searchsorted(begins, impossible, side="right") - 1] = True
    pixels[there] = np.where(wrong, -1, np.add.reduceat(runs, begins))
    return pixels


def _runs(numbers: NDArray[np.int32], begins: NDArray[np.intp]) -> NDArray[np.int64]:
    """The runs that numbers (N,) stand for, in texts that begin at these of them."""
    runs = np.empty(len(numbers), dtype=np.int64)
    ends = np.append(begins[1:], len(numbers))
    for parity in (0, 1):
        sums = np.cumsum(numbers[parity::2], dtype=np.int64)
        # How many numbers of this parity there are before each text, before its second number, before its end
        before, before_second, before_end = ((at + 1 - parity) // 2 for at in (begins, begins + 1, ends))
        others = np.concatenate([[0], sums])[before_second]
        runs[parity::2] = sums - np.repeat(others, before_end - before)
    runs[begins] = numbers[begins]  # of which no other is a difference
    return runs
