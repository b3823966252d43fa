"""The command line: one file a command, imported only when it is called."""

import os
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import IO, Any, NoReturn

import click

from sdabench import __version__
from sdabench.errors import ExitCode, ReportedByRankZeroError, SdabenchError
from sdabench.processes import STARTED_BY, is_main_process, launched_processes
from sdabench.training.signals import handle_signals, ignore_signals, was_interrupted

COMMANDS = {
    "list": "The networks, and the tables they stand in.",
    "show": "One page on a network.",
    "flops": "Count parameters and FLOPs.",
    "audit": "Hold every size and cost that the README claims against a count.",
    "table": "A README table beside our measurements.",
    "train": "Train one network by a recipe, and evaluate it.",
    "eval": "Evaluate one network.",
    "run": "Train and evaluate a suite, and print its table.",
    "rescore": "COCO's AP of a results file, whoever made it.",
    "compare": "Two records on the same images, or what the tables imply.",
    "check": "The regression gate: is everything computed as it was?",
    "weights": "Read, identify and convert anybody's checkpoints.",
    "data": "Generate datasets, and verify them.",
    "doctor": "Is this machine fit to measure?",
    "bench": "Time networks side by side: throughput, latency, memory.",
    "cite": "BibTeX of a network's papers.",
}
TOOLS = ("bench", "check", "doctor")  # commands with a folder of their own


class StoppedBySignalError(click.ClickException):
    """A command that a signal has ended; of several processes the first one says so, or who started them."""

    exit_code = ExitCode.STOPPED

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    def show(self, file: IO[Any] | None = None) -> None:
        if STARTED_BY not in os.environ and is_main_process():
            click.echo(f"Stopped by a signal. {self.message}".rstrip(), err=True)


class _LazyGroup(click.Group):
    """Knows its commands by name, so that --help and a wrong name import none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]  # ``list`` is a module here, once that command was imported

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        tool = f"tools.{name}.command" if name in TOOLS else f"cli.{name}"
        command = import_module(f"sdabench.{tool}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])


EPILOG = """\b
Examples:
  sdabench run --suite classification     train, evaluate and table all networks
  sdabench run --suite detection          the same for the detectors
  sdabench audit                          which numbers of the paper hold?
  sdabench flops 'sda_*'                  parameters and FLOPs
  sdabench table classification-attention --format latex
  sdabench run --suite classification --data imagenet=PATH
  sdabench compare --claims               what do the tables imply?
  sdabench check                          is everything computed as it was?

\b
Exit codes: 0 ok, 1 error, 2 usage, 3 outside tolerance, 4 data or weights
are not what they claim, 5 nothing was measured, 75 stopped by a signal (a run
continues by the same command).

Shell completion: eval "$(_SDABENCH_COMPLETE=bash_source sdabench)", or
zsh_source, or fish_source.
"""


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.version_option(__version__, prog_name="sdabench")
def cli() -> None:
    """Does the table of the SDA-xNet paper hold?

    Counts, evaluates and compares the networks of the README's four tables with its numbers.
    """


def main() -> NoReturn:
    """Runs the command line; every error that a user can cause is one line and an exit code."""
    handle_signals()
    if launched_processes() > 1:  # torch would advise each of them to leave out what is there for a reason
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Δ is no reason to fail
    try:
        status = cli.main(prog_name="sdabench", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.Exit as error:
        status = error.exit_code
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except SdabenchError as error:
        if not isinstance(error, ReportedByRankZeroError):
            click.echo(f"{_which_process()}Error: {error}", err=True)
        status = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        stopped = StoppedBySignalError()
        stopped.show()
        status = stopped.exit_code
    except (BrokenPipeError, SystemExit):  # the reader of a pipe has left, which click makes an exit
        _abandon_stdout()
        status = ExitCode.OK
    except OSError as error:
        click.echo(f"Error: {error}", err=True)
        _abandon_stdout()
        status = ExitCode.ERROR
    except Exception:
        if not was_interrupted():
            raise
        status = ExitCode.STOPPED  # a signal that a library turned into an error of its own
    ignore_signals()
    sys.exit(int(status or 0))


def _which_process() -> str:
    return "" if is_main_process() else f"[process {int(os.environ['RANK']) + 1}] "


def _abandon_stdout() -> None:
    """Lets the interpreter end without a second try to write what cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
