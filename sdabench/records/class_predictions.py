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

CONFIDENCE = ("top1_probability", "margin")  # columns that files of earlier versions lack
HEADER = ["path", "label", "label_probability", *(f"top{rank}" for rank in range(1, 6)), *CONFIDENCE]


@dataclass(frozen=True)
class ClassPredictions:
    """The top five classes of each image, the probability of its label, and that of the first class.

    With fewer than five classes, the remaining entries of ``top5`` are -1. ``margin`` is the probability of
    the first class minus that of the second. Probability of the first class and margin are NaN if they were
    not stored.
    """

    paths: list[str]
    labels: NDArray[np.int64]  # (N,)
    label_probability: NDArray[np.float32]  # (N,)
    top5: NDArray[np.int64]  # (N, 5)
    top1_probability: NDArray[np.float32]  # (N,)
    margin: NDArray[np.float32]  # (N,)

    def metrics(self) -> dict[str, float]:
        return TopK().update(self.top5, self.labels).compute()

    def hits(self, k: int) -> NDArray[np.bool_]:
        """Return whether the label of each image is among its top k classes: (N,)."""
        hits: NDArray[np.bool_] = (self.top5[:, :k] == self.labels[:, None]).any(axis=1)
        return hits

    def write(self, path: Path) -> None:
        """Write one line for each image, with the columns of :data:`HEADER`; NaN is an empty field."""
        with atomic_gzip_write(path) as file:
            text = io.TextIOWrapper(file, newline="", errors="surrogateescape")
            writer = csv.writer(text)
            writer.writerow(HEADER)
            confidence = np.stack([self.top1_probability, self.margin], axis=1)
            rows = zip(self.paths, self.labels, self.label_probability, self.top5, confidence, strict=True)
            for image, label, probability, classes, known in rows:
                more = ["" if np.isnan(value) else f"{value:.6g}" for value in known]
                writer.writerow([image, label, f"{probability:.6g}", *classes.tolist(), *more])
            text.detach()  # flushes, and leaves the file open

    @classmethod
    def read(cls, path: Path) -> "ClassPredictions":
        """Read a file that :meth:`write` has written, also of earlier versions, compressed or not.

        Raises:
            DataError: it is no such file, or a line is invalid.
        """
        text = read_decompressed(path, "predictions").decode("utf-8-sig", errors="surrogateescape")
        foreign = f"{path} is not a predictions file of a classifier"
        try:
            rows = list(csv.reader(io.StringIO(text, newline="")))
        except csv.Error as error:
            raise DataError(f"{foreign}: {error}") from None
        short = HEADER[: -len(CONFIDENCE)]
        if rows[:1] not in ([HEADER], [short]):
            raise DataError(f"{foreign}: its first line must be {','.join(HEADER)}")
        for number, row in enumerate(rows[1:], start=2):
            if not _is_prediction(row, len(rows[0])):
                raise DataError(
                    f"{path}, line {number}: expected a path, a label, a probability, five classes and, "
                    "unless an earlier version wrote it, the probability of the first and its margin"
                )
        complete = [row + [""] * (len(HEADER) - len(row)) for row in rows[1:]]
        columns: list[Any] = list(zip(*complete, strict=True)) or [()] * len(HEADER)
        first, margin = (np.array([value or "nan" for value in each], np.float32) for each in columns[8:])
        return cls(
            paths=list(columns[0]),
            labels=np.array(columns[1], dtype=np.int64),
            label_probability=np.array(columns[2], dtype=np.float32),
            top5=np.array(columns[3:8], dtype=np.int64).T,
            top1_probability=first,
            margin=margin,
        )


def _is_prediction(row: list[str], columns: int) -> bool:
    try:
        label, *best = np.array([int(value) for value in (row[1], *row[3:8])], dtype=np.int64).tolist()
        shares = [row[2], *filter(None, row[8:])]
        valid = all(0 <= float(share) <= 1 for share in shares)
        return len(row) == columns and label >= 0 and min(best) >= -1 and valid
    except (ValueError, IndexError, OverflowError):
        return False
