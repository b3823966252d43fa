"""The folder of one training: ``run.json``, ``metrics.jsonl``, checkpoints, and at the end the weights."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sdabench.data.description import DatasetInfo
from sdabench.errors import OutputError, SdabenchError, UsageError
from sdabench.files import writing
from sdabench.records.record import Training, Weights, append_line
from sdabench.registry.recipes import ClassificationRecipe, DetectionRecipe
from sdabench.training.checkpoints import Checkpoints

TRAININGS = "training"  # the folder of all trainings in an output folder
WEIGHTS = "model.safetensors"


class TrainingRun(BaseModel):
    """``run.json``: what is trained; in the end also how it went, and which weights give which metric.

    ``environment`` is that of its begin, on which the last bits depend.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    seed: int
    data: str
    recipe: ClassificationRecipe | DetectionRecipe
    train_dataset: DatasetInfo
    dataset: DatasetInfo | None = None
    backbone: Weights | None = None
    processes: int = 1
    deterministic: bool = False
    environment: dict[str, Any] = {}
    training: Training | None = None
    weights: dict[str, str] = {}

    @property
    def provenance(self) -> dict[str, Any]:
        """What a record of these weights says of them."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "train_dataset": self.train_dataset,
            "backbone": self.backbone,
            "training": self.training,
        }

    def save(self, folder: Path) -> None:
        with writing(folder / "run.json") as file:
            file.write(self.model_dump_json(indent=1).encode() + b"\n")

    def differences(self, other: "TrainingRun") -> list[str]:
        """What decides the weights and is not the same in another, in words."""
        own, its = self._decisive(), other._decisive()
        return [
            f"{key} {own.get(key)} there, {its.get(key)} here"
            for key in own | its
            if own.get(key) != its.get(key)
        ]

    def _decisive(self) -> dict[str, Any]:
        recipe = self.recipe.model_dump(mode="json", exclude={"title", "source"})
        return {
            "model": self.model,
            "seed": self.seed,
            "processes": self.processes,
            "--deterministic": self.deterministic,
            "training images": _in_words(self.train_dataset),
            "validation images": self.dataset and _in_words(self.dataset),
            "backbone weights": self.backbone and self.backbone.sha256,
        } | dict(_flat(recipe))


def _in_words(dataset: DatasetInfo) -> str:
    return f"{dataset.name} ({dataset.samples:,} files, listing {dataset.listing_sha256[:8]})"


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def begun(folder: Path, run: TrainingRun) -> TrainingRun | None:
    """What was begun in the folder of a training, which is to go on.

    Raises:
        SdabenchError: that was another training, or one that has not ended lies beside it: it would be
            given up without a word.
    """
    if (folder / "run.json").exists():
        there = read_run(folder)
        if different := there.differences(run):
            raise SdabenchError(
                f"{folder} holds another training: {'; '.join(different)}. Continue it as it was begun, or "
                "name another --output"
            )
        return there
    for other in sorted(folder.parent.glob(f"{run.model}-*")):
        if not (other / "run.json").is_file() or not Checkpoints(other):
            continue
        there = read_run(other)
        if there.training is None and there.seed == run.seed:
            raise SdabenchError(
                f"{other} holds a training of {run.model} that has not ended, with "
                f"{'; '.join(there.differences(run))}. Continue it as it was begun, delete it, or name "
                "another --output"
            )
    return None


def read_run(folder: Path) -> TrainingRun:
    """The training in a folder.

    Raises:
        SdabenchError: there is none.
    """
    try:
        return TrainingRun.model_validate_json((folder / "run.json").read_bytes())
    except OSError as error:
        raise UsageError(f"{folder} is no folder of a training: run.json: {error.strerror}") from None
    except ValidationError:
        raise SdabenchError(
            f"{folder / 'run.json'} is damaged, or of another version; delete the folder to train anew"
        ) from None


def is_finished(folder: Path) -> bool:
    """Whether the training in a folder is over, with all its weights."""
    if not (folder / "run.json").exists():
        return False
    run = read_run(folder)
    return run.training is not None and all((folder / name).is_file() for name in run.weights.values())


def find_run(path: Path, model: str) -> Path:
    """The folder of the finished training of a network: ``path``, or the only one in that output folder.

    Raises:
        UsageError: there is none, or there are several.
    """
    folders = [path] if (path / "run.json").is_file() else sorted((path / TRAININGS).glob(f"{model}-*"))
    runs = {folder: read_run(folder) for folder in folders if (folder / "run.json").is_file()}
    good = [folder for folder, run in runs.items() if run.model == model]
    if not good:
        there = ", ".join(sorted({run.model for run in runs.values()})) or "nothing"
        raise UsageError(f"no training of '{model}' in {path}, which holds {there}")
    if len(good) > 1:
        raise UsageError(
            f"{path} holds several trainings of '{model}'; name one: {', '.join(map(str, good))}"
        )
    if runs[good[0]].training is None:
        raise UsageError(f"the training in {good[0]} is not finished; 'sdabench train {model}' continues it")
    if not is_finished(good[0]):
        raise UsageError(
            f"the weights of the training in {good[0]} were deleted; --keep-checkpoints keeps them in a suite"
        )
    return good[0]


def delete_weights(folder: Path) -> None:
    """All weights and checkpoints in the folder of a training."""
    for path in folder.glob("*.safetensors"):
        path.unlink()
    Checkpoints(folder).delete()


@dataclass(frozen=True)
class MetricsLog:
    """``metrics.jsonl``, one line for each thing logged, and TensorBoard's events if they are wanted."""

    folder: Path
    tensorboard: bool = False

    @property
    def path(self) -> Path:
        return self.folder / "metrics.jsonl"

    @cached_property
    def writer(self) -> Any:
        """TensorBoard's, or None.

        Raises:
            UsageError: it is wanted, and not installed.
        """
        if not self.tensorboard:
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError("--tensorboard needs TensorBoard: pip install 'sdabench[tensorboard]'") from None
        return SummaryWriter(self.folder / "tensorboard")

    def write(self, values: dict[str, Any]) -> None:
        append_line(self.path, values)
        if self.writer is not None:
            for key in values.keys() - {"step"}:
                self.writer.add_scalar(key, values[key], values["step"])
            self.writer.flush()

    def forget_after(self, step: int) -> None:
        """Drops the lines of steps that a resumed training does again."""
        kept = [line for line in self._lines() if line["step"] <= step]
        with writing(self.path) as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in kept)

    def _lines(self) -> Sequence[dict[str, Any]]:
        def whole(lines: list[str]) -> Iterator[dict[str, Any]]:
            for line in lines:
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    return  # the process was killed while it wrote this

        try:
            return list(whole(self.path.read_text().splitlines()))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OutputError(f"cannot read {self.path}: {error.strerror}") from None
