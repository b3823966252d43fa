"""The errors that a user can cause: one clear line each, and the exit code that goes with it."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells the shell."""

    OK = 0
    ERROR = 1
    USAGE = 2
    REGRESSION = 3  # outside tolerance: a claim differs
    INTEGRITY = 4  # data or weights are not what they claim
    NOTHING_MEASURED = 5
    STOPPED = 75  # by a signal; the same command continues


class SdabenchError(Exception):
    """An error that a user can cause; its message is one line that names the next step."""

    exit_code = ExitCode.ERROR


class UsageError(SdabenchError):
    """A name or an option that cannot be right."""

    exit_code = ExitCode.USAGE


class RegistryError(SdabenchError):
    """A file of the registry that cannot be read; the message names file, row and field."""


class OutputError(SdabenchError):
    """A file that cannot be written; the next network would meet the same."""


class ReportedByRankZeroError(SdabenchError):
    """An error of a job of several processes, whose first one tells it."""


class DataError(SdabenchError):
    """A dataset that is not what it claims to be."""

    exit_code = ExitCode.INTEGRITY


class WeightsError(SdabenchError):
    """A checkpoint that is damaged, unsafe or made for another network."""

    exit_code = ExitCode.INTEGRITY


class NothingMeasuredError(SdabenchError):
    """There was nothing to measure, which is never a pass."""

    exit_code = ExitCode.NOTHING_MEASURED
