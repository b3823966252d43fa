"""Execute one job: ``python -m sdabench.runs.worker SPEC.json``.

Children of a suite, ranks and Slurm jobs are such processes. An error is reported as one line on
stderr, a record, and an exit code.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from sdabench.errors import ExitCode, SdabenchError
from sdabench.offline import go_offline, is_offline
from sdabench.processes import launched_processes, local_rank, report_error
from sdabench.training.signals import end_with_parent, handle_signals, ignore_signals, was_interrupted


def run_job(path: Path) -> None:
    from sdabench.runs.execution import execute
    from sdabench.training.job_file import read_job_file

    content = read_job_file(path)
    job = content.job()
    if launched_processes() > 1 and job.machine.device == "cuda":
        job = replace(job, machine=job.machine.model_copy(update={"device": f"cuda:{local_rank()}"}))
    execute(job, content.output)


def main() -> NoReturn:
    handle_signals()
    end_with_parent()
    if is_offline():
        go_offline()
    status: int = ExitCode.OK
    try:
        run_job(Path(sys.argv[1]))
    except SdabenchError as error:
        report_error(error)
        status = error.exit_code
    except KeyboardInterrupt:
        status = ExitCode.STOPPED
    except Exception:
        if not was_interrupted():
            raise
        status = ExitCode.STOPPED  # a library raised another error after the signal
    try:
        ignore_signals()
    except KeyboardInterrupt:  # a second signal, at this moment
        ignore_signals()
        status = ExitCode.STOPPED
    sys.exit(status)


if __name__ == "__main__":
    main()
