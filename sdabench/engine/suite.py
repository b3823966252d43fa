"""A suite: one network after the other, each in a process of its own, each with a record at the end."""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout

import sdabench
from sdabench.data.imagenet import ImageNetSplit, read_split
from sdabench.engine.settings import EvaluationSettings
from sdabench.errors import DataError, ExitCode, SdabenchError
from sdabench.evidence.records import Failure, Record, Weights, append_line, read_lines
from sdabench.hashing import sha256_of_file

RECORDS = "records.jsonl"
_PROGRAM = (sys.executable, "-P", "-m", "sdabench")  # -P: no module of the current directory gets in


@dataclass(frozen=True)
class Suite:
    """An evaluation of several networks, with all records and predictions in one folder.

    ``weights`` is a folder with one checkpoint a network (``NAME.pth`` or ``NAME.safetensors``), or
    None for random weights.
    """

    models: Sequence[str]
    split: ImageNetSplit
    settings: EvaluationSettings
    output: Path
    weights: Path | None = None

    @cached_property
    def questions(self) -> dict[str, Record]:
        """For each network the record that would answer, without its measurements."""
        dataset = self.split.describe()
        return {model: self.settings.record(model, dataset, self._weights(model)) for model in self.models}

    def done(self) -> dict[str, Record]:
        """The valid records that earlier runs left for the same question, the latest of each network."""
        records = list(read_lines(self.output / RECORDS, Record))
        questions = {model: record.question for model, record in self.questions.items()}
        return {
            record.model: record
            for record in records
            if record.model in questions and record.answers(questions[record.model])
        }

    def run(self, announce: Callable[[str], None] = lambda model: None) -> dict[str, Record]:
        """Evaluates what has no valid record yet; a network that fails gets a record that says why.

        Args:
            announce: called with each network before it is evaluated.

        Returns:
            The record of each network, in the order of ``models``.

        Raises:
            DataError: the dataset is damaged, which no other network would change.
            SdabenchError: another run holds the folder, or it cannot be written.
        """
        with self._held():
            results = self.done()
            for model in self.models:
                if model not in results:
                    announce(model)
                    results[model] = self._evaluate(model)
        return {model: results[model] for model in self.models}

    @contextmanager
    def _held(self) -> Iterator[None]:
        """The output folder, for this run alone."""
        lock = FileLock(self.output / ".lock")
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:
            raise SdabenchError(
                f"another run is writing to {self.output}; wait for it, or name another --output"
            ) from None
        except OSError as error:
            raise SdabenchError(
                f"cannot write {self.output}: {error.strerror}; name another --output"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _evaluate(self, model: str) -> Record:
        settings = replace(self.settings, weights=self._weights_of(model))
        before = len(self._records_of(model))
        command = [*_PROGRAM, "eval", model, *self._arguments(settings)]
        status = subprocess.run(
            command, stdout=subprocess.DEVNULL, check=False, env=_environment()
        ).returncode
        new = self._records_of(model)[before:]
        if status == ExitCode.STOPPED:
            raise KeyboardInterrupt
        if not new:
            read_split(self.split.root)  # if the dataset is gone, that is the error
            record = self.questions[model].model_copy(
                update={"failure": Failure(kind="crash", message=_cause(status))}
            )
            append_line(self.output / RECORDS, record.as_json())
            new = [record]
        if (failure := new[-1].failure) is not None and failure.kind == DataError.__name__:
            raise DataError(failure.message)
        return new[-1]

    def _records_of(self, model: str) -> list[Record]:
        return [record for record in read_lines(self.output / RECORDS, Record) if record.model == model]

    def _arguments(self, settings: EvaluationSettings) -> list[str]:
        options = {
            "--data": f"imagenet={self.split.root}",
            "--output": self.output,
            "--weights": settings.weights,
            "--batch-size": settings.batch_size,
            "--workers": settings.workers,
            "--device": settings.device,
            "--amp": "off" if settings.precision == "fp32" else settings.precision,
            "--resolution": settings.resolution,
            "--seed": settings.seed,
        }
        arguments = [str(word) for pair in options.items() if pair[1] is not None for word in pair]
        return [*arguments, "--channels-last"] if settings.channels_last else arguments

    def _weights(self, model: str) -> Weights:
        path = self._weights_of(model)
        if path is None:
            return Weights(source="random")
        try:
            return Weights(source=str(path), sha256=sha256_of_file(path))
        except OSError:  # absent or unreadable: the network's own failure
            return Weights(source=str(path))

    def _weights_of(self, model: str) -> Path | None:
        if self.weights is None:
            return None
        candidates = [self.weights / f"{model}{suffix}" for suffix in (".safetensors", ".pth", ".pt")]
        return next((path for path in candidates if path.is_file()), candidates[0])


def failed_record(model: str, split: ImageNetSplit, settings: EvaluationSettings, error: Exception) -> Record:
    """The record of an evaluation that ended with an error; with its traceback if nobody expected it."""
    kind, message = type(error).__name__, " ".join(str(error).split())
    if "out of memory" in message or "can't allocate memory" in message or isinstance(error, MemoryError):
        kind, message = "out of memory", f"try a --batch-size below {settings.batch_size} ({message[:150]})"
    trace = None if isinstance(error, SdabenchError) else "".join(traceback.format_exception(error))
    weights = Weights(source="random" if settings.weights is None else str(settings.weights))
    failure = Failure(kind=kind, message=message, traceback=trace)
    return settings.record(model, split.describe(), weights, failure=failure)


def _environment() -> dict[str, str]:
    """The environment for a network's process, in which it finds this very package."""
    own = str(Path(sdabench.__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [own, os.environ.get("PYTHONPATH")]))}


def _cause(status: int) -> str:
    """Why a process ended without a record."""
    if status >= 0:
        return f"the process ended with exit code {status} before it could write a record"
    name = signal.Signals(-status).name
    hint = ", most often for want of memory: try a smaller --batch-size" if name == "SIGKILL" else ""
    return f"the process was ended by {name}{hint}"
