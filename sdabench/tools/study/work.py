"""Prepare the trainings of a study, run them, and find what was measured."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdabench.cli import StoppedBySignalError
from sdabench.cli.cluster import ClusterOptions, place_from
from sdabench.cli.machine import MachineOptions, choose_device, report_how_to_resume
from sdabench.data.official import plural
from sdabench.errors import NothingMeasuredError
from sdabench.progress import progress
from sdabench.records.store import RecordStore
from sdabench.records.studies import StudyFolder, default_output
from sdabench.registry.studies import Study, frozen, load_study, study_files
from sdabench.terminal import echo

if TYPE_CHECKING:
    from sdabench.analysis.study_runs import StudySuite
    from sdabench.data.synthetic import Plan
    from sdabench.training.job import Machine


@dataclass(frozen=True)
class PreparedStudy:
    """The suite of a study, the seeds that it trains, and the device that measures its networks."""

    suite: "StudySuite"
    seeds: tuple[int, ...]
    pilot: bool
    device: str


def prepare(
    name: str,
    seeds: tuple[int, ...] | None,
    output: Path | None,
    machine: MachineOptions,
    at_once: int | None,
    cluster: ClusterOptions,
    keep_checkpoints: bool = False,
) -> PreparedStudy:
    """Make the suite of a study; generate its dataset if necessary.

    Raises:
        UsageError: an unknown study, or options that contradict each other.
        RefusedError: the output folder holds another study, or another version of it.
    """
    from sdabench.analysis.study_runs import StudySuite, is_pilot, plan_of, study_jobs

    study = load_study(name)
    chosen = seeds or study.seeds
    pilot, declaration = is_pilot(study, chosen), frozen(study)
    output = output or default_output(study, pilot)
    StudyFolder(output).check(declaration, pilot)
    place = place_from(output, at_once, machine.device, machine.nproc, cluster)
    machine = replace(machine, device=place.device, nproc=place.nproc)

    def machine_for(images: int) -> "Machine":
        return machine.machine(images, at_once=place.sharing, cpus=place.cpus)

    plan = plan_of(study.data)
    jobs = study_jobs(study, chosen, machine_for, _dataset(plan))
    suite = StudySuite(
        jobs, output, keep_checkpoints, place.at_once or len(jobs), place.launcher, frozen=declaration
    )
    here = place.device if cluster.launcher == "local" else choose_device(None)
    return PreparedStudy(suite, chosen, pilot, here)


def _dataset(plan: "Plan") -> Path:
    """Return the folder of a generated dataset, after generating it with a progress bar if needed."""
    from sdabench.data.synthetic import ensure_dataset, folder_of, has_dataset

    if has_dataset(plan):
        return ensure_dataset(plan)
    echo(f"Generating the dataset of the study, once, in {folder_of(plan)}", err=True)
    try:
        with progress("generated images", plan.total, "images") as advance:
            return ensure_dataset(plan, advance)
    except KeyboardInterrupt:
        again = "Rerun the same command to generate the dataset from the start."
        raise StoppedBySignalError(again) from None


def train_and_measure(prepared: PreparedStudy) -> bool:
    """Train and measure what is missing, with progress on stderr; return whether all trainings succeeded.

    Raises:
        StoppedBySignalError: a signal stopped it; the message says how to resume.
    """
    from sdabench.cli.suite_progress import run_remaining

    suite = prepared.suite
    with report_how_to_resume(suite.output, suite.launcher.remaining):
        suite.folder.freeze(suite.frozen, prepared.pilot)
        _measure(prepared)
        records = run_remaining(suite)
        _measure(prepared)
    return not any(record.failure for record in records)


def _measure(prepared: PreparedStudy) -> None:
    suite = prepared.suite
    jobs = suite.unmeasured()
    if images := suite.images(jobs):
        echo(f"Measuring {plural(len(jobs), 'training')}", err=True)
    with progress("measuring", images, "images") as advance:
        suite.measure(jobs, prepared.device, advance)


@contextmanager
def report_how_to_show(output: Path) -> Iterator[None]:
    """Report where the results are if a signal stops their display."""
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedBySignalError(
            f"The results are in {output}; 'sdabench study show {output}' prints them."
        ) from None


def refuse_without_measurements(
    text: str, study: Study, folder: StudyFolder | None, pilot: bool, measured: Sequence[object]
) -> None:
    """Raise a NothingMeasuredError with the command that measures, if there are no measurements.

    ``text`` names the study, if no ``folder`` holds it.
    """
    if measured:
        return
    source = study.name if study.name in study_files() else "FILE" if folder else text
    command = f"sdabench study run {source}"
    if pilot:
        command += " --seeds SEEDS"
    if folder is not None and folder.path.absolute() != default_output(study, pilot).absolute():
        command += f" --output {folder.path}"
    if folder is not None and (
        trained := [each for each in RecordStore(folder.path).read() if not each.failure]
    ):
        raise NothingMeasuredError(
            f"{plural(len(trained), 'training')} of the study {study.name} ended, and none is measured yet; "
            f"'{command}' measures them after the last one"
        )
    raise NothingMeasuredError(
        f"nothing of the study {study.name} was measured; '{command}' trains and measures its networks"
    )
