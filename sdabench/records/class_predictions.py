"""What a network said of each image: one compressed file for each run, from which all can be scored anew."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdabench.errors import DataError
from sdabench.files import compressed, read_unpacked
from sdabench.scoring.topk import TopK

HEADER = ["path", "label", "label_probability", *(f"top{rank}" for rank in range(1, 6))]


@dataclass(frozen=True)
class ClassPredictions:
    """For each image of a listing: the five best classes, and the probability of the right one.

    Where there are fewer than five classes, the rest is -1.
    """

    paths: list[str]
    labels: NDArray[np.int64]  # (N,)
    label_probability: NDArray[np.float32]  # (N,)
    top5: NDArray[np.int64]  # (N, 5)

    def metrics(self) -> dict[str, float]:
        return TopK().update(self.top5, self.labels).compute()

    def hits(self, best: int) -> NDArray[np.bool_]:
        """(N,) whether the right class is among so many of the best ones."""
        right: NDArray[np.bool_] = (self.top5[:, :best] == self.labels[:, None]).any(axis=1)
        return right

    def write(self, path: Path) -> None:
        """One line an image: path, label, its probability, and the five best classes.

        Raises:
            OutputError: it cannot be written.
        """
        with compressed(path) as file:
            text = io.TextIOWrapper(file, newline="", errors="surrogateescape")
            writer = csv.writer(text)
            writer.writerow(HEADER)
            rows = zip(self.paths, self.labels, self.label_probability, self.top5, strict=True)
            for image, label, probability, classes in rows:
                writer.writerow([image, label, f"{probability:.6g}", *classes.tolist()])
            text.detach()  # flushes, and leaves the file open

    @classmethod
    def read(cls, path: Path) -> "ClassPredictions":
        """What :meth:`write` has written, compressed or not.

        Raises:
            UsageError: there is no such file.
            DataError: it is no such file; the message names the line.
        """
        rows = _rows(path)
        if rows[:1] != [HEADER]:
            raise DataError(f"{path} holds no predictions of classes; its first line is not theirs")
        for number, row in enumerate(rows[1:], start=2):
            if not _is_prediction(row):
                raise DataError(f"{path}, line {number}: no path, label, probability and five classes")
        columns: list[Any] = list(zip(*rows[1:], strict=True)) or [()] * len(HEADER)
        return cls(
            paths=list(columns[0]),
            labels=np.array(columns[1], dtype=np.int64),
            label_probability=np.array(columns[2], dtype=np.float32),
            top5=np.array(columns[3:], dtype=np.int64).T,
        )


def _rows(path: Path) -> list[list[str]]:
    text = read_unpacked(path, "predictions").decode(errors="surrogateescape")
    try:
        return list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise DataError(f"{path} holds no predictions of classes: {error}") from None


def _is_prediction(row: list[str]) -> bool:
    try:
        label, *best = np.array([int(value) for value in (row[1], *row[3:])], dtype=np.int64).tolist()
        return len(row) == len(HEADER) and label >= 0 and min(best) >= -1 and 0 <= float(row[2]) <= 1
    except (ValueError, IndexError, OverflowError):
        return False
