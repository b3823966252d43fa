"""A job's record, written whether the job succeeds or fails."""

import traceback
from collections.abc import Callable
from pathlib import Path

from sdabench.engine.jobs import Job, TrainingJob
from sdabench.errors import SdabenchError
from sdabench.evidence.records import Failure, Record, append_line

RECORDS = "records.jsonl"


def recorded(job: Job, output: Path, work: Callable[[], Record]) -> Record:
    """Does the work, and has its record on the disk.

    Raises:
        SdabenchError: the work failed, and its record says so; or no record can be written, which is
            seen before the work begins.
    """
    path = output / RECORDS
    append_line(path)
    try:
        record = work()
    except Exception as error:
        training = isinstance(job, TrainingJob)
        failure = failure_of(error, "a larger --accumulate" if training else "a smaller --batch-size")
        append_line(path, job.question.failed(failure).as_json())
        if isinstance(error, SdabenchError):
            raise
        raise SdabenchError(f"{job.model}: {failure.message}") from error
    append_line(path, record.as_json())
    return record


def failure_of(error: Exception, for_memory: str) -> Failure:
    """What an error means for a record; with its traceback if nobody expected it.

    Args:
        for_memory: what to try where there is too little.
    """
    kind, message = type(error).__name__, " ".join(str(error).split())
    if "out of memory" in message or "can't allocate memory" in message or isinstance(error, MemoryError):
        kind, message = "out of memory", f"try {for_memory} ({message[:150]})"
    trace = None if isinstance(error, SdabenchError) else "".join(traceback.format_exception(error))
    return Failure(kind=kind, message=message, traceback=trace)
