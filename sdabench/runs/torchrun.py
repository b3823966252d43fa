"""Execute a job in several processes on this machine with torchrun, which runs in a process of its own.

torchrun starts the ranks, and kills them half a minute after a signal. A step and a checkpoint can take
longer, so a stop file requests the ranks to stop instead. Only the process of torchrun imports torch.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from sdabench.errors import ExitCode
from sdabench.processes import PYTHON, STARTED_BY, STOP_FILE, python_path
from sdabench.resources import cores
from sdabench.runs.launchers import worker_command
from sdabench.training.signals import ignore_signals, stop_requests

POLL_SECONDS = 0.1


def run_processes(spec_file: Path, world_size: int) -> int:
    """Execute a saved job in several processes; return the first exit code that is not 0, or 0.

    A second signal terminates all processes.
    """
    with stop_requests() as stop_requested, tempfile.TemporaryDirectory() as folder:
        stop_file = Path(folder) / "stop"
        options = ["--standalone", f"--nproc-per-node={world_size}", f"--log-dir={folder}", "--no-python"]
        command = [*PYTHON, "-m", "sdabench.runs.torchrun", *options, "--", *worker_command(spec_file)]
        share = {"OMP_NUM_THREADS": str(cores(shared_by=world_size))}
        share |= {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # torch advises against find_unused_parameters
        here = {STARTED_BY: str(os.getpid()), STOP_FILE: str(stop_file), "PYTHONPATH": python_path()}
        torchrun = subprocess.Popen(command, env=share | os.environ | here, process_group=0)
        try:
            while torchrun.poll() is None:
                time.sleep(POLL_SECONDS)
                if stop_requested() and not stop_file.exists():
                    stop_file.touch()
        except BaseException:
            torchrun.terminate()
            torchrun.wait()
            raise
        if torchrun.returncode < 0:
            _report_signal("torchrun", -torchrun.returncode)
            return ExitCode.ERROR
        return torchrun.returncode


def main() -> None:
    """Run torchrun in this process; exit with the code of the first rank that failed."""
    import logging

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    ignore_signals()  # the stop file is used instead; torchrun handles SIGTERM once it runs
    parent = int(os.environ[STARTED_BY])
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    os.environ[STARTED_BY] = str(os.getpid())
    logging.disable(logging.ERROR)  # the ranks report their errors themselves
    try:
        run(parse_args(sys.argv[1:]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            _report_signal(f"Process {rank + 1}", -failure.exitcode)
            sys.exit(ExitCode.ERROR)
        sys.exit(failure.exitcode)
    except SignalException:  # a second signal
        sys.exit(ExitCode.STOPPED)


def _report_signal(who: str, number: int) -> None:
    name = signal.Signals(number).name
    sys.stderr.write(f"{who} was killed by {name}; rerun the same command to resume.\n")


def _end_with_parent(parent: int) -> None:
    """End this process when its parent has ended; the ranks detect this and stop."""
    while os.getppid() == parent:
        time.sleep(0.5)
    shutil.rmtree(Path(os.environ[STOP_FILE]).parent, ignore_errors=True)  # the parent did not delete it
    os._exit(1)


if __name__ == "__main__":
    main()
