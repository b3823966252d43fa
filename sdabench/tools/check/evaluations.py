"""Which evaluations are compared: of seeded weights, or of a user's checkpoint. Free of torch."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

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
from sdabench.weights.local import LocalWeights

JobOf = Callable[[str], AnyJob]  # of a network's name

RECORDS, SUBSET = "predictions/records.jsonl", "predictions/subset.txt"  # in a folder of baselines
# What the committed baselines are of.
NETWORKS = ("resnet50", "cbam50", "sda_resnet86", "sda_pyconv86")
IMAGES, RESOLUTION = 40, 64
USUAL_IMAGES = 100  # of a user's subset


def seeded_jobs(source: Callable[[], DataSource], folder: Path, device: Callable[[], str]) -> JobOf:
    """Evaluations without weights, which are then seeded; nothing is read before the first is wanted."""

    @cache
    def split() -> Split:
        every = source().read("val")
        if (folder / SUBSET).is_file():
            return with_ids(every, read_ids(folder / SUBSET))
        return stratified(every, IMAGES, seed=0)

    @cache
    def job(name: str) -> AnyJob:
        protocol, machine = protocol_at(RESOLUTION, "classification"), Machine(device=device())
        return evaluation_job(name, source(), split(), machine=machine, protocol=protocol)

    return job


def job_of_weights(
    model: str,
    weights: LocalWeights,
    source: DataSource,
    folder: Path,
    *,
    subset: str | None,
    seed: int,
    resolution: int | None,
    device: str,
) -> AnyJob:
    """The evaluation of a checkpoint; what is not said is as in the baseline, if there is one.

    Args:
        folder: of the baseline.
        subset: a file of image ids, or how many images are drawn.

    Raises:
        NothingMeasuredError: it has no image.
        DataError: it has one that the dataset lacks.
    """
    task: DataTask = load_registry().model(model).task
    return evaluation_job(
        model,
        source,
        _subset(source.read("val", task), folder, subset, seed),
        weights,
        machine=Machine(device=device),
        protocol=protocol_at(resolution or _resolution(model, folder), task),
    )


def check_update(job: AnyJob, folder: Path) -> None:
    """One folder has one subset, which the baselines of all its networks are of.

    Raises:
        UsageError: there are baselines of other networks, of other images.
    """
    others = {record.model for record in read_lines(folder / RECORDS, Record)} - {job.model}
    stored = folder / SUBSET
    if others and stored.is_file() and read_ids(stored) != image_ids(job.split):
        raise UsageError(
            f"{folder} has baselines of {', '.join(sorted(others))} of other images; leave out --subset, or "
            "name another --baseline"
        )


def _subset(split: Split, folder: Path, subset: str | None, seed: int) -> Split:
    stored = folder / SUBSET
    if subset is None and stored.is_file():
        return with_ids(split, read_ids(stored))
    if subset is not None and not subset.isdecimal():
        return with_ids(split, read_ids(Path(subset)))
    images = USUAL_IMAGES if subset is None else int(subset)
    if images == 0:
        raise NothingMeasuredError("--subset 0 is no image, of which nothing can be measured")
    return stratified(split, images, seed)


def _resolution(model: str, folder: Path) -> int | None:
    """The resolution of the stored evaluation; None, for the usual one, if there is none."""
    for record in read_lines(folder / RECORDS, Record):
        if record.model == model and record.protocol is not None:
            return record.protocol.preprocessing.resolution
    return None
