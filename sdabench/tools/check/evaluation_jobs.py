"""Make the evaluations that the gate compares: of seeded weights or a checkpoint. Free of torch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from sdabench.cli.options import PIXELS, SEED
from sdabench.cli.parameters import option
from sdabench.cli.sources import SOURCE_HELP, WEIGHTS, fetch_weights
from sdabench.cli.work import DATASET, ensure_generated
from sdabench.data.source import DataSource
from sdabench.data.split import Split
from sdabench.data.subset import image_ids, read_ids, stratified, with_ids
from sdabench.errors import NothingMeasuredError, UsageError
from sdabench.records.json_lines import read_lines
from sdabench.records.record import Record
from sdabench.records.spec import protocol_at
from sdabench.registry import load_registry
from sdabench.registry.schema import DataTask
from sdabench.training.job import AnyJob, Machine, evaluation_job
from sdabench.weights.weights_source import WeightsSource

JobFactory = Callable[[str], AnyJob]  # takes the name of a network

RECORDS, SUBSET = "predictions/records.jsonl", "predictions/subset.txt"  # in the folder of the golden files
# The evaluations whose golden files are committed.
NETWORKS = ("resnet50", "cbam50", "sda_resnet86", "sda_pyconv86")
IMAGES, RESOLUTION = 40, 64
DEFAULT_IMAGES = 100  # in a user's subset


def seeded_jobs(locate: Callable[[], DataSource], folder: Path, machine: Machine) -> JobFactory:
    """Return a factory of evaluations with seeded weights; its first call reads the dataset."""

    @cache
    def dataset() -> tuple[DataSource, Split]:
        source = locate()
        return source, _subset(source.read("val"), folder, None, IMAGES, seed=0)

    def job(name: str) -> AnyJob:
        protocol = protocol_at(RESOLUTION, "classification")
        return evaluation_job(name, *dataset(), machine=machine, protocol=protocol)

    return job


@dataclass(frozen=True)
class OwnCheckpoint:
    """A checkpoint of the user, and the images for its predictions."""

    # fmt: off
    weights: Annotated[WeightsSource | None, option(
        "--weights", type=WEIGHTS, group="Your own checkpoint",
        help=f"Weights whose predictions are checked. {SOURCE_HELP}")]
    data: Annotated[DataSource | None, option(
        "--data", type=DATASET, group="Your own checkpoint", help="Dataset of the predictions")]
    subset: Annotated[str | None, option(
        "--subset", metavar="FILE|N", group="Your own checkpoint",
        help=f"Images to predict: a file with one id per line, or a number, drawn evenly from all classes "
        f" [default: as in the golden files, or {DEFAULT_IMAGES}]")]
    seed: Annotated[int, option(
        "--seed", type=SEED, default=0, group="Your own checkpoint", advanced=True,
        help="Random seed of --subset N")]
    resolution: Annotated[int | None, option(
        "--resolution", type=PIXELS, group="Your own checkpoint", advanced=True,
        help="Crop size in pixels; for a detector, the short side  [default: that of the golden files]")]
    # fmt: on

    def job(self, model: str, folder: Path, machine: Machine) -> AnyJob:
        """Return the evaluation. The golden files in ``folder`` give the default subset and resolution.

        Raises:
            NothingMeasuredError: the subset is empty.
            DataError: an image of the subset is not in the dataset.
        """
        assert self.weights is not None
        assert self.data is not None
        task: DataTask = load_registry().model(model).task
        weights, source = fetch_weights(self.weights, model).check(), ensure_generated(self.data, task)
        split = _subset(source.read("val", task), folder, self.subset, DEFAULT_IMAGES, self.seed)
        protocol = protocol_at(self.resolution or _resolution(model, folder), task)
        return evaluation_job(model, source, split, weights, machine=machine, protocol=protocol)


def check_update(job: AnyJob, folder: Path) -> None:
    """Check that an update does not change the subset that all networks of a folder share.

    Raises:
        UsageError: the golden files of other networks are those of other images.
    """
    others = {record.model for record in read_lines(folder / RECORDS, Record)} - {job.model}
    stored = folder / SUBSET
    if others and stored.is_file() and read_ids(stored) != image_ids(job.split):
        raise UsageError(
            f"{folder} has golden files of {', '.join(sorted(others))} for other images; leave out --subset, "
            "or choose another --baseline"
        )


def _subset(split: Split, folder: Path, subset: str | None, default: int, seed: int) -> Split:
    stored = folder / SUBSET
    if subset is None and stored.is_file():
        return with_ids(split, read_ids(stored))
    if subset is not None and not subset.isdecimal():
        return with_ids(split, read_ids(Path(subset)))
    images = default if subset is None else int(subset)
    if images == 0:
        raise NothingMeasuredError("--subset 0 selects no images; choose at least 1")
    return stratified(split, images, seed)


def _resolution(model: str, folder: Path) -> int | None:
    """Return the resolution of the golden record, or None for the task's default."""
    for record in read_lines(folder / RECORDS, Record):
        if record.model == model and record.protocol is not None:
            return record.protocol.preprocessing.resolution
    return None
