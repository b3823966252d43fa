"""Copy the log of a training to experiment trackers: TensorBoard, and MLflow in a local store.

``metrics.jsonl`` holds everything that a tracker is given. Packages are imported when a tracker is opened.
"""

import logging
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sdabench.errors import OutputError, UsageError
from sdabench.files import atomic_write
from sdabench.nested import flattened

if TYPE_CHECKING:
    from sdabench.records.spec import RunSpec

TrackerName = Literal["tensorboard", "mlflow"]
Status = Literal["FINISHED", "FAILED", "KILLED"]
TITLES: dict[TrackerName, str] = {"tensorboard": "TensorBoard", "mlflow": "MLflow"}
RUN_ID = "mlflow-run"  # file in the folder of a training
EXPERIMENT = "sdabench"


class Tracker(Protocol):
    """What a training writes to, beside ``metrics.jsonl``; only the main process has one."""

    def write(self, values: Mapping[str, float]) -> None:
        """Log the values of one step, which is the value of ``step``."""

    def close(self, status: Status) -> None:
        """End the run; a resumed training opens it again."""


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Raise a UsageError that names the package to install if one is missing."""
    for name in names:
        if find_spec(name) is None:
            raise UsageError(f"--track {name} needs {TITLES[name]}: pip install 'sdabench[{name}]'")


def open_tracker(
    name: TrackerName, folder: Path, spec: "RunSpec", lines: Iterable[Mapping[str, float]]
) -> Tracker:
    """Open the tracker of the training in a folder, or continue its run.

    Args:
        spec: what MLflow lists as parameters.
        lines: the log so far, of which the tracker gets what it lacks.

    Raises:
        UsageError: the package is not installed.
        OutputError: the tracker cannot be written.
    """
    check_trackers([name])
    kind: type[TensorBoard] | type[MLflow] = TensorBoard if name == "tensorboard" else MLflow
    try:
        tracker = kind(folder, spec)
        for line in lines:
            tracker.write(line)
    except Exception as error:  # MLflow's own, of its database or of the server that the user named
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise OutputError(
            f"cannot write to {TITLES[name]} for {folder}: {reason}; leave out --track {name}"
        ) from None
    return tracker


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
    """Write an MLflow run, by default to a store in the output folder, without any server.

    That is ``mlflow.db``, or ``mlruns/`` if there is one, or SQLAlchemy is not installed. The environment
    variable MLFLOW_TRACKING_URI names another store. A file in the folder of the training names its run.
    Steps that a resumed training repeats are not logged twice.
    """

    def __init__(self, folder: Path, spec: "RunSpec") -> None:
        with _quiet():
            from mlflow.tracking import MlflowClient

            store = os.environ.get("MLFLOW_TRACKING_URI") or _store(folder.parents[1])
            self.client: Any = MlflowClient(store)
            self.run = self._find(folder / RUN_ID)
            if self.run is None:
                self.run = self._create(folder, spec)
                with atomic_write(folder / RUN_ID) as file:
                    file.write(self.run.encode())
            else:
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
        with _quiet():
            self.client.log_batch(self.run, metrics=metrics)

    def close(self, status: Status) -> None:
        with _quiet():
            self.client.set_terminated(self.run, status)


def _store(output: Path) -> str:
    files, database = output.absolute() / "mlruns", output.absolute() / "mlflow.db"
    if files.is_dir() or find_spec("sqlalchemy") is None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # refused by MLflow 3.13 and newer otherwise
        return files.as_uri()
    output.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{database}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Run without MLflow's messages, warnings and usage statistics, which it sends over the network."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
