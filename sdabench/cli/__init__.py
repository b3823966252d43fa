"""The command line: one file per command, imported only when that command is called."""

import errno
import os
import sys
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import IO, Any, NoReturn

import click

from sdabench import __version__
from sdabench.cli.help import Formatter, Group, one_line
from sdabench.errors import ExitCode, SdabenchError
from sdabench.processes import STARTED_BY, is_main_process, launched_processes, report_error
from sdabench.terminal import echo, error_line
from sdabench.training.device_errors import describe_device_error
from sdabench.training.signals import end_with_parent, handle_signals, ignore_signals, was_interrupted

SECTIONS = {
    "Compare with the paper": {
        "audit": "Check every parameter and FLOP count that tables print",
        "explain": "Search how a printed number of parameters or FLOPs was counted",
        "table": "Print a table of a paper beside the measured values",
        "plot": "Draw a figure of a paper's numbers and of runs",
        "compare": "Compare runs, or test what the tables of the paper imply",
        "report": "Write one HTML page with all results",
    },
    "Measure": {
        "run": "Train and evaluate the networks of a suite",
        "train": "Train one network and evaluate it",
        "eval": "Evaluate one network",
        "rescore": "Score a results file or stored predictions, without a model",
        "flops": "Count parameters and FLOPs",
        "inspect": "Inspect depth weights and receptive fields of networks",
        "ablate": "Vary the depth attention of a network, one choice at a time",
        "bench": "Time models side by side: throughput, latency, peak memory",
        "study": "Run studies, whose tests and decision rule are fixed beforehand",
    },
    "Networks": {
        "list": "List the networks and the tables that contain them",
        "show": "Show one page about a network, or what a run measured",
        "cite": "Print the BibTeX entries of the papers behind networks",
        "card": "Write a model card for Hugging Face",
        "plugin": "Start a plugin with networks and tables of your own",
    },
    "Data and weights": {
        "data": "Generate, verify, sort, split and pack datasets",
        "weights": "Inspect and convert third-party checkpoints",
    },
    "Machine and regression gate": {
        "doctor": "Diagnose this machine: can it reproduce the paper's numbers?",
        "check": "Compare counts, outputs and predictions with golden files",
    },
}
COMMANDS = {name: text for section in SECTIONS.values() for name, text in section.items()}
TOOLS = (
    "ablate",
    "bench",
    "card",
    "check",
    "doctor",
    "inspect",
    "plot",
    "plugin",
    "report",
    "study",
)  # commands with a folder of their own


class StoppedBySignalError(click.ClickException):
    """A signal stopped the command. Child processes and ranks other than 0 do not report it."""

    exit_code = ExitCode.STOPPED

    def __init__(self, message: str = "Rerun the same command to start again.") -> None:
        super().__init__(message)

    def show(self, file: IO[Any] | None = None) -> None:
        if STARTED_BY not in os.environ and is_main_process():
            with suppress(OSError):  # the terminal is closed
                echo(f"Stopped by a signal. {self.message}".rstrip(), err=True)


class _LazyGroup(Group):
    """A group that imports a command only when it is called, not for --help or a wrong name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]  # not list(COMMANDS): ``list`` names a module here once that command is imported

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        tool = f"tools.{name}.command" if name in TOOLS else f"cli.{name}"
        command = import_module(f"sdabench.{tool}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        assert isinstance(formatter, Formatter)
        formatter.write_sections({heading: [*commands.items()] for heading, commands in SECTIONS.items()})


EPILOG = """\b
Examples:
  sdabench audit                          which numbers of the paper hold?
  sdabench run --suite classification     train and evaluate all networks
  sdabench run --suite classification --data imagenet=PATH
  sdabench table classification-attention --format latex
  sdabench flops 'sda_*'                  parameters and FLOPs
  sdabench compare --claims               what do the tables of the paper imply?

\b
Exit codes:
  0   success
  1   error
  2   wrong usage
  3   a result is outside its tolerance
  4   data or weights are not what they claim to be
  5   nothing was measured
  75  stopped by a signal; rerun the same command to resume

\b
Shell completion (or zsh_source, fish_source):
  eval "$(_SDABENCH_COMPLETE=bash_source sdabench)"
"""


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
    takes_plugins=True,
)
@click.version_option(__version__, prog_name="sdabench", help="Show the version and exit")
def cli() -> None:
    """Reproduce and check the results of the SDA-xNet paper.

    sdabench counts, trains and evaluates the networks of the paper's four tables, and compares what it
    measures with the numbers that the paper prints. 'sdabench COMMAND -h' describes a command.
    """


def main() -> NoReturn:
    """Run the command line. Report every error that a user can cause as one line and an exit code."""
    handle_signals()
    end_with_parent()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="ascii")  # a terminal that cannot show Δ must not end the run
    try:
        if launched_processes() > 1:  # else torch prints the same warnings from every rank
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        status = cli.main(prog_name="sdabench", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.Exit as error:
        status = error.exit_code
    except StoppedBySignalError as error:
        error.show()
        status = error.exit_code
    except click.ClickException as error:
        echo(error_line(f"Error: {one_line(error)}"), err=True)
        status = error.exit_code
    except SdabenchError as error:
        report_error(error)
        status = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        stopped = StoppedBySignalError()
        stopped.show()
        status = stopped.exit_code
    except (BrokenPipeError, SystemExit):  # the reader closed the pipe; click turns that into an exit
        _abandon_stdout()
        status = ExitCode.OK
    except OSError as error:
        words = _describe_os_error(error)
        _abandon_stdout()
        echo(error_line(f"Error: {words}"), err=True)
        status = ExitCode.ERROR
    except Exception as error:
        of_device = describe_device_error(error)
        if was_interrupted():
            status = ExitCode.STOPPED  # a library raised another error after the signal
        elif of_device is not None:
            echo(error_line(f"Error: {of_device}"), err=True)
            status = ExitCode.ERROR
        else:
            raise
    ignore_signals()
    sys.exit(int(status or 0))


def _describe_os_error(error: OSError) -> str:
    """Describe an error of the system; writing to stdout, which has no file name, fails on a full disk."""
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF):
        return f"cannot write to stdout: {error.strerror}; redirect it elsewhere"
    return str(error)


def _abandon_stdout() -> None:
    """Redirect stdout to the null device, so that the interpreter does not flush it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
