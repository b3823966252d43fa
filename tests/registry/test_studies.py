"""Load studies, and freeze them by their digests."""

import copy

import pytest
from pydantic import ValidationError

from sdabench.errors import RegistryError, UsageError
from sdabench.registry.studies import FrozenStudy, frozen, load_study, registry_state, study_files
from tests.helpers.studies import DECLARATION, DETECTION, declared, write_study_plugin

RECIPE = {"name": "quick", "title": "Quick", "epochs": 2}
NETWORKS = {"learned": "a" * 64, "uniform": "b" * 64}


def changed(*place, value):
    """Return the declaration with another value at a place."""
    content = copy.deepcopy(DECLARATION)
    inner = content
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return declared(**content)


def sha256(study, recipe=RECIPE, networks=NETWORKS):
    return FrozenStudy(study=study, recipe=recipe, networks=networks).sha256


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("title",), "Other words"),
        (("source",), "elsewhere"),
        (("arms", "learned", "title"), "Learned attention"),
        (("pilot", "text"), "Three seeds of a pilot."),
    ],
)
def test_words_do_not_change_the_digest(place, value):
    assert sha256(changed(*place, value=value)) == sha256(declared())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("hypothesis",), "Depth attention harms."),
        (("arms", "learned", "model"), "sda_other"),
        (("data", "octaves"), [-1, -3]),
        (("data", "seed"), 1),
        (("recipe",), "slow"),
        (("seeds",), [0, 1, 2]),
        (("permutations",), 8),
        (("tests", "slope", "direction"), "negative"),
        (("tests", "slope", "smallest_effect"), 0.02),
        (("alpha",), 0.01),
        (("decision", "supported"), "any"),
        (("pilot", "seeds"), [100, 101]),
    ],
)
def test_everything_else_changes_the_digest(place, value):
    assert sha256(changed(*place, value=value)) != sha256(declared())


def test_the_digest_of_a_study_stays_the_same():
    """A new field must not change the digests of studies without it, or they could not be resumed."""
    assert sha256(declared()) == "bb356200b3320c68043cad47db2780b93381696a0d7e62b857cc6941feae1795"


def test_the_digest_covers_recipe_and_networks_but_not_their_titles():
    own = sha256(declared())
    assert sha256(declared(), recipe=RECIPE | {"epochs": 3}) != own
    assert sha256(declared(), networks=NETWORKS | {"uniform": "c" * 64}) != own
    assert sha256(declared(), recipe=RECIPE | {"title": "Quickly", "source": "here"}) == own


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("tests", "slope", "arm"), "lerned", "unknown arm 'lerned'; did you mean learned"),
        (("tests", "slope", "against"), "learned", "against is the arm itself"),
        (("tests", "slope", "octave"), -1, "octave is for measure: top1_pct"),
        (("tests", "accuracy", "measure"), "top1_pct", "octave is for measure: top1_pct"),
        (
            ("tests", "accuracy", "measure"),
            "ap_pct",
            "accuracy: ap_pct is not a measure of classifiers; choose",
        ),
        (
            ("data",),
            DETECTION["data"],
            "octave_top1_pct is not a measure of detectors; choose from ap_pct, ap50",
        ),
        (("seeds",), [0, 1, 1], "a seed is given twice"),
        (("pilot", "seeds"), [2, 100], "seed 2 is also a seed of the study"),
        (("pilot", "sd"), {"accurcy": 1.0}, "unknown test 'accurcy'"),
        (("arms", "uniform", "model"), "sda_small", "two arms have the same model"),
        (("data", "octaves"), [-1, -1], "octaves: a value is given twice"),
        (("data", "val_per_class"), 1, "there are 2 octaves, so use that many"),
    ],
)
def test_contradictions_are_refused(place, value, message):
    with pytest.raises(ValidationError, match=message):
        changed(*place, value=value)


def test_studies_of_plugins_are_found_and_checked(tmp_path, monkeypatch):
    plugin = write_study_plugin(tmp_path / "plugin")
    monkeypatch.setenv("SDABENCH_PLUGINS", str(plugin))
    assert study_files()["tiny"] == plugin / "studies" / "tiny.yaml"
    assert load_study("tiny") == declared()
    assert frozen(load_study("tiny")).recipe["epochs"] == 2
    with pytest.raises(UsageError, match="unknown study 'tinny'; did you mean tiny"):
        load_study("tinny")
    control = DECLARATION["arms"]["uniform"] | {"model": "small"}
    test = DECLARATION["tests"]["swap"] | {"arm": "control"}
    file = write_study_plugin(
        tmp_path / "other",
        arms=DECLARATION["arms"] | {"control": control},
        tests=DECLARATION["tests"] | {"swap": test},
    )
    path = file / "studies" / "tiny.yaml"
    with pytest.raises(RegistryError, match="swap: swap_drop_pct needs depth attention, 'control' has none"):
        load_study(str(path))
    assert frozen(load_study("shapes")).recipe["short_side"] == 64
    known, file = frozen(load_study("tiny")), plugin / "studies" / "tiny.yaml"
    file.write_text(file.read_text().replace("recipe: quick", "recipe: quik"))
    with pytest.raises(RegistryError, match="tiny.yaml: recipe: unknown recipe 'quik'; did you mean quick"):
        load_study("tiny")
    assert "The file in the registry is invalid now" in registry_state(known)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "faster_rcnn_sda_small\n",
            "sda_small\n",
            "arms.learned: 'sda_small' is a classifier, the data are for",
        ),
        ("val: 4", "vall: 4", "data: unknown field 'vall'; did you mean val"),
        (
            "val: 4",
            "octaves: [-1]",
            "data: unknown field 'octaves'; choose from categories, train, val, image",
        ),
        ("recipe: quick", "recipe: smok", "recipe: unknown recipe 'smok'; did you mean smoke"),
        (
            "recipe: quick",
            "recipe: demo",
            "recipe: the recipe 'demo' is for classification; choose from coco-1x",
        ),
        ("ap_s_pct", "ap_small", "tests: small: measure: Input should be"),
    ],
)
def test_mistakes_in_a_study_of_detectors_are_one_line(tmp_path, monkeypatch, old, new, words):
    plugin = write_study_plugin(tmp_path / "plugin")
    monkeypatch.setenv("SDABENCH_PLUGINS", str(plugin))
    file = plugin / "studies" / "shapes.yaml"
    assert file.read_text().count(old) == 1
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(RegistryError) as caught:
        load_study("shapes")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
