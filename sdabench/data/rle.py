"""COCO's run-length encoding: whether one is of a mask's size, which nobody else looks at.

The evaluators run for ever on one that is too short. Free of torch.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 300_000  # characters of compressed runs: enough to be quick, and little memory


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
        counts = value.get("counts") if isinstance(value, dict) else None
        if not isinstance(counts, str | bytes):
            right[place] = is_rle(value, height, width)
        elif value.get("size") in ([height, width], (height, width)):
            compressed.append(place)
    for block in _blocks(compressed, [len(values[place]["counts"]) for place in compressed]):
        pixels = _pixels([_as_bytes(values[place]["counts"]) for place in block]).tolist()
        for place, count in zip(block, pixels, strict=True):
            right[place] = count == sizes[place][0] * sizes[place][1]
    return right


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
    pieces = np.frombuffer(b"".join(texts), dtype=np.uint8).astype(np.int64) - ord("0")
    stops = pieces & 32 == 0
    wrong = np.logical_or.reduceat((pieces < 0) | (pieces > 63), ends - lengths[there]) | ~stops[ends - 1]
    stops[ends - 1] = True
    last = np.flatnonzero(stops)
    first = np.concatenate([[0], last[:-1] + 1])
    places = np.minimum(np.arange(len(pieces)) - np.repeat(first, last - first + 1), 7)
    numbers = np.add.reduceat((pieces & 31) << 5 * places, first)
    in_pieces = last - first + 1
    numbers -= np.where(pieces[last] & 16, np.left_shift(1, 5 * np.minimum(in_pieces, 8)), 0)
    begins = np.concatenate([[0], np.searchsorted(last, ends)[:-1]])
    of_each = np.diff(begins, append=len(numbers))
    wrong |= np.maximum.reduceat(in_pieces, begins) > 7  # 35 bits: more than any number of pixels
    within = np.arange(len(numbers)) - np.repeat(begins, of_each)
    for chosen in (within % 2 == 1, (within % 2 == 0) & (within > 0)):
        differences = np.where(chosen, numbers, 0)
        sums = np.cumsum(differences)
        before = np.repeat(sums[begins] - differences[begins], of_each)
        numbers = np.where(chosen, sums - before, numbers)
    wrong |= np.minimum.reduceat(numbers, begins) < 0
    pixels[there] = np.where(wrong, -1, np.add.reduceat(numbers, begins))
    return pixels
