"""Read and write the folder of a training run: ``run.json``, ``metrics.jsonl``, checkpoints, weights."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from sdabench.data.description import DatasetInfo, FrozenModel
from sdabench.data.official import plural
from sdabench.errors import DataError, RefusedError, SdabenchError, UsageError, WeightsError
from sdabench.files import atomic_write
from sdabench.hashing import sha256_of_file
from sdabench.json_files import read_model
from sdabench.nested import flattened
from sdabench.records.json_lines import append_lines, read_lines, read_sound_lines, write_lines
from sdabench.records.record import Training
from sdabench.records.spec import AnySpec, RunSpec
from sdabench.registry.recipes import WORDS
from sdabench.registry.sources import file_name, identity, is_source
from sdabench.training.checkpoints import Checkpoints, Log, delete
from sdabench.training.trackers import Status, Tracker, TrackerName
from sdabench.weights.weights_source import SUFFIXES

TRAININGS = "training"  # the folder of all trainings in an output folder
WEIGHTS = "model.safetensors"


class TrainingRun(FrozenModel):
    """``run.json``: the spec of a training; at the end, also its result and the weights file of each metric.

    ``sha256`` are the digests of the weights files by name; earlier versions wrote none. ``environment`` is
    that of the start of the training, because the last bits depend on it; ``resumed_with`` are the values
    that later differed from it, in the order of the resumes.
    """

    spec: AnySpec
    world_size: int = 1
    deterministic: bool = False
    environment: dict[str, Any] = Field(default={})
    resumed_with: tuple[dict[str, Any], ...] = ()
    training: Training | None = None
    weights: dict[str, str] = Field(default={})
    sha256: dict[str, str] = Field(default={})

    @property
    def provenance(self) -> dict[str, Any]:
        """The fields that the spec of an evaluation of these weights copies from the training."""
        return {name: getattr(self.spec, name) for name in ("recipe", "train_dataset", "backbone", "initial")}

    def is_finished(self, folder: Path) -> bool:
        """Return whether the training has ended and its weights exist."""
        return self.training is not None and all((folder / name).is_file() for name in self.weights.values())

    def check_weights(self, folder: Path) -> None:
        """Raise a WeightsError if a file of weights is not the one that the training wrote."""
        for name in dict.fromkeys(self.weights.values()):
            check_digest(folder / name, self.sha256.get(name))

    def save(self, folder: Path) -> None:
        with atomic_write(folder / "run.json") as file:
            file.write(self.model_dump_json(indent=1, by_alias=True).encode() + b"\n")

    def differences(self, other: "TrainingRun") -> list[str]:
        """Describe the values that determine the weights and differ from those of another training."""
        there, here = self._decisive(), other._decisive()
        return [
            f"{key} {there.get(key)} there, {here.get(key)} here"
            for key in there | here
            if there.get(key) != here.get(key)
        ]

    def _decisive(self) -> dict[str, Any]:
        spec = self.spec
        assert spec.recipe is not None
        recipe = spec.recipe.model_dump(mode="json", exclude=WORDS)
        return {
            "model": identity(spec.model),
            "definition": spec.network_sha256 if is_source(spec.model) else None,
            "seed": spec.seed,
            "processes": self.world_size,
            "--deterministic": self.deterministic,
            "training images": spec.train_dataset and _in_words(spec.train_dataset),
            "validation images": _in_words(spec.dataset),
            "backbone weights": spec.backbone and spec.backbone.sha256,
            "initial weights": spec.initial and spec.initial.identity,
        } | flattened(recipe)


def _in_words(dataset: DatasetInfo) -> str:
    return f"{dataset.name} ({dataset.samples:,} files, listing {dataset.listing_sha256[:8]})"


def find_started_run(folder: Path, run: TrainingRun, log: Log) -> TrainingRun | None:
    """Find the training that was started in a folder and can be resumed; None if there is none.

    If ``run.json`` is damaged and there are checkpoints, this run takes its place: the name of the folder is
    that of its spec. Only the last digits depend on the rest.

    Raises:
        RefusedError: the folder contains another training.
        SdabenchError: ``run.json`` is damaged, and there are no checkpoints.
    """
    if not (folder / "run.json").exists():
        return None
    try:
        there = read_run(folder)
    except SdabenchError:
        if not Checkpoints(folder):
            raise
        log(f"{folder / 'run.json'} is damaged and is written again; the last digits can differ")
        return None
    if different := there.differences(run):
        raise RefusedError(
            f"{folder} holds another training: {'; '.join(different)}. Resume it with its own options, "
            "or name another --output"
        )
    return there


def check_start(folder: Path, run: TrainingRun) -> None:
    """Raise the error that prevents a training from starting in a folder; write nothing."""
    refuse_to_abandon(folder, run, lambda line: None)
    find_started_run(folder, run, lambda line: None)


def training_folders(parent: Path, model: str) -> list[Path]:
    """List the folders of the trainings of a network; no character of its name is a wildcard."""
    return sorted(each for each in parent.glob("*/") if each.name.startswith(f"{file_name(model)}-"))


def progress_in(folder: Path) -> tuple[int, bool]:
    """Return the step at which the training in a folder would resume, and whether it has ended."""
    try:
        ended = read_run(folder).is_finished(folder)
    except SdabenchError:
        ended = False
    return Checkpoints(folder).newest_step(), ended


def refuse_to_abandon(folder: Path, run: TrainingRun, log: Log) -> None:
    """Raise a RefusedError if a folder beside it has an unfinished training of the same network and seed."""
    for other in training_folders(folder.parent, run.spec.model):
        if other == folder or not (other / "run.json").is_file() or not Checkpoints(other):
            continue
        try:
            there = read_run(other)
        except SdabenchError as error:
            log(f"{error}; it is ignored")
            continue
        same = identity(there.spec.model) == identity(run.spec.model) and there.spec.seed == run.spec.seed
        if there.training is None and same:
            different = "; ".join(there.differences(run)) or "the recipe of another version"
            raise RefusedError(
                f"{other} holds an unfinished training of {run.spec.model} with {different}. Resume it with "
                "its own options, delete it, or name another --output"
            )


def read_run(folder: Path) -> TrainingRun:
    """Read the training run in a folder.

    Raises:
        UsageError: there is no training run.
        SdabenchError: the file is damaged or of another version.
    """
    try:
        return read_model(folder / "run.json", TrainingRun)
    except OSError as error:
        reason = f"run.json: {error.strerror}; name the folder of one"
        raise UsageError(f"{folder} is not a training run: {reason}") from None
    except ValueError:
        raise SdabenchError(
            f"{folder / 'run.json'} is damaged, or another version wrote it; delete the folder to train again"
        ) from None


def find_run(path: Path, model: str) -> Path:
    """Find the finished training run of a network: ``path``, or the only one in that output folder."""
    folders = [path] if (path / "run.json").is_file() else training_folders(path / TRAININGS, model)
    runs = {folder: read_run(folder) for folder in folders if (folder / "run.json").is_file()}
    own = identity(model)  # a file may have moved
    found = [(folder, run) for folder, run in runs.items() if identity(run.spec.model) == own]
    if not runs:
        raise UsageError(_without_run(path, model))
    if not found:
        there = ", ".join(sorted({run.spec.model for run in runs.values()}))
        raise UsageError(f"no training of '{model}' in {path}, which has {there}; name another folder")
    if len(found) > 1:
        names = ", ".join(str(folder) for folder, _ in found)
        raise UsageError(f"{path} holds several trainings of '{model}'; name one: {names}")
    folder, run = found[0]
    if not run.spec.with_values(model=model).is_defined:
        where = "" if is_source(model) else " in the registry"
        raise DataError(
            f"{folder} was trained with another definition of '{model}'{where}; restore that definition, or "
            "train again"
        )
    if run.training is None:
        raise UsageError(f"the training in {folder} is not finished; 'sdabench train {model}' resumes it")
    if not run.is_finished(folder):
        raise UsageError(
            f"the weights of the training in {folder} were deleted; use a run with --keep-checkpoints"
        )
    run.check_weights(folder)
    return folder


def _without_run(path: Path, model: str) -> str:
    """Describe the error of a folder without a training run of a network; name what is in it."""
    names = sorted(each.name for each in path.iterdir())
    runs = sorted(each.parent.name for each in (path / TRAININGS).glob("*/run.json"))
    files = [name for name in names if Path(name).suffix in SUFFIXES]
    if runs:
        return f"no training of '{model}' in {path}, which has {', '.join(runs[:5])}; name another folder"
    if files:
        return f"{path} holds no training run; name a file in it, such as {path / files[0]}"
    kind = "holds no training run" if names else "is an empty folder"
    return f"{path} {kind}; name a weights file, or the folder of a training run"


def check_digest(path: Path, sha256: str | None) -> None:
    """Raise a WeightsError if a file of weights has another digest; without an expected one, do nothing."""
    if sha256 is not None and sha256_of_file(path) != sha256:
        raise WeightsError(
            f"{path} has changed since the training wrote it: its sha256 is another; restore it, or delete "
            f"{path.parent} to train again"
        )


def delete_weights(folder: Path) -> None:
    """Delete all weights and checkpoints of a training run."""
    for path in folder.glob("*.safetensors"):
        delete(path)
    Checkpoints(folder).delete()


class MetricsLine(BaseModel, extra="allow"):
    """What a training logs of one step: losses, learning rate, and metrics of validation."""

    step: int


TAIL_BYTES = 4096  # of a log of metrics, with several lines
EPOCH = re.compile(rb'"epoch": ?([0-9.]+(?=[,}]))')


@dataclass(frozen=True)
class MetricsLog:
    """``metrics.jsonl``, one line for each logged step, with copies in experiment trackers on request."""

    folder: Path
    trackers: list[Tracker] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / "metrics.jsonl"

    def open_trackers(self, names: Sequence[TrackerName], spec: RunSpec, log: Log) -> None:
        """Open trackers, or continue their runs, and copy the lines that they lack; log if they fail."""
        lines = [line.model_dump() for line in read_lines(self.path, MetricsLine)] if names else []
        self.trackers.extend(Tracker(name, self.folder, spec, lines, log) for name in names)

    def write(self, values: dict[str, Any]) -> None:
        """Write a line, also to the trackers."""
        append_lines(self.path, values)
        for tracker in self.trackers:
            tracker.write(values)

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """Close the trackers at the end, with the state in which the training ends."""
        status: Status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            for tracker in self.trackers:
                tracker.close(status)

    def last_epoch(self) -> float:
        """Return the number of trained epochs, with a fraction; 0 if no line states it yet."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                found = EPOCH.findall(file.read())
        except OSError:
            return 0.0
        return float(found[-1]) if found else 0.0

    def forget_after(self, step: int, last_epoch: dict[str, Any] | None, log: Log) -> None:
        """Drop the lines of steps that a resumed training repeats, and damaged lines; log what is lost.

        ``last_epoch`` are values of a checkpoint, which replace the line of that epoch if it was lost.
        """
        found, damaged = read_sound_lines(self.path, MetricsLine)
        lines = {line.step: line for line in found if line.step <= step}
        lost = [f"{plural(damaged, 'damaged line')} dropped"] if damaged else []
        if last_epoch and (ended := last_epoch["step"]) not in lines:
            if not damaged:
                lost.append("lines are missing")
            lost.append(f"the loss at step {ended} is that of the checkpoint")
            lines[ended] = MetricsLine.model_validate(last_epoch)
        write_lines(self.path, (lines[each] for each in sorted(lines)))
        if lost:
            log(f"{self.path}: {'; '.join(lost)}")
