"""The regression gate: what was measured once, and is stored, is measured again and has to be the same.

A check knows one kind of measurement: what its baselines are, how to measure anew, and what may differ. The
command line and the reports know only what is here. Free of torch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from sdabench.errors import DataError, ExitCode, UsageError, WeightsError

B = TypeVar("B")
CheckName = Literal["counts", "outputs", "predictions", "metrics"]
Status = Literal["ok", "regression", "integrity", "missing", "new", "changed", "gone"]
PASSED = ("ok", "new", "changed", "gone")  # the last three are those of an update


@dataclass(frozen=True)
class Problem:
    """A difference between a baseline and what is measured now; ``details`` are lines of their own.

    ``integrity``: data or weights are not those of the baseline, so that nothing can be said of the code.
    """

    message: str
    details: tuple[str, ...] = ()
    status: Literal["regression", "integrity"] = "regression"


@dataclass(frozen=True)
class Finding:
    """What a check says of one network."""

    check: str
    subject: str
    status: Status
    message: str = ""
    details: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.status in PASSED

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"details": list(self.details)}


class Check(Protocol[B]):
    """One kind of measurement, with a baseline of type B for each network."""

    @property
    def name(self) -> str: ...

    @property
    def subjects(self) -> Sequence[str]:
        """The networks that have to have a baseline."""
        ...

    @property
    def path(self) -> Path:
        """The file, or folder, of the baselines."""
        ...

    def baselines(self) -> dict[str, B]:
        """Those that are stored, also of networks that are none any more."""
        ...

    def measure(self, subject: str) -> B: ...

    def problems(self, was: B, now: B) -> list[Problem]:
        """What of it is a regression; nothing if all is well."""
        ...

    def flaw(self, now: B) -> str | None:
        """Why this can be nobody's baseline, if it cannot."""
        ...

    def write(self, baselines: dict[str, B]) -> None:
        """Replaces what is stored, all of it."""
        ...


def chosen(check: Check[Any], patterns: Iterable[str]) -> list[str]:
    """The networks of a check that match any of the names or wildcards, in its order."""
    wanted = list(patterns)
    return [name for name in check.subjects if any(fnmatchcase(name, pattern) for pattern in wanted)]


def compared(
    check: Check[Any], subjects: Sequence[str], advance: Callable[[int], None] = lambda steps: None
) -> Iterator[Finding]:
    """Measures some networks, and says of each how that compares with its baseline.

    A network that cannot be measured is a regression; one without a baseline is not measured.

    Args:
        advance: is called after each.
    """
    stored = check.baselines()
    for subject in subjects:
        if subject in stored:
            _, problems = _measured(check, subject, stored[subject])
            yield from _findings(check, subject, problems)
        else:
            message = f"no baseline in {check.path}; if it belongs there, --update writes it"
            yield Finding(check.name, subject, "missing", message)
        advance(1)


def lost(check: Check[Any], patterns: Iterable[str], known: Iterable[str]) -> list[str]:
    """The stored networks that match and are none any more: removed, or renamed."""
    wanted, names = list(patterns), set(known)
    return [
        name
        for name in check.baselines()
        if name not in names and any(fnmatchcase(name, pattern) for pattern in wanted)
    ]


def lost_findings(check: Check[Any], names: Iterable[str]) -> Iterator[Finding]:
    for name in names:
        message = f"{check.path} has a baseline of it, but it is no network any more; was it renamed?"
        yield Finding(check.name, name, "missing", message)


def updated(
    check: Check[Any],
    subjects: Sequence[str],
    gone: Sequence[str] = (),
    advance: Callable[[int], None] = lambda steps: None,
) -> Iterator[Finding]:
    """Rewrites the baselines of some networks, and drops those that are ``gone``; all others stay.

    One that still holds stays too, to the byte. What cannot be measured, or is not finite, is a regression,
    and its baseline stays.
    """
    stored = check.baselines()
    merged = {name: baseline for name, baseline in stored.items() if name not in gone}
    findings: list[Finding] = []
    for subject in subjects:
        was = stored.get(subject)
        now, problems = _measured(check, subject, was)
        if now is None:
            findings += _findings(check, subject, problems)
        elif was is None:
            merged[subject] = now
            findings.append(Finding(check.name, subject, "new"))
        elif problems:
            merged[subject] = now
            findings += [
                Finding(check.name, subject, "changed", problem.message, problem.details)
                for problem in problems
            ]
        else:
            findings.append(Finding(check.name, subject, "ok"))
        advance(1)
    findings += [Finding(check.name, name, "gone") for name in gone]
    if merged != stored:
        check.write(merged)
    yield from findings


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """A regression before doubtful data or weights, and these before a missing baseline."""
    statuses = {finding.status for finding in findings}
    if not statuses:
        return ExitCode.NOTHING_MEASURED
    if "regression" in statuses:
        return ExitCode.REGRESSION
    if "integrity" in statuses:
        return ExitCode.INTEGRITY
    return ExitCode.NOTHING_MEASURED if "missing" in statuses else ExitCode.OK


def _measured(check: Check[B], subject: str, was: B | None) -> tuple[B | None, list[Problem]]:
    """What is measured now, None if it is no measurement; and what is wrong with it."""
    try:
        now = check.measure(subject)
    except UsageError:
        raise
    except (DataError, WeightsError) as error:
        return None, [Problem(str(error), status="integrity")]
    except Exception as error:  # whatever a network that is broken makes of it: the others are still measured
        words = " ".join(str(error).split())
        return None, [Problem(f"cannot be measured: {type(error).__name__}: {words}")]
    flaw = check.flaw(now)
    if flaw is not None:
        return None, [Problem(flaw)]
    return now, [] if was is None else check.problems(was, now)


def _findings(check: Check[Any], subject: str, problems: Sequence[Problem]) -> Iterator[Finding]:
    if not problems:
        yield Finding(check.name, subject, "ok")
    for problem in problems:
        yield Finding(check.name, subject, problem.status, problem.message, problem.details)
