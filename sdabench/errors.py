"""Errors that a user can cause, each with one line of text and an exit code."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the program."""

    OK = 0
    ERROR = 1
    USAGE = 2
    REGRESSION = 3  # outside tolerance
    INTEGRITY = 4  # data or weights are not what they claim
    NOTHING_MEASURED = 5
    STOPPED = 75  # by a signal; rerun the same command to resume


class SdabenchError(Exception):
    """An error that a user can cause; its message is one line and names the next step."""

    exit_code: int = ExitCode.ERROR


class UsageError(SdabenchError):
    """An unknown name or an invalid option."""

    exit_code = ExitCode.USAGE


class RegistryError(SdabenchError):
    """An invalid file of the registry; the message names file, row and field."""


class RefusedError(SdabenchError):
    """The output folder belongs to other work; nothing was started, so no record is written."""


class OutputError(SdabenchError):
    """A file cannot be written, or the cache not read; every other model would fail too."""


class ReportedByRankZeroError(SdabenchError):
    """An error of a distributed job, which rank 0 reports for the other ranks and their parent process."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"rank 0 reports it, with exit code {exit_code}")
        self.exit_code = exit_code


class DataError(SdabenchError):
    """A dataset that is not what it claims to be."""

    exit_code = ExitCode.INTEGRITY


class WeightsError(SdabenchError):
    """A checkpoint that is damaged, unsafe or made for another model."""

    exit_code = ExitCode.INTEGRITY


class NothingMeasuredError(SdabenchError):
    """Nothing was measured; this never counts as success."""

    exit_code = ExitCode.NOTHING_MEASURED
