"""Execute a job in this process or in several, and store its records."""

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from sdabench.errors import (
    DataError,
    ExitCode,
    RefusedError,
    ReportedByRankZeroError,
    SdabenchError,
    UsageError,
)
from sdabench.processes import NETWORKS_AT_ONCE, is_main_process, launched_processes
from sdabench.progress import progress
from sdabench.records.record import Failure, Record
from sdabench.records.store import RecordStore
from sdabench.registry.sources import is_source
from sdabench.terminal import error_line, redacted
from sdabench.training.job import AnyJob
from sdabench.training.job_file import save_job
from sdabench.training.signals import stop_requests


def execute(job: AnyJob, output: Path, ready: Callable[[], object] = lambda: None) -> list[Record]:
    """Execute a job in the processes of its machine; return its records in the main process.

    ``ready`` is called first, and raises an error that prevents the job from starting.

    Raises:
        KeyboardInterrupt: a signal stopped the job, which can be resumed.
        ReportedByRankZeroError: one of several processes has failed and has reported the error.
        SdabenchError: the job failed, and its records state why; or no record can be written.
    """
    with recording_failures(job, output):
        ready()
    if job.machine.world_size <= launched_processes():
        return _execute_here(job, output)
    from sdabench.runs.ranks import run_processes

    status = run_processes(save_job(job, output), job.machine.world_size)
    if status == ExitCode.STOPPED:
        raise KeyboardInterrupt
    if status != ExitCode.OK:
        raise ReportedByRankZeroError(status)
    return RecordStore(output).latest(job.spec)


def _execute_here(job: AnyJob, output: Path) -> list[Record]:
    """Execute a job in this process, which can be one of several ranks."""
    from sdabench.training.distributed import process_group, world
    from sdabench.training.evaluation import evaluate, evaluate_training
    from sdabench.training.image_check import check_validation_images
    from sdabench.training.loading import lost_worker_errors
    from sdabench.training.loop import train
    from sdabench.training.precision import restoring_threads

    images = len(job.split.items)
    with (
        stop_requests(),
        process_group(job.machine.device),
        recording_failures(job, output),
        lost_worker_errors(),
        restoring_threads(),
    ):
        world().check_equal(_identity(job))
        if job.spec.trains:
            check_validation_images(job)
            with progress(job.model, job.images, "images") as advance:
                folder = train(job, output, advance, advance.say)
            with progress(f"{job.model}  evaluation", images, "images") as advance:
                records = evaluate_training(job, folder, output, advance)
        else:
            with progress(job.model, images, "images") as advance:
                records = evaluate(job, output, advance)
        if is_main_process():
            RecordStore(output).append(records)
    return records


def _identity(job: AnyJob) -> dict[str, object]:
    """Return the values that have to be equal on all machines of a job."""
    train, machine = job.spec.train_dataset, job.machine
    return {
        "training images": train and train.listing_sha256[:12],
        "images": job.spec.dataset.listing_sha256[:12],
        "jobs": job.spec.spec_digest[:12],
        "batch sizes": job.batch_size,
        "--deterministic": machine.deterministic,
        "--compile": machine.compile,
        "device types": machine.device.partition(":")[0],
        "versions of torch": version("torch"),
    }


@contextmanager
def recording_failures(job: AnyJob, output: Path) -> Iterator[None]:
    """Store the failure of a job in the main process, and raise it as a SdabenchError.

    First check that records and predictions can be written. Outside a suite, whose table states the reason,
    wrong usage and a refusal to start are not recorded.
    """
    if not is_main_process():
        yield
        return
    store = RecordStore(output)
    store.check()
    try:
        yield
    except Exception as error:
        if isinstance(error, (RefusedError, UsageError)) and NETWORKS_AT_ONCE not in os.environ:
            raise
        failure = _failure_of(error, job)
        store.append(failures(job, failure))
        if isinstance(error, SdabenchError):
            raise
        raise SdabenchError(f"{job.model}: {failure.message}") from error


def failures(job: AnyJob, failure: Failure) -> list[Record]:
    """Build the records of a failed job, one for each of its tasks."""
    return [Record.of(job.spec, task, batch_size=job.batch_size, failure=failure) for task in job.spec.tasks]


def out_of_memory(job: AnyJob, reason: str) -> str:
    """Describe an error of exhausted memory, with its next step."""
    smaller_batch = "a larger --accumulate" if job.spec.trains else "a smaller --batch-size"
    hint = "a smaller --resolution" if job.batch_size <= 2 else smaller_batch
    return f"out of memory; try {hint} ({reason[:150]})" if reason else f"out of memory; try {hint}"


def _failure_of(error: Exception, job: AnyJob) -> Failure:
    """Convert an error to the failure of a record, with the traceback of unexpected errors."""
    from sdabench.training.device_errors import describe_device_error, is_out_of_memory
    from sdabench.training.loading import message_of

    kind, message = type(error).__name__, error_line(" ".join(message_of(error).splitlines()))
    if isinstance(error, DataError):
        kind = DataError.__name__  # every other job on these data would fail too
    if is_out_of_memory(error):
        kind, message = "out of memory", out_of_memory(job, message)
    elif of_device := describe_device_error(error):
        message = of_device
    if "deterministic implementation" in message:
        message = f"{message.split('.')[0]}; leave out --deterministic"
    if is_source(job.model) and kind in ("AssertionError", "RuntimeError", "ValueError"):
        message = f"{message}; if the network takes only another input size, name it with --resolution"
    trace = None if isinstance(error, SdabenchError) else redacted("".join(traceback.format_exception(error)))
    return Failure(kind=kind, message=message, traceback=trace)
