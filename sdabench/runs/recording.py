"""A job's records, written whether the job succeeds or fails."""

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from sdabench.errors import SdabenchError
from sdabench.processes import is_main_process
from sdabench.records.record import RECORDS, Failure, Record, append_lines
from sdabench.training.jobs import Job, TrainingJob
from sdabench.training.memory import is_out_of_memory


def recorded(job: Job, output: Path, work: Callable[[], Sequence[Record]]) -> list[Record]:
    """Does the work, and has its records on the disk. Of several processes the first one has them.

    Raises:
        SdabenchError: the work failed, and its records say so; or none can be written, which is seen
            before the work begins.
    """
    if not is_main_process():
        return list(work())
    path = output / RECORDS
    append_lines(path)
    try:
        records = work()
    except Exception as error:
        failure = failure_of(error, _for_memory(job))
        append_lines(path, [each.failed(failure).as_json() for each in job.questions])
        if isinstance(error, SdabenchError):
            raise
        raise SdabenchError(f"{job.model}: {failure.message}") from error
    append_lines(path, [record.as_json() for record in records])
    return list(records)


def _for_memory(job: Job) -> str:
    """What to try where there is too little of it."""
    if job.batch_size <= 2:
        return "a smaller --resolution"
    return "a larger --accumulate" if isinstance(job, TrainingJob) else "a smaller --batch-size"


def failure_of(error: Exception, for_memory: str) -> Failure:
    """What an error means for a record; with its traceback if nobody expected it.

    Args:
        for_memory: what to try where there is too little.
    """
    kind, message = type(error).__name__, " ".join(str(error).split())
    if is_out_of_memory(error):
        kind, message = "out of memory", f"try {for_memory} ({message[:150]})"
    if "deterministic implementation" in message:
        message = f"{message.split('.')[0]}; leave out --deterministic"
    trace = None if isinstance(error, SdabenchError) else "".join(traceback.format_exception(error))
    return Failure(kind=kind, message=message, traceback=trace)
