"""Run steps, scripts and the program in processes of their own."""

import json
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import torch

from gpu_steps.core import CannotRunError, Outcome, Setting, Step
from sdabench.cli import main
from sdabench.errors import ExitCode
from sdabench.files import atomic_write

FORK = multiprocessing.get_context("fork")  # imports nothing again
GRACE = 20.0  # seconds that a stopped step has to end
RESULT = "result.json"
log_of_step: Path | None = None  # where stdout and stderr of this process go
BENCHMARKS = Path(__file__).resolve().parents[1]
CHECKOUT = BENCHMARKS.parent


class RunningStep:
    """A step in a process of its own.

    An error on the device would fail all later computations of its process. The output is appended to
    ``log``. The process ends when this one closes the pipe or ends.
    """

    open_pipes: ClassVar[set[int]] = set()

    def __init__(self, step: Step, setting: Setting, log: Path) -> None:
        self.setting = setting
        self.result = setting.folder / RESULT
        self.result.unlink(missing_ok=True)
        self.started = time.monotonic()
        self.seconds = 0.0  # how long it took
        reading, self.pipe = os.pipe()
        self.open_pipes.add(self.pipe)
        self.process = FORK.Process(target=self._run, args=(step, log, reading))
        self.process.start()
        os.close(reading)
        with suppress(OSError):  # the child does the same; whichever comes first
            os.setpgid(self.process.pid, self.process.pid)

    def _run(self, step: Step, log: Path, reading: int) -> None:
        os.setpgid(0, 0)
        for pipe in self.open_pipes:  # also the pipes of other running steps
            os.close(pipe)
        threading.Thread(target=_end_with_pipe, args=(reading,), daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        redirect(log)
        print(f"== {step.name}", flush=True)
        if self.setting.threads:
            os.environ["OMP_NUM_THREADS"] = str(self.setting.threads)  # also for its child processes
            torch.set_num_threads(self.setting.threads)
        found = without_paths(json.dumps(attempt(step, self.setting)), self.setting)
        with atomic_write(self.result) as file:
            file.write(found.encode())

    def ended(self) -> bool:
        """Return whether the process has ended, or its time is over."""
        return not self.process.is_alive() or time.monotonic() - self.started > self.setting.seconds

    def finish(self) -> dict[str, Any]:
        """End the process, and return its state and result.

        The state is done, partial, cannot run, failed, or stopped after the seconds of the setting.
        """
        stopped = self.process.is_alive()
        end(self.process)
        self.seconds = time.monotonic() - self.started
        if self.pipe in self.open_pipes:
            self.open_pipes.remove(self.pipe)
            os.close(self.pipe)
        if self.result.is_file():
            found: dict[str, Any] = json.loads(self.result.read_text())
            return found
        if stopped:
            return {"state": "stopped", "reason": f"not finished after {self.seconds:.0f} s"}
        return {"state": "failed", "error": f"the process of the step {cause(self.process.exitcode)}"}


def attempt(step: Step, setting: Setting) -> dict[str, Any]:
    """Run a step in this process; return its state and what it measured."""
    try:
        outcome: Outcome = step.run(setting)
    except CannotRunError as reason:
        return {"state": "cannot run", "reason": str(reason)}
    except Exception as error:
        traceback.print_exc()
        words = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return {"state": "failed", "error": words[:2000]}
    return {"state": "done" if outcome.complete else "partial"} | outcome.as_json()


def without_paths(text: str, setting: Setting) -> str:
    """Replace the folders of this machine, which a record must not contain."""
    for path, name in (
        (setting.folder, "FOLDER"),
        (CHECKOUT, "CHECKOUT"),
        (Path(sys.prefix), "PYTHON"),
        (Path.home(), "HOME"),
    ):
        if len(path.parts) > 1:  # not /
            text = text.replace(str(path), name)
    return text


def cause(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with exit code {status}"


def end(process: Any) -> None:
    """End a process and its group: first by SIGTERM, so that it can save its state."""
    for number, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        if process.is_alive():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            process.join(seconds)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # what the step has left running


def _end_with_pipe(reading: int) -> None:
    os.read(reading, 1)
    os.killpg(0, signal.SIGKILL)


def redirect(log: Path) -> None:
    """Append stdout and stderr to a file, also those of libraries and child processes."""
    global log_of_step
    log_of_step = log
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush(), sys.stderr.flush()
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    null = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((null, target, target)):
        os.dup2(descriptor, number)
    # The parent's objects may write elsewhere.
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115


class Program:
    """A process of the program, forked from this one, which must not have used the device before."""

    def __init__(self, *arguments: object, stdout: Path | None = None) -> None:
        self.words = [*map(str, arguments)]
        print("sdabench", *self.words, flush=True)
        self.start_of_log = log_of_step.stat().st_size if log_of_step else 0

        def child() -> None:
            if stdout is not None:
                os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), 1)
            sys.argv = ["sdabench", *self.words]
            main()

        self.process = FORK.Process(target=child)
        self.process.start()

    def wait(self, seconds: float | None = None) -> int | None:
        """Return the exit code, negative for a signal; None if it still runs after the seconds."""
        self.process.join(seconds)
        status: int | None = self.process.exitcode
        return status

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def check(self, allowed: Sequence[int] = (ExitCode.OK,)) -> int:
        """Wait for the end; raise a RuntimeError for another exit code."""
        status = self.wait()
        if status not in allowed:
            raise RuntimeError(f"sdabench {' '.join(self.words[:2])} {cause(status)}{self._error()}")
        assert status is not None
        return status

    def _error(self) -> str:
        """Return the error that the program has printed."""
        text = log_of_step.read_bytes()[self.start_of_log :].decode(errors="replace") if log_of_step else ""
        lines = [line for line in text.splitlines() if line.startswith("Error: ")]
        return f": {lines[-1].removeprefix('Error: ')}" if lines else ""


def json_of_program(*arguments: object, folder: Path, allowed: Sequence[int] = (ExitCode.OK,)) -> Any:
    """Run the program with ``--json`` and return what it prints."""
    stdout = folder / "stdout.json"
    Program(*arguments, "--json", stdout=stdout).check(allowed)
    return json.loads(stdout.read_text())


def records_of_program(*arguments: object, folder: Path) -> list[dict[str, Any]]:
    """Run a training with the program; return its records, one for each task."""
    found = json_of_program(*arguments, folder=folder)
    return found if isinstance(found, list) else [found]


def run_script(name: str, output: Path, *arguments: object) -> dict[str, Any]:
    """Run another benchmark in this process; return its record, which exists even if its check failed."""
    print("benchmarks/" + name, *arguments, flush=True)
    before, status = sys.argv, 0
    sys.argv = [name, *map(str, arguments), "--output", str(output)]
    try:
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        sys.argv = before
    if not output.is_file():
        raise RuntimeError(f"benchmarks/{name} ended with exit code {status}; see its log")
    record: dict[str, Any] = json.loads(output.read_text())
    return record | {"exit_code": status}


def until(condition: Callable[[], object], process: Program, seconds: float) -> bool:
    """Poll a condition until it holds; return False if the process ends or the time passes first."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.wait(0.02) is not None or time.monotonic() > deadline:
            return bool(condition())
    return True
