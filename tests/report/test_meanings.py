"""What verdicts mean."""

import pytest

from sdabench.claims.verdicts import Verdict
from sdabench.report.meanings import meaning


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Verdict("match", "total"), ["equal only if batch norms, ReLUs and pooling are counted too"]),
        (Verdict("better"), ["below the 95 % interval", "needs an explanation"]),
        (Verdict("worse", "one training, not significant"), ["above the", "3 trainings", "after Holm"]),
        (Verdict("open", "trainings scatter, two trainings"), ["scatter too much", "3 trainings"]),
        (Verdict("open"), ["includes both the printed one and zero"]),
        (Verdict("open", "two trainings"), ["includes both the printed one and zero", "3 trainings"]),
        (Verdict("contradicted", "larger, two trainings"), ["outside of", "is larger", "3 trainings"]),
        (Verdict("supported", "unknown recipe", limited=True), ["excludes zero", "unknown recipe"]),
    ],
)
def test_meaning_explains_a_verdict_and_its_details(verdict, words):
    text = meaning(verdict)
    positions = [text.index(each) for each in words]
    assert positions == sorted(positions)
