"""Decide a study from what was measured: t-tests over seeds, Holm's correction, and the study's own rule."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from sdabench.claims.trainings import holm
from sdabench.errors import DataError
from sdabench.records.studies import MEASUREMENTS, Measurement, StudyFolder, default_output, shipped_study
from sdabench.registry.studies import FrozenStudy, Study, StudyTest, frozen, load_study, study_files
from sdabench.scoring.intervals import Interval

Outcome = Literal["supported", "contradicted", "open"]


@dataclass(frozen=True)
class TestResult:
    """One test of a study, with its value for each seed that was measured.

    ``p`` and its ``adjusted`` value are None before all seeds of the study are measured, and if the values
    are equal; the adjusted one and the ``verdict`` for secondary tests too.
    """

    __test__ = False  # pytest would collect a class of this name

    name: str
    test: StudyTest
    primary: bool
    values: Mapping[int, float]  # by seed
    interval: Interval | None
    p: float | None = None
    adjusted: float | None = None
    verdict: Outcome | None = None

    @property
    def estimate(self) -> float | None:
        return fmean(self.values.values()) if self.values else None

    @property
    def sd(self) -> float | None:
        """The standard deviation of the value between seeds."""
        return stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def is_undefined(self) -> bool:
        """Whether there is no t-test because all seeds have the same value."""
        return len(self.values) > 1 and are_equal(self.values.values())

    @property
    def excludes_relevant_effects(self) -> bool:
        """Whether the interval lies within the smallest effect that matters, on both sides of zero."""
        limit, found = self.test.smallest_effect, self.interval
        return found is not None and -limit < found.low and found.high < limit

    def as_json(self) -> dict[str, Any]:
        test, found = self.test, self.interval
        return {
            "test": self.name,
            **test.model_dump(mode="json"),
            "unit": test.unit,
            "primary": self.primary,
            "values": {str(seed): value for seed, value in self.values.items()},
            "estimate": self.estimate,
            "sd": self.sd,
            "low": None if found is None else found.low,
            "high": None if found is None else found.high,
            "p": self.p,
            "p_adjusted": self.adjusted,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class JudgedStudy:
    """A study with the results of its tests; it is decided once all its trainings are measured."""

    study: Study
    measurements: Sequence[Measurement]
    pilot: bool = False

    @cached_property
    def of_arm(self) -> dict[str, dict[int, Measurement]]:
        """The measurements by arm and seed."""
        found: dict[str, dict[int, Measurement]] = {name: {} for name in self.study.arms}
        for each in self.measurements:
            found[each.arm][each.seed] = each
        return found

    @property
    def seeds(self) -> list[int]:
        """The seeds of which anything is measured."""
        return sorted({each.seed for each in self.measurements})

    @property
    def missing(self) -> list[tuple[str, int]]:
        """Arms and seeds of the study that are not measured."""
        return [
            (arm, seed)
            for arm, measured in self.of_arm.items()
            for seed in self.study.seeds
            if seed not in measured
        ]

    @property
    def is_complete(self) -> bool:
        return not self.pilot and not self.missing

    @cached_property
    def results(self) -> list[TestResult]:
        """The primary tests, then the secondary ones.

        Before the study is complete, they have no p-values: the decision must not depend on when one looks.
        """
        alpha, study = self.study.alpha, self.study
        values = {name: self._values(test) for name, test in study.all_tests.items()}
        tested = {name: t_test(list(each.values()), 1 - alpha) for name, each in values.items()}
        complete = self.is_complete
        p_values = {name: found[1] for name, found in tested.items() if found and complete}
        adjusted = holm({name: p_values.get(name, 1.0) for name in study.tests}) if complete else {}
        return [
            TestResult(
                name=name,
                test=test,
                primary=name in study.tests,
                values=values[name],
                interval=(found := tested[name]) and found[0],
                p=p_values.get(name),
                adjusted=adjusted.get(name) if name in p_values else None,
                verdict=verdict_of(test, values[name].values(), adjusted[name], alpha)
                if name in adjusted
                else None,
            )
            for name, test in study.all_tests.items()
        ]

    def result(self, name: str) -> TestResult:
        return next(each for each in self.results if each.name == name)

    @property
    def primary(self) -> list[TestResult]:
        return [each for each in self.results if each.primary]

    @property
    def secondary(self) -> list[TestResult]:
        return [each for each in self.results if not each.primary]

    @property
    def decision(self) -> Outcome | None:
        """The decision by the rule of the study; None before it is complete, and for pilot seeds."""
        if not self.is_complete:
            return None
        quantifiers = {"all": all, "any": any}
        rule, verdicts = self.study.decision, [each.verdict for each in self.primary]
        supported = quantifiers[rule.supported](each == "supported" for each in verdicts)
        contradicted = quantifiers[rule.contradicted](each == "contradicted" for each in verdicts)
        if supported == contradicted:
            return "open"
        return "supported" if supported else "contradicted"

    def _values(self, test: StudyTest) -> dict[int, float]:
        """Return the value of a test for each seed of which all its arms are measured."""
        own, *others = [self.of_arm[arm] for arm in test.arms]
        values = {}
        for seed in sorted(own):
            each = [own[seed], *(other[seed] for other in others if seed in other)]
            if len(each) == len(test.arms) and all(test.key in one.values for one in each):
                first, *second = [one.values[test.key] for one in each]
                values[seed] = first - sum(second)
        return values

    def as_json(self) -> dict[str, Any]:
        return {
            "study": self.study.name,
            "hypothesis": self.study.hypothesis,
            "pilot": self.pilot,
            "seeds": self.seeds,
            "measured": len(self.measurements),
            "missing": [{"arm": arm, "seed": seed} for arm, seed in self.missing],
            "alpha": self.study.alpha,
            "correction": self.study.correction,
            "rule": self.study.decision.model_dump(),
            "decision": self.decision,
            "tests": [each.as_json() for each in self.results],
            "arms": {
                arm: {str(seed): dict(each.values) for seed, each in sorted(measured.items())}
                for arm, measured in self.of_arm.items()
            },
        }


def judged_in(folder: StudyFolder) -> JudgedStudy:
    """Return the study in a folder, with the results of its tests.

    Raises:
        UsageError: the folder holds no study.
        DataError: a file is damaged.
    """
    content = folder.read()
    study, measured = content.declaration.study, folder.measurements(content.sha256)
    if strange := {each.arm for each in measured} - study.arms.keys():
        raise DataError(
            f"{folder.path / MEASUREMENTS} was edited: the study has no arm '{min(strange)}'; restore it"
        )
    return JudgedStudy(study, measured, content.pilot)


def find_study(text: str) -> tuple[StudyFolder | None, FrozenStudy]:
    """Find a study by its folder, or by its name.

    A name stands for the results of this version, or else for the default output folder, or else for the
    declaration alone.

    Raises:
        UsageError: there is neither such a folder nor such a study.
    """
    folder = StudyFolder(Path(text))
    if folder.has_study:
        return folder, folder.read().declaration
    if text not in study_files() and folder.path.is_dir():
        folder.read()  # raises
    study = load_study(text)
    for there in (shipped_study(study.name), StudyFolder(default_output(study))):
        if there.has_study:
            return there, there.read().declaration
    return None, frozen(study)


def judged_or_empty(folder: StudyFolder | None, declaration: FrozenStudy) -> JudgedStudy:
    """Return what :func:`find_study` found with its results, or without any if nothing was measured."""
    return JudgedStudy(declaration.study, []) if folder is None else judged_in(folder)


def are_equal(values: Collection[float]) -> bool:
    """Return whether values differ by rounding errors at most."""
    return max(values) - min(values) <= 1e-9 * max(map(abs, values))


def t_test(values: Sequence[float], level: float) -> tuple[Interval, float] | None:
    """Test whether the mean of values is zero; return its interval and the two-sided p-value of the t-test.

    None for fewer than two values, and for equal ones, which give no estimate of the spread.
    """
    from scipy.stats import ttest_1samp  # slow to import

    if len(values) < 2 or are_equal(values):
        return None
    found = ttest_1samp(values, 0.0)
    low, high = found.confidence_interval(level)
    return Interval(fmean(values), float(low), float(high)), float(found.pvalue)


def verdict_of(test: StudyTest, values: Iterable[float], adjusted: float, alpha: float) -> Outcome:
    """Return the verdict of a primary test from its adjusted p-value and the sign of the mean."""
    if not adjusted < alpha:
        return "open"
    if test.direction == "either":
        return "supported"
    return "supported" if (fmean(values) > 0) == (test.direction == "positive") else "contradicted"
