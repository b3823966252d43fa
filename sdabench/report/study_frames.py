"""The frames of studies: their tests, and the values of each training."""

from collections.abc import Iterable

import pandas as pd

from sdabench.claims.studies import JudgedStudy, find_study, judged_or_empty
from sdabench.report.columns import STUDY_TESTS, STUDY_VALUES
from sdabench.report.frames import make


def study_tests(study: str) -> pd.DataFrame:
    """List the tests of a study with their results.

    Args:
        study: its name, for the results of this version or else in ``runs/``, or an output folder.

    Returns:
        One row for each test: see :data:`sdabench.report.columns.STUDY_TESTS`.

    Raises:
        UsageError: there is no such study.
    """
    return tests_frame(judged_or_empty(*find_study(str(study))))


def study_values(study: str) -> pd.DataFrame:
    """List what was measured of each training of a study.

    Args:
        study: as for :func:`study_tests`.

    Returns:
        One row for each training and value: see :data:`sdabench.report.columns.STUDY_VALUES`.

    Raises:
        UsageError: there is no such study.
    """
    return make(_values(judged_or_empty(*find_study(str(study)))), STUDY_VALUES)


def tests_frame(judged: JudgedStudy) -> pd.DataFrame:
    """Make the frame of :func:`study_tests`."""
    shared = {"study": judged.study.name, "pilot": judged.pilot, "decision": judged.decision}
    rows = (shared | each.as_json() | {"seeds": len(each.values)} for each in judged.results)
    return make(rows, STUDY_TESTS)


def _values(judged: JudgedStudy) -> Iterable[dict[str, object]]:
    for arm, measured in judged.of_arm.items():
        for seed, each in sorted(measured.items()):
            for name, value in each.values.items():
                measure, _, place = name.partition("/")
                yield {
                    "study": judged.study.name,
                    "arm": arm,
                    "model": each.model,
                    "seed": seed,
                    "pilot": judged.pilot,
                    "measure": measure,
                    "octave": int(place) if place.startswith("-") else None,
                    "stage": place if place.startswith("layer") else None,
                    "value": value,
                    "spec_digest": each.spec_digest,
                }
