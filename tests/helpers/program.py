"""Run the real command-line program and check its errors."""

import multiprocessing
import os
import subprocess
import sys
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from sdabench.cli import main


def sdabench(
    *arguments: object, interpreter: tuple[str, ...] = (), **options: object
) -> subprocess.CompletedProcess[str]:
    """Run the program in its own process.

    Without options for the interpreter or the process, it is forked from this process: monkeypatches hold,
    and torch is not imported again.
    """
    command = [sys.executable, *interpreter, "-m", "sdabench", *map(str, arguments)]
    if not interpreter and not options:
        return _run_forked(command)
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def _run_forked(command: list[str]) -> subprocess.CompletedProcess[str]:
    def child() -> None:
        for stream, file in enumerate((os.devnull, out.name, err.name)):
            os.dup2(os.open(file, os.O_RDONLY if stream == 0 else os.O_WRONLY), stream)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        sys.argv = ["sdabench", *command[3:]]
        warnings.resetwarnings()
        status: object = 1
        try:
            main()
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(int(str(status)))

    with NamedTemporaryFile() as out, NamedTemporaryFile() as err:
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        output = [Path(file.name).read_text() for file in (out, err)]
    assert process.exitcode is not None
    return subprocess.CompletedProcess(command, process.exitcode, *output)


def assert_error(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Check the exit code, an empty stdout, and one error line on stderr that contains the words."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, result.stderr
    for word in words:
        assert word in errors[0]
