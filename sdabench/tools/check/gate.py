"""Measure the values of golden files again, and compare them. Each check is one kind of measurement."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from sdabench.errors import DataError, ExitCode, NothingMeasuredError, UsageError, WeightsError
from sdabench.progress import progress
from sdabench.registry import load_registry

G = TypeVar("G")
CheckName = Literal["counts", "outputs", "predictions", "metrics"]
Status = Literal["ok", "regression", "integrity", "missing", "new", "changed", "gone"]
PASSED = ("ok", "new", "changed", "gone")  # the last three are those of an update


class NotFiniteError(Exception):
    """A measurement with NaN or infinity, which cannot become a golden value; names the output."""


@dataclass(frozen=True)
class Problem:
    """A difference from the golden file. ``details`` are further lines.

    The status ``integrity`` means other data or weights, so that the code cannot be compared.
    """

    message: str
    details: tuple[str, ...] = ()
    status: Literal["regression", "integrity"] = "regression"


@dataclass(frozen=True)
class Finding:
    """The result of a check for one network."""

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


Findings = dict[str, list[Finding]]  # by check


@dataclass(frozen=True)
class Check(Generic[G]):
    """One kind of measurement, with a golden value of type G for each network.

    Args:
        networks: those that need a golden value.
        path: the file of the golden value of a network.
        golden: reads the golden values, including those of networks that no longer exist.
        problems: compares a golden and a measured value; an empty list if the golden value holds.
        write: replaces all golden values.
    """

    name: CheckName
    networks: Sequence[str]
    path: Callable[[str], Path]
    golden: Callable[[], dict[str, G]]
    measure: Callable[[str], G]
    problems: Callable[[G, G], list[Problem]]
    write: Callable[[dict[str, G]], None]


def run_checks(
    checks: Sequence[Check[Any]],
    patterns: Sequence[str],
    *,
    update: bool = False,
    cover_all: bool = False,
    find_obsolete: bool = True,
) -> Findings:
    """Run checks with progress bars, or update their golden files.

    Args:
        patterns: names or wildcards of networks.
        cover_all: require that each check covers a selected network, instead of skipping checks that do not.
        find_obsolete: report golden values of networks that no longer exist.

    Raises:
        UsageError: a pattern matches nothing.
        NothingMeasuredError: a check covers no selected network.
    """
    registry = load_registry()
    selected = {check.name: _matching(check.networks, patterns) for check in checks}
    obsolete: dict[str, list[str]] = {check.name: [] for check in checks}
    for check in checks if find_obsolete else ():
        stored = _matching(check.golden(), patterns)
        obsolete[check.name] = [name for name in stored if name not in registry.models]
    known = [*registry.models, *(name for names in obsolete.values() for name in names)]
    known += [name for check in checks for name in check.networks if name not in known]
    registry.select(patterns, among=known, where="the networks with golden files")  # an error without match
    covering = [check for check in checks if selected[check.name] or obsolete[check.name]]
    skipped = [check for check in checks if check not in covering]
    if not covering or (cover_all and skipped):
        *some, more = *skipped[0].networks[:5], len(skipped[0].networks) - 5
        covered = f"{', '.join(some)}{f' and {more} more' if more > 0 else ''}"
        raise NothingMeasuredError(
            f"nothing was compared: {skipped[0].name} covers only {covered}; "
            "'sdabench check -h' describes the checks"
        )
    findings: Findings = {}
    for check in covering:
        names, removed = selected[check.name], obsolete[check.name]
        with progress(check.name, len(names), "networks") as advance:
            findings[check.name] = list(_run(check, names, removed, update, advance))
    return findings


def _run(
    check: Check[Any],
    networks: Sequence[str],
    obsolete: Sequence[str],
    update: bool,
    advance: Callable[[int], None],
) -> Iterator[Finding]:
    """Compare networks with their golden values, or rewrite those that do not hold and drop obsolete ones.

    A network that cannot be measured, or whose measurement is not finite, is a regression and keeps its
    golden value. A network without a golden value is measured only in an update.
    """
    stored = check.golden()
    golden = {name: value for name, value in stored.items() if name not in obsolete}
    for network in networks:
        if network not in stored and not update:
            yield Finding(check.name, network, "missing", f"not in {check.path(network)}; --update adds it")
            advance(1)
            continue
        measured, problems = _measure(check, network, stored.get(network))
        written = update and measured is not None and (network not in stored or bool(problems))
        if written:
            golden[network] = measured
        if not problems:
            yield Finding(check.name, network, "new" if written else "ok")
        for problem in problems:
            status = "changed" if written else problem.status
            yield Finding(check.name, network, status, problem.message, problem.details)
        advance(1)
    for name in obsolete:
        message = (
            f"in {check.path(name)}, but no network has this name; if it was renamed, --update removes it"
        )
        yield Finding(check.name, name, "gone") if update else Finding(check.name, name, "missing", message)
    if update and golden != stored:
        check.write(golden)


def exit_code(findings: Findings) -> ExitCode:
    """Return the exit code: 3 for a regression, else 4 for other data, else 5 for missing golden values."""
    statuses = {finding.status for found in findings.values() for finding in found}
    if not statuses:
        return ExitCode.NOTHING_MEASURED
    if "regression" in statuses:
        return ExitCode.REGRESSION
    if "integrity" in statuses:
        return ExitCode.INTEGRITY
    return ExitCode.NOTHING_MEASURED if "missing" in statuses else ExitCode.OK


def _matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _measure(check: Check[G], network: str, golden: G | None) -> tuple[G | None, list[Problem]]:
    """Return the measurement, or None if it failed, and the problems."""
    try:
        measured = check.measure(network)
    except UsageError:
        raise
    except (DataError, WeightsError) as error:
        return None, [Problem(str(error), status="integrity")]
    except NotFiniteError as error:
        return None, [Problem(str(error))]
    except Exception as error:  # a broken network raises anything; the others are still measured
        words = " ".join(str(error).split())
        return None, [Problem(f"measurement failed: {type(error).__name__}: {words}")]
    return measured, [] if golden is None else check.problems(golden, measured)
