"""Records: one stored result each, in append-only JSON lines."""

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sdabench.data.description import DatasetInfo, Part, Preprocessing, Resizing
from sdabench.errors import OutputError, SdabenchError
from sdabench.hashing import sha256_of_lines
from sdabench.paths import COUNTS, OUTPUTS, results_dir
from sdabench.registry.recipes import Precision
from sdabench.scoring.intervals import standard_error_pct

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
R = TypeVar("R", bound=BaseModel)


RECORDS = "records.jsonl"  # in the folder of a run
RANDOM, TRAINED_HERE = "random", "training"


class Weights(Part):
    """``source`` is a file's path, ``random`` (from the seed), or ``training`` (by the record's recipe).

    Or where the file was fetched from, as ``--weights`` takes it: a URL without credentials,
    ``torchvision:NAME`` or ``timm:NAME``.
    """

    source: str
    sha256: str | None = None

    @property
    def trained(self) -> bool:
        return self.source != RANDOM

    @property
    def identity(self) -> str | None:
        """What tells two weights apart: the file's content; others follow from the rest of the record."""
        return self.source if self.source in (RANDOM, TRAINED_HERE) else self.sha256


class Protocol(Part):
    """How images become inputs, and the arithmetic they meet."""

    preprocessing: Preprocessing | Resizing
    precision: Precision = "fp32"
    channels_last: bool = False


class Training(Part):
    """How a training went. Losses are means over images; the last is that of the last epoch.

    ``fits`` says whether the last loss fell below the recipe's limit, and is None where it has none.
    Each batch was computed in so many ``parts``, with batch norms of their own, by so many ``processes``.
    ``learning_rate`` is that of the batch, before any schedule. ``frozen`` says whether a detector's stem,
    first stage and statistics of batch norms stayed as they were.
    """

    epochs: int
    steps: int
    first_loss: float
    last_loss: float
    fits: bool | None
    seconds: float
    images_per_second: float
    skipped_images: int = 0
    resumed: int = 0
    processes: int = 1
    parts: int | None = None
    seeds: list[int]
    learning_rate: float | None = None
    frozen: bool | None = None
    best_epochs: dict[str, int] = Field(default={})


class Failure(Part):
    kind: str
    message: str
    traceback: str | None = None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Record(Part):
    """One result of one network. Metrics in percent, unrounded; a failed one has a failure instead.

    ``standard_errors``, in percentage points, are those that do not follow from metric and samples: of AP.
    """

    model_config = ConfigDict(populate_by_name=True)

    record_schema: Literal["sdabench.record/1"] = Field("sdabench.record/1", alias="schema")
    model: str
    task: str
    metrics: dict[str, Percent] = Field(default={})
    standard_errors: dict[str, Percent] = Field(default={})
    samples: int = 0
    dataset: DatasetInfo
    protocol: Protocol | None = None  # unknown for predictions that somebody else made
    weights: Weights
    seed: int | None = None
    batch_size: int | None = None
    fitted_batch_size: int | None = None  # what the memory allowed, if less
    recipe: dict[str, Any] | None = None
    train_dataset: DatasetInfo | None = None
    backbone: Weights | None = None  # what a detector's training began with
    training: Training | None = None
    failure: Failure | None = None
    predictions: str | None = None
    environment: dict[str, Any] = Field(default={})
    git_revision: str | None = None
    wall_seconds: float = 0.0
    peak_memory_bytes: int | None = None
    created: str = Field(default_factory=_now)

    def standard_error(self, metric: str) -> float | None:
        """In percentage points; None where it is not known, or the metric was not measured."""
        if metric not in self.metrics or self.samples == 0:
            return None
        if self.task == "classification":
            return standard_error_pct(self.metrics[metric], self.samples)
        return self.standard_errors.get(metric)

    @property
    def comparable(self) -> bool:
        """Whether its metrics may stand beside the README's.

        They may if they are of trained weights, on the whole real dataset, by the usual preprocessing;
        if the weights are of a training of ours, by the paper's recipe on the whole training set, and of
        a detector from a trained backbone.
        """
        return (
            self.failure is None
            and self.dataset.complete
            and self.weights.trained
            and self.samples > 0
            and self.protocol is not None
            and self.protocol.preprocessing in (Preprocessing(), Resizing())
            and (self.recipe is None or self._reproduces)
        )

    @property
    def _reproduces(self) -> bool:
        assert self.recipe is not None
        whole = self.train_dataset is not None and self.train_dataset.complete
        begun = self.task == "classification" or self.backbone is not None
        return whole and begun and bool(self.recipe.get("reproduction"))

    @property
    def question(self) -> str:
        """A digest of what was asked: model, task, data, protocol, weights, seed and recipe."""
        asked = self.model_dump(mode="json", include={"model", "task", "protocol", "seed", "recipe"})
        for words in ("title", "source"):
            (asked["recipe"] or {}).pop(words, None)
        trained_on = self.train_dataset.listing_sha256 if self.train_dataset else ""
        weights = [each.identity or "" for each in (self.weights, self.backbone) if each is not None]
        return sha256_of_lines([json.dumps(asked), self.dataset.listing_sha256, trained_on, *weights])

    def failed(self, failure: Failure) -> "Record":
        """The same question, with no answer but a reason."""
        return self.model_copy(update={"failure": failure, "created": _now()})

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)


def stored_records() -> list[Record]:
    """The committed records."""
    paths = sorted(path for path in results_dir().glob("*.jsonl") if path.name not in (COUNTS, OUTPUTS))
    return [record for path in paths for record in read_lines(path, Record)]


def append_line(path: Path, item: dict[str, Any]) -> None:
    """See :func:`append_lines`."""
    append_lines(path, [item])


def append_lines(path: Path, items: Sequence[dict[str, Any]] = ()) -> None:
    """Add JSON lines, and have them on the disk before returning; without any, see that one could be.

    A line that an earlier process left half-written is closed first, so that it spoils only itself.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        line = b"".join(json.dumps(item, allow_nan=False).encode() + b"\n" for item in items)
        with path.open("ab+", buffering=0) as file:
            with suppress(OSError):  # not every network file system has locks
                fcntl.lockf(file, fcntl.LOCK_EX)  # until it is closed: other nodes write to it too
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                line = (b"" if file.read(1) == b"\n" else b"\n") + line
            if file.write(line) != len(line):  # in one piece, so that several processes can
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; name another --output") from None


def read_lines(path: Path, schema: type[R]) -> Iterator[R]:
    """The valid items of a JSON-lines file, in the order of writing; none if there is no file.

    A line that was cut short (the process was killed while writing) is passed over.

    Raises:
        SdabenchError: the file cannot be read, or another line is no such item.
    """
    try:
        lines = path.read_text(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise SdabenchError(f"cannot read {path}: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        if not line:  # two writers at a time have both closed a line that was cut short
            continue
        try:
            data = json.loads(line)
        except json.JSONDecodeError:
            if line.startswith("{"):
                continue
            raise SdabenchError(f"{path}, line {number}: no JSON; this is no file of records") from None
        try:
            yield schema.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(step) for step in first["loc"])
            raise SdabenchError(
                f"{path}, line {number}: {field}: {first['msg']}; it was written by another version, "
                "move the file away"
            ) from None


def write_lines(path: Path, items: Iterable[BaseModel]) -> None:
    """Replace a JSON-lines file as a whole: written beside it, then renamed.

    Raises:
        OutputError: the file cannot be written.
    """
    beside = path.with_name(f"{path.name}.tmp")
    try:
        beside.write_text("".join(item.model_dump_json(by_alias=True) + "\n" for item in items))
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
