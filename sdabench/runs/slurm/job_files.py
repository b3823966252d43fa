"""The files by which a Slurm job says what has become of it."""

from pathlib import Path


def result_of(job_id: str, folder: Path) -> Path:
    """Where submitit leaves a pickle about a job that it could see to its end; nobody here opens it."""
    return folder / f"{job_id}_0_result.pkl"


def status_file(job_id: str, folder: Path) -> Path:
    """Where a job leaves the exit code of its command, once it is not to be queued again."""
    return folder / f"{job_id}_status"
