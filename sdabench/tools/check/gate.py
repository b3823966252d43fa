"""The gate: measure again what golden files hold, and compare. A check knows one kind of measurement."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from sdabench.errors import DataError, ExitCode, NothingMeasuredError, UsageError, WeightsError
from sdabench.progress import progress
from sdabench.registry import load_registry

G = TypeVar("G")
CheckName = Literal["counts", "outputs", "predictions", "metrics"]
Status = Literal["ok", "regression", "integrity", "missing", "new", "changed", "gone"]
PASSED = ("ok", "new", "changed", "gone")  # the last three: written by an update


@dataclass(frozen=True)
class Problem:
    """A difference from the golden file. ``details`` are further lines.

    ``integrity``: data or weights differ, so that the code cannot be judged.
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


class Check(Protocol[G]):
    """One kind of measurement, with a golden value of type G for each network."""

    @property
    def name(self) -> str: ...

    @property
    def networks(self) -> Sequence[str]:
        """The networks that need a golden value."""
        ...

    @property
    def path(self) -> Path:
        """The golden file."""
        ...

    def golden(self) -> dict[str, G]:
        """Read the golden values, including those of networks that no longer exist."""
        ...

    def measure(self, network: str) -> G: ...

    def problems(self, golden: G, measured: G) -> list[Problem]:
        """Compare a measurement with its golden value; an empty list if it holds."""
        ...

    def flaw(self, measured: G) -> str | None:
        """Return why a measurement cannot become a golden value, or None."""
        ...

    def write(self, golden: dict[str, G]) -> None:
        """Replace all golden values."""
        ...


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
        cover_all: require that each check covers a selected network; otherwise such checks are skipped.
        find_obsolete: report golden values of networks that no longer exist.

    Raises:
        UsageError: a pattern matches nothing.
        NothingMeasuredError: a check covers no selected network.
    """
    registry = load_registry()
    selected = {check.name: _matching(check.networks, patterns) for check in checks}
    obsolete: dict[str, list[str]] = {check.name: [] for check in checks}
    if find_obsolete:
        for check in checks:
            stored = _matching(check.golden(), patterns)
            obsolete[check.name] = [name for name in stored if name not in registry.models]
    known = [*registry.models, *(name for names in obsolete.values() for name in names)]
    registry.select(patterns, among=known)  # a pattern that matches nothing is an error
    covering = [check for check in checks if selected[check.name] or obsolete[check.name]]
    skipped = [check for check in checks if check not in covering]
    if not covering or (cover_all and skipped):
        raise NothingMeasuredError(
            f"nothing was compared: {skipped[0].name} covers only {', '.join(skipped[0].networks)}; "
            "'sdabench check -h' describes the checks"
        )
    findings: Findings = {}
    for check in covering:
        names, removed = selected[check.name], obsolete[check.name]
        with progress(check.name, len(names), "networks") as advance:
            run = update_golden if update else compare
            findings[check.name] = list(run(check, names, removed, advance))
    return findings


def compare(
    check: Check[Any],
    networks: Sequence[str],
    obsolete: Sequence[str] = (),
    advance: Callable[[int], None] = lambda networks: None,
) -> Iterator[Finding]:
    """Measure networks and compare them with their golden values.

    A network that cannot be measured is a regression. A network without a golden value is not measured.

    Args:
        obsolete: names of golden values whose networks no longer exist.
        advance: called after each network.
    """
    golden = check.golden()
    for network in networks:
        if network in golden:
            _, problems = _measure(check, network, golden[network])
            yield from _findings(check, network, problems)
        else:
            yield Finding(check.name, network, "missing", f"not in {check.path}; --update adds it")
        advance(1)
    for name in obsolete:
        message = f"in {check.path}, but no network has this name; if it was renamed, --update removes it"
        yield Finding(check.name, name, "missing", message)


def update_golden(
    check: Check[Any],
    networks: Sequence[str],
    obsolete: Sequence[str] = (),
    advance: Callable[[int], None] = lambda networks: None,
) -> Iterator[Finding]:
    """Rewrite the golden values of networks that differ, and remove obsolete ones.

    A golden value that holds is not rewritten. A network that cannot be measured, or whose measurement is not
    finite, is a regression and keeps its golden value.
    """
    stored = check.golden()
    golden = {name: value for name, value in stored.items() if name not in obsolete}
    findings: list[Finding] = []
    for network in networks:
        measured, problems = _measure(check, network, stored.get(network))
        if measured is None:
            findings += _findings(check, network, problems)
        elif network not in stored:
            golden[network] = measured
            findings.append(Finding(check.name, network, "new"))
        elif problems:
            golden[network] = measured
            findings += [
                Finding(check.name, network, "changed", problem.message, problem.details)
                for problem in problems
            ]
        else:
            findings.append(Finding(check.name, network, "ok"))
        advance(1)
    findings += [Finding(check.name, name, "gone") for name in obsolete]
    if golden != stored:
        check.write(golden)
    yield from findings


def exit_code(findings: Findings) -> ExitCode:
    """Return the exit code: regressions before other data or weights, and these before missing files."""
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
    except Exception as error:  # a broken network raises anything; the others are still measured
        words = " ".join(str(error).split())
        return None, [Problem(f"measurement failed: {type(error).__name__}: {words}")]
    flaw = check.flaw(measured)
    if flaw is not None:
        return None, [Problem(flaw)]
    return measured, [] if golden is None else check.problems(golden, measured)


def _findings(check: Check[Any], network: str, problems: Sequence[Problem]) -> Iterator[Finding]:
    if not problems:
        yield Finding(check.name, network, "ok")
    for problem in problems:
        yield Finding(check.name, network, problem.status, problem.message, problem.details)
