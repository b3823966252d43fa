"""One job in several processes on this machine, by torchrun. Free of torch, but for the process of torchrun.

This process starts one of torchrun, which starts those that work. torchrun gives them half a minute to
end; a step and a checkpoint may take longer, so that they are asked to stop by a file instead.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from sdabench.errors import ExitCode
from sdabench.processes import PYTHON, STARTED_BY, STOP_FILE, python_path
from sdabench.training.jobs import cores
from sdabench.training.signals import ignore_signals, stop_requests

MOMENT = 0.1  # seconds between two looks at a process


def run_processes(arguments: Sequence[str], processes: int) -> int:
    """Runs ``sdabench`` with some arguments in so many processes, and waits.

    Returns:
        The exit code of the first that ended with another than 0.

    Raises:
        KeyboardInterrupt: a second signal, at which they were all ended.
    """
    with stop_requests() as stop_asked, tempfile.TemporaryDirectory() as folder:
        stop_file = Path(folder) / "stop"
        options = ["--standalone", f"--nproc-per-node={processes}", f"--log-dir={folder}"]
        options += ["--no-python", "--", *PYTHON]
        command = [*PYTHON, "-m", "sdabench.runs.torchrun", *options, "-m", "sdabench", *arguments]
        share = {"OMP_NUM_THREADS": str(cores(shared_by=processes))}
        here = {STARTED_BY: str(os.getpid()), STOP_FILE: str(stop_file), "PYTHONPATH": python_path()}
        torchrun = subprocess.Popen(command, env=share | os.environ | here, process_group=0)
        try:
            while torchrun.poll() is None:
                time.sleep(MOMENT)
                if stop_asked() and not stop_file.exists():
                    stop_file.touch()
        except BaseException:
            torchrun.terminate()
            torchrun.wait()
            raise
        if torchrun.returncode < 0:
            _say_ended("torchrun", -torchrun.returncode)
            return ExitCode.ERROR
        return torchrun.returncode


def main() -> None:
    """The process of torchrun: ends with the exit code of the first process that failed."""
    import logging

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    ignore_signals()  # the file is what asks to stop; torchrun itself listens to SIGTERM once it runs
    parent = int(os.environ[STARTED_BY])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ[STARTED_BY] = str(os.getpid())
    logging.disable(logging.ERROR)  # its processes say themselves what was wrong
    try:
        run(parse_args(sys.argv[1:]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            _say_ended(f"Process {rank + 1}", -failure.exitcode)
            sys.exit(ExitCode.ERROR)
        sys.exit(failure.exitcode)
    except SignalException:  # a second signal
        sys.exit(ExitCode.STOPPED)


def _say_ended(who: str, number: int) -> None:
    sys.stderr.write(f"{who} was ended by {signal.Signals(number).name}; the same command continues.\n")


def _end_with(parent: int) -> None:
    """Ends this process with the one that started it; those that work see that, and stop."""
    while os.getppid() == parent:
        time.sleep(0.5)
    shutil.rmtree(Path(os.environ[STOP_FILE]).parent, ignore_errors=True)  # which it has left behind
    os._exit(1)


if __name__ == "__main__":
    main()
