"""Which evaluations are compared: of seeded weights, or of a user's checkpoint. Free of torch."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from sdabench.data.description import Preprocessing, Resizing
from sdabench.data.source import DataSource
from sdabench.data.split import Split
from sdabench.data.subset import image_ids, read_ids, stratified, with_ids
from sdabench.errors import NothingMeasuredError, UsageError
from sdabench.records.record import Record, read_lines
from sdabench.registry import load_registry
from sdabench.registry.schema import DataTask
from sdabench.training.jobs import EVALUATION_BATCH, EvaluationJob, Machine, preprocessing_at
from sdabench.weights.local import LocalWeights

JobOf = Callable[[str], EvaluationJob]  # of a network's name

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
    def job(name: str) -> EvaluationJob:
        preprocessing = preprocessing_at(RESOLUTION, "classification")
        return EvaluationJob(name, source(), split(), machine=Machine(device()), preprocessing=preprocessing)

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
) -> EvaluationJob:
    """The evaluation of a checkpoint; what is not said is as in the baseline, if there is one.

    Args:
        folder: of the baseline.
        subset: a file of image ids, or how many images are drawn.

    Raises:
        NothingMeasuredError: it has no image.
        DataError: it has one that the dataset lacks.
    """
    task: DataTask = load_registry().model(model).task
    return EvaluationJob(
        model=model,
        source=source,
        split=_subset(source.read("val", task), folder, subset, seed),
        weights=weights,
        machine=Machine(device),
        batch_size=EVALUATION_BATCH[task],
        preprocessing=preprocessing_at(resolution or _resolution(model, folder, task), task),
    )


def check_update(job: EvaluationJob, folder: Path) -> None:
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


def _resolution(model: str, folder: Path, task: DataTask) -> int:
    """Pixels of the baseline's crop, or of a detector's short side; the usual ones without a baseline."""
    for record in read_lines(folder / RECORDS, Record):
        if record.model == model and record.protocol is not None:
            own = record.protocol.preprocessing
            return own.crop if isinstance(own, Preprocessing) else own.short
    return Preprocessing().crop if task == "classification" else Resizing().short
