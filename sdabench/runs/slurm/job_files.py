"""The files that a Slurm job leaves about its end."""

from pathlib import Path


def result_of(job_id: str, folder: Path) -> Path:
    """Submitit's pickle about a job that it has seen end; it is never opened here."""
    return folder / f"{job_id}_0_result.pkl"


def status_file(job_id: str, folder: Path) -> Path:
    """The file with the exit code of a job's command, written once it will not be requeued."""
    return folder / f"{job_id}_status"
