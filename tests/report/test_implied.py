"""The sheet of implied improvements: what is green, and what its notes say."""

import shutil

import pytest

from sdabench.claims.implied import implied_claims, judge_implied
from sdabench.paths import registry_dir
from sdabench.records.rescoring import StoredRecord
from sdabench.registry import load_registry
from sdabench.report.implied import implied_sheet
from tests.helpers.records import record, trained

CLAIMS = [
    claim
    for claim in implied_claims(load_registry())
    if claim.model == "sda_resnet86" and claim.column.key == "top1_pct"
]


def sheet_of(*records):
    return implied_sheet(judge_implied(CLAIMS, [StoredRecord(each, None) for each in records]))


def networks(values, recipe="paper", partner="resnet50"):
    return [
        trained(name, value - 3.56 * (name == partner), seed, used)
        for name, used in (("sda_resnet86", "paper"), (partner, recipe))
        for seed, value in enumerate(values)
    ]


GIVEN = [
    record(model=name, metrics={"top1_pct": value})
    for name, value in (("sda_resnet86", 78.7), ("resnet50", 75.1))
]


@pytest.mark.parametrize(
    ("records", "better", "verdict"),
    [
        (networks((78.6, 78.7, 78.8)), ("yes", "good"), ("supported", "good")),
        (networks((78.7,)), ("yes", ""), ("supported (one training)", "fair")),
        (GIVEN, ("yes", ""), ("supported (unknown recipe)", "fair")),
    ],
)
def test_only_enough_trainings_of_known_recipes_are_green(records, better, verdict):
    _, *_, shown, judged = sheet_of(*records).groups[0][1]
    assert (shown.text, shown.tone) == better
    assert (judged.text, judged.tone) == verdict


def test_control_whose_difference_the_paper_does_not_print_is_green_too():
    control = networks((78.6, 78.7, 78.8), partner="resnet86_g8")
    assert sheet_of(*control).groups[1][1][-2].tone == "good"


def test_note_names_the_spread_of_differences_and_its_source():
    [note] = [note for note in sheet_of(*networks((78.6, 78.7, 78.8))).notes if "deviation" in note]
    assert note.startswith(
        "Standard deviation of a difference of two trainings, from measured and published ones"
    )
    [note] = [note for note in sheet_of(*networks((78.7,))).notes if "deviation" in note]
    assert note.endswith("from published ones, in percentage points: top-1 0.21.")  # sqrt(2) * 0.15


def test_notes_ask_for_an_explanation_and_name_another_registry(monkeypatch, tmp_path):
    above = networks((78.7,))
    above[0] = trained("sda_resnet86", 79.6)
    [judged] = judge_implied(CLAIMS[:1], [StoredRecord(each, None) for each in above])
    assert str(judged.verdict) == "contradicted (larger, one training)"
    shutil.copytree(registry_dir(), tmp_path / "registry")
    monkeypatch.setenv("SDABENCH_REGISTRY", str(tmp_path / "registry"))
    notes = sheet_of(*above).notes
    assert "A result above the printed one does not confirm a claim: it needs an explanation." in notes
    assert "Recipes and printed numbers are those of SDABENCH_REGISTRY, not of this version." in notes


def test_different_trainings_say_how_they_differ():
    notes = sheet_of(*networks((78.7,), recipe="imagenet-120e")).notes
    assert "schedule.milestones ((30, 60, 90), (31, 61, 91))" in notes[-1]
