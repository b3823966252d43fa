"""Frames of the tests and values of a study."""

import pandas as pd
import pytest

import sdabench
from sdabench.registry.studies import frozen, load_study
from tests.helpers.studies import write_measured, write_study_plugin


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_PLUGINS", str(write_study_plugin(tmp_path / "plugin")))
    return write_measured(tmp_path / "run", frozen(load_study("tiny"))).path


def test_tests_have_one_row_each(folder):
    frame = sdabench.study_tests(folder).set_index("test")
    assert list(frame.index) == ["accuracy", "swap", "slope"]
    accuracy = frame.loc["accuracy"]
    assert (accuracy["arm"], accuracy["against"], accuracy["seeds"]) == ("learned", "uniform", 4)
    assert accuracy["estimate"] == pytest.approx(5.025)
    assert accuracy["low"] < 5.025 < accuracy["high"]
    assert pd.isna(frame.loc["swap", "against"])
    assert set(frame["decision"]) == {"supported"}


def test_values_have_one_row_for_each_training_octave_and_stage(folder):
    frame = sdabench.study_values(folder)
    small = frame.query("measure == 'top1_pct' and octave == -2 and seed == 1")
    assert small["value"].tolist() == [70.0]
    assert frame.query("stage == 'layer1'")["value"].tolist() == [0.2] * 4
    assert frame.query("arm == 'uniform'")["measure"].unique().tolist() == ["octave_top1_pct"]
