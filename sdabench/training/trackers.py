"""Copy the log of a training to experiment trackers: TensorBoard, and MLflow in a local store.

``metrics.jsonl`` holds everything that a tracker is given. Packages are imported when a tracker is opened, by
the main thread: data loaders that are forked during an import would wait for it for ever.
"""

import logging
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, Protocol

from filelock import FileLock

from sdabench.errors import UsageError
from sdabench.files import atomic_write
from sdabench.nested import flattened
from sdabench.terminal import error_line

if TYPE_CHECKING:
    from sdabench.records.spec import RunSpec

TrackerName = Literal["tensorboard", "mlflow"]
Status = Literal["FINISHED", "FAILED", "KILLED"]
TITLES: dict[TrackerName, str] = {"tensorboard": "TensorBoard", "mlflow": "MLflow"}
PACKAGES: dict[TrackerName, tuple[str, ...]] = {
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}
IMPORTED: dict[TrackerName, str] = {"tensorboard": "torch.utils.tensorboard", "mlflow": "mlflow.tracking"}
# How long the end of a training waits for a store that is behind or does not answer.
CLOSE_SECONDS: dict[Status, float] = {"FINISHED": 30, "FAILED": 5, "KILLED": 5}
LOCK_SECONDS = 60  # for a store that another training opens
RUN_ID = "mlflow-run"  # file in the folder of a training
EXPERIMENT = "sdabench"


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Raise a UsageError that names the package to install if one is missing."""
    for name in names:
        if not all(map(find_spec, PACKAGES[name])):
            raise UsageError(f"--track {name} needs {TITLES[name]}: pip install 'sdabench[{name}]'")


class Store(Protocol):
    """Where a tracker writes; opened and used by one thread."""

    def write(self, values: Mapping[str, float]) -> None:
        """Log the values of one step, which is the value of ``step``."""

    def close(self, status: Status) -> None:
        """End the run; a resumed training opens it again."""


class Tracker:
    """Copy the log of a training to a store, in a thread: no store delays a step or a signal.

    A store that fails gets no more values; that is reported with the next step, and the training continues.
    """

    def __init__(
        self,
        name: TrackerName,
        folder: Path,
        spec: "RunSpec",
        lines: Iterable[Mapping[str, float]],
        log: Callable[[str], None],
    ) -> None:
        """Start the tracker of the training in a folder, or continue its run.

        Args:
            spec: what MLflow lists as parameters.
            lines: the log so far, of which the store gets what it lacks.
            log: prints the reason if the store fails, in the thread of the training.
        """
        self._title, self._log, self._failure = TITLES[name], log, ""
        self._queue: SimpleQueue[Mapping[str, float] | Status] = SimpleQueue()
        for line in lines:
            self._queue.put(line)
        self._thread = Thread(target=self._copy, args=(STORES[name], folder, spec), daemon=True)
        try:
            _silence()
            import_module(IMPORTED[name])
        except Exception as error:  # of a broken installation
            self._fail(error)
        else:
            self._thread.start()

    def _copy(self, open_store: Callable[[Path, "RunSpec"], Store], folder: Path, spec: "RunSpec") -> None:
        try:
            store = open_store(folder, spec)
            while not isinstance(item := self._queue.get(), str):
                store.write(item)
            store.close(item)
        except Exception as error:  # of any database, server or file system
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        self._failure = error_line(reason or type(error).__name__)

    def write(self, values: Mapping[str, float]) -> None:
        if self._thread.is_alive():
            self._queue.put(values)
        self._report()

    def close(self, status: Status) -> None:
        """End the run, after all values are written or the store has not answered for some seconds."""
        self._queue.put(status)
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS[status])
        if self._thread.is_alive():
            self._failure = f"no answer for {CLOSE_SECONDS[status]:g} s"
        self._report()

    def _report(self) -> None:
        if reason := self._failure:
            self._failure = ""
            self._log(f"{self._title} gets no more values: {reason}; metrics.jsonl has all of them")


class TensorBoard:
    """Write event files to ``tensorboard/`` in the folder of a training."""

    def __init__(self, folder: Path, spec: "RunSpec") -> None:
        from torch.utils.tensorboard import SummaryWriter

        # All steps are written again when a training resumes; those of earlier files are hidden.
        self.writer: Any = SummaryWriter(folder / "tensorboard", purge_step=0)

    def write(self, values: Mapping[str, float]) -> None:
        for key in values.keys() - {"step"}:
            self.writer.add_scalar(key, values[key], values["step"])
        self.writer.flush()

    def close(self, status: Status) -> None:
        self.writer.close()


class MLflow:
    """Write an MLflow run, by default to ``mlflow.db`` in the output folder, without any server.

    The environment variable MLFLOW_TRACKING_URI names another store. A file in the folder of the training
    names its run. Steps that a resumed training repeats are not logged twice.
    """

    def __init__(self, folder: Path, spec: "RunSpec") -> None:
        from mlflow.tracking import MlflowClient

        output = folder.parents[1].absolute()
        with FileLock(output / ".mlflow.lock", LOCK_SECONDS):  # trainings at the same time share the store
            self.client: Any = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or _database(output))
            self.run = self._find(folder / RUN_ID) or self._create(folder, spec)
        with atomic_write(folder / RUN_ID) as file:
            file.write(self.run.encode())
        self.client.update_run(self.run, "RUNNING")
        logged = self.client.get_metric_history(self.run, "loss")
        self.last_step = max((metric.step for metric in logged), default=-1)

    def _find(self, file: Path) -> str | None:
        """Return the run that the file names, if it is still in the store."""
        from mlflow.exceptions import MlflowException

        try:
            run = file.read_text().strip()
            self.client.get_run(run)
        except (OSError, UnicodeDecodeError, MlflowException):
            return None
        return run

    def _create(self, folder: Path, spec: "RunSpec") -> str:
        from mlflow.entities import Param

        found = self.client.get_experiment_by_name(EXPERIMENT)
        artifacts = (folder.parents[1] / "mlflow-artifacts").absolute().as_uri()
        experiment = found.experiment_id if found else self.client.create_experiment(EXPERIMENT, artifacts)
        run: str = self.client.create_run(experiment, run_name=folder.name).info.run_id
        values = {"folder": folder, "model": spec.model, "seed": spec.seed, "spec_digest": spec.spec_digest}
        values |= flattened(spec.recipe.model_dump(mode="json")) if spec.recipe else {}
        parameters = [Param(key, str(value)[:500]) for key, value in values.items()]
        self.client.log_batch(run, params=parameters)
        return run

    def write(self, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        step, now = int(values["step"]), int(time.time() * 1000)
        if step <= self.last_step:
            return
        metrics = [Metric(key, float(value), now, step) for key, value in values.items() if key != "step"]
        self.client.log_batch(self.run, metrics=metrics)

    def close(self, status: Status) -> None:
        self.client.set_terminated(self.run, status)


STORES: dict[TrackerName, Callable[[Path, "RunSpec"], Store]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def _database(output: Path) -> str:
    """Return the address of the database, after a check: MLflow tries an unusable one for minutes."""
    path = output / "mlflow.db"
    with closing(sqlite3.connect(path, LOCK_SECONDS)) as database:
        database.execute("BEGIN IMMEDIATE")
    return f"sqlite:///{path}"


def _silence() -> None:
    """Turn off MLflow's messages, warnings and usage statistics, which it sends over the network."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    for name in ("alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(alembic|mlflow|sqlalchemy)\b")
