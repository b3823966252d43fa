"""The power of the tests of a study, from the spread between the seeds of its pilot."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan
from typing import Any

from sdabench.claims.trainings import POWER
from sdabench.registry.studies import Study, StudyTest

MOST_SEEDS = 1000


@dataclass(frozen=True)
class TestPower:
    """The power of one primary test, at the first and strictest level of Holm's method.

    ``power`` is that for the smallest effect that matters. ``detectable`` is the effect, in the unit of the
    measure, that the study shows with a power of 80 %, and ``seeds`` the number of seeds that shows the
    smallest effect that matters with that power; None if 1000 do not.
    """

    __test__ = False  # pytest would collect a class of this name

    name: str
    test: StudyTest
    sd: float
    power: float
    detectable: float
    seeds: int | None

    def as_json(self) -> dict[str, Any]:
        return {
            "test": self.name,
            "unit": self.test.unit,
            "smallest_effect": self.test.smallest_effect,
            "sd": self.sd,
            "power": self.power,
            "detectable": self.detectable,
            "seeds": self.seeds,
        }


def study_power(study: Study) -> Iterator[TestPower]:
    """Compute the power of each primary test whose standard deviation the pilot gives."""
    alpha = study.alpha / len(study.tests)
    for name, test in study.tests.items():
        if study.pilot is None or (sd := study.pilot.sd.get(name)) is None:
            continue
        effect = test.smallest_effect / sd
        yield TestPower(
            name=name,
            test=test,
            sd=sd,
            power=t_test_power(effect, len(study.seeds), alpha),
            detectable=sd * detectable_effect(len(study.seeds), alpha),
            seeds=next(
                (n for n in range(2, MOST_SEEDS + 1) if t_test_power(effect, n, alpha) >= POWER), None
            ),
        )


def t_test_power(effect: float, values: int, alpha: float) -> float:
    """Compute the power of a two-sided t-test of ``values`` values at zero.

    ``effect`` is the expected value in standard deviations of a single value.
    """
    from scipy.special import nctdtr, stdtrit  # slow to import

    # nctdtr may give NaN for the lower tail if it is almost zero
    freedom, location = values - 1, abs(effect) * values**0.5
    critical = float(stdtrit(freedom, 1 - alpha / 2))
    lower = float(nctdtr(freedom, location, -critical))
    return float(1 - nctdtr(freedom, location, critical)) + (0.0 if isnan(lower) else lower)


def detectable_effect(values: int, alpha: float, power: float = POWER) -> float:
    """Compute the effect, in standard deviations, that a t-test of ``values`` values shows with a power."""
    from scipy.optimize import brentq  # slow to import

    largest = 1.0
    while t_test_power(largest, values, alpha) < power:
        largest *= 2
    return float(brentq(lambda effect: t_test_power(effect, values, alpha) - power, 0.0, largest))
