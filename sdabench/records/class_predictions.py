"""Store the predictions of a classifier for each image in a compressed CSV file."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdabench.errors import DataError
from sdabench.files import atomic_gzip_write, read_decompressed
from sdabench.scoring.topk import TopK

HEADER = ["path", "label", "label_probability", *(f"top{rank}" for rank in range(1, 6))]


@dataclass(frozen=True)
class ClassPredictions:
    """The top five classes of each image, and the probability of its label.

    With fewer than five classes, the remaining entries of ``top5`` are -1.
    """

    paths: list[str]
    labels: NDArray[np.int64]  # (N,)
    label_probability: NDArray[np.float32]  # (N,)
    top5: NDArray[np.int64]  # (N, 5)

    def metrics(self) -> dict[str, float]:
        return TopK().update(self.top5, self.labels).compute()

    def hits(self, k: int) -> NDArray[np.bool_]:
        """Return whether the label of each image is among its top k classes: (N,)."""
        hits: NDArray[np.bool_] = (self.top5[:, :k] == self.labels[:, None]).any(axis=1)
        return hits

    def write(self, path: Path) -> None:
        """Write one line for each image: path, label, its probability, and the top five classes."""
        with atomic_gzip_write(path) as file:
            text = io.TextIOWrapper(file, newline="", errors="surrogateescape")
            writer = csv.writer(text)
            writer.writerow(HEADER)
            rows = zip(self.paths, self.labels, self.label_probability, self.top5, strict=True)
            for image, label, probability, classes in rows:
                writer.writerow([image, label, f"{probability:.6g}", *classes.tolist()])
            text.detach()  # flushes, and leaves the file open

    @classmethod
    def read(cls, path: Path) -> "ClassPredictions":
        """Read a file that :meth:`write` has written, compressed or not; raise a DataError for others."""
        text = read_decompressed(path, "predictions").decode("utf-8-sig", errors="surrogateescape")
        foreign = f"{path} is not a predictions file of a classifier"
        try:
            rows = list(csv.reader(io.StringIO(text, newline="")))
        except csv.Error as error:
            raise DataError(f"{foreign}: {error}") from None
        if rows[:1] != [HEADER]:
            raise DataError(f"{foreign}: its first line must be {','.join(HEADER)}")
        for number, row in enumerate(rows[1:], start=2):
            if not _is_prediction(row):
                raise DataError(
                    f"{path}, line {number}: expected a path, a label, a probability and five classes"
                )
        columns: list[Any] = list(zip(*rows[1:], strict=True)) or [()] * len(HEADER)
        return cls(
            paths=list(columns[0]),
            labels=np.array(columns[1], dtype=np.int64),
            label_probability=np.array(columns[2], dtype=np.float32),
            top5=np.array(columns[3:], dtype=np.int64).T,
        )


def _is_prediction(row: list[str]) -> bool:
    try:
        label, *best = np.array([int(value) for value in (row[1], *row[3:])], dtype=np.int64).tolist()
        return len(row) == len(HEADER) and label >= 0 and min(best) >= -1 and 0 <= float(row[2]) <= 1
    except (ValueError, IndexError, OverflowError):
        return False
