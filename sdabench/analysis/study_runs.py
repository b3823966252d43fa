"""Train and measure the networks of a study in an output folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdabench.analysis.study_measures import (
    Advance,
    ValidationImages,
    images_to_process,
    measure_training,
    recorded_measurement,
)
from sdabench.data.source import DataSource
from sdabench.data.synthetic import Plan, ensure_dataset
from sdabench.data.synthetic.classification import ClassificationPlan
from sdabench.data.synthetic.detection import DetectionPlan
from sdabench.errors import UsageError
from sdabench.files import folder_lock
from sdabench.records.record import Record
from sdabench.records.store import Key
from sdabench.records.studies import StudyFolder
from sdabench.registry import load_registry
from sdabench.registry.studies import AnyData, DetectionData, FrozenStudy, Study, recipe_of
from sdabench.runs.suite import Suite
from sdabench.training.job import AnyJob, Machine, training_job
from sdabench.training.run_folder import TRAININGS, delete_weights, progress_in


def plan_of(data: AnyData) -> Plan:
    """Return the plan of the dataset of a study; raise a UsageError for unknown classes or tiny objects."""
    if isinstance(data, DetectionData):
        return DetectionPlan(**data.model_dump())
    return ClassificationPlan(**data.model_dump())


def is_pilot(study: Study, seeds: Sequence[int]) -> bool:
    """Return whether seeds are pilot seeds; raise a UsageError if only some are seeds of the study."""
    own = set(seeds) & set(study.seeds)
    if own and len(own) < len(set(seeds)):
        listed = ", ".join(map(str, sorted(own)))
        raise UsageError(
            f"of these seeds, {listed} belong to the study and others do not; run them separately"
        )
    return not own


def study_jobs(
    study: Study, seeds: Sequence[int], machine_for: Callable[[int], Machine], data: Path | None = None
) -> list[AnyJob]:
    """Return the trainings of a study, seed by seed, on its dataset, which is generated if necessary.

    ``machine_for`` returns the machine for a number of images; ``data`` is the folder of the dataset.
    """
    source = DataSource("synthetic", data or ensure_dataset(plan_of(study.data)))
    models = [arm.model for arm in study.arms.values()]
    example = training_job(models[0], source, recipe_of(study))
    example = example.on(machine_for(example.images))
    return [example.for_model(model, seed) for seed in seeds for model in models]


@dataclass(frozen=True)
class StudySuite(Suite):
    """The trainings of a study; classifiers keep their weights until they are measured.

    The measures of a detector are the metrics of its record.
    """

    frozen: FrozenStudy = field(kw_only=True)

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.output)

    @property
    def needs_weights(self) -> bool:
        """Whether trainings are measured with their weights."""
        return self.frozen.study.task == "classification"

    def measured(self) -> set[str]:
        """The digests of the specs of the trainings that were measured for this version of the study."""
        return {each.spec_digest for each in self.folder.measurements(self.frozen.sha256)}

    def done(self) -> dict[Key, Record]:
        """Return the records of completed trainings that were measured, or can still be."""
        measurable = [job for job in self.jobs if not self.needs_weights or self._has_weights(job)]
        digests = self.measured() | {job.spec.spec_digest for job in measurable}
        return {key: record for key, record in super().done().items() if key[0] in digests}

    def unmeasured(self) -> list[AnyJob]:
        """List the jobs that can be measured and are not."""
        measured, remaining = self.measured(), self.remaining(self.done())
        return [job for job in self.jobs if job not in remaining and job.spec.spec_digest not in measured]

    def images(self, jobs: Sequence[AnyJob]) -> int:
        """Return how many images :meth:`measure` processes at most."""
        if not self.needs_weights:
            return 0
        models, permutations = load_registry().models, self.frozen.study.permutations
        return sum(
            images_to_process(len(job.split.items), permutations, models[job.model].depth_attention)
            for job in jobs
        )

    def measure(self, jobs: Sequence[AnyJob], device: str, advance: Advance) -> None:
        """Measure trainings, and delete their weights unless they are kept.

        Raises:
            RefusedError: another run is writing to the folder.
        """
        if not jobs:
            return
        with folder_lock(self.output, "run"):
            measured = self.measured()  # another run may have measured them in the meantime
            self._measure([job for job in jobs if job.spec.spec_digest not in measured], device, advance)

    def _measure(self, jobs: Sequence[AnyJob], device: str, advance: Advance) -> None:
        if not jobs:
            return
        arms = {arm.model: name for name, arm in self.frozen.study.arms.items()}
        study, digest = self.frozen.study, self.frozen.sha256
        images = ValidationImages.of(jobs[0]) if self.needs_weights else None
        records: dict[Key, Record] = {} if self.needs_weights else self.done()
        for job in jobs:
            if images is None:
                record = records[job.spec.spec_digest, job.spec.task]
                found = recorded_measurement(record, job, digest, arms[job.model])
            else:
                here = job.on(job.machine.model_copy(update={"device": device}))
                found = measure_training(here, study, digest, arms[job.model], self.output, images, advance)
            self.folder.append([found])
            if not self.keep_checkpoints:
                delete_weights(self.output / TRAININGS / job.spec.name)

    def _delete_weights(self, job: AnyJob) -> None:
        """Keep weights that are to be measured; an interrupted run may have left others."""
        if not self.needs_weights or job.spec.spec_digest in self.measured():
            super()._delete_weights(job)

    def _has_weights(self, job: AnyJob) -> bool:
        return progress_in(self.output / TRAININGS / job.spec.name)[1]
