"""Run a study with the real program, and show it."""

import json
from pathlib import Path

import pytest

from sdabench.records.store import records_of
from sdabench.records.studies import StudyFolder
from sdabench.registry.studies import frozen, load_study
from sdabench.runs.estimate import _Rates
from sdabench.tools.study.options import parse_seeds
from tests.helpers.program import assert_error, sdabench
from tests.helpers.studies import measured, write_study_plugin


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    folder = write_study_plugin(tmp_path / "plugin")
    monkeypatch.setenv("SDABENCH_PLUGINS", str(folder))
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_pilot_trains_measures_and_resumes_without_a_decision(plugin, tmp_path):
    first = sdabench("study", "run", "tiny", "--seeds", "100", "--jobs", 1)
    assert first.returncode == 0, first.stderr
    assert "No decision: pilot seeds (100)" in first.stdout
    output = tmp_path / "runs" / "tiny-pilot"
    assert not list(output.glob("training/*/*.safetensors"))
    again = sdabench("study", "run", "tiny", "--seeds", "100", "--jobs", 1, "--json")
    assert "2 of 2 are completed." in again.stderr
    assert "[1/2]" not in again.stderr
    found = json.loads(again.stdout)
    assert (found["pilot"], found["decision"], found["seeds"]) == (True, None, [100])
    assert [test["p"] for test in found["tests"]] == [None] * 3
    assert {arm: list(values) for arm, values in found["arms"].items()} == {
        "learned": ["100"],
        "uniform": ["100"],
    }

    exported = sdabench("study", "export", output, tmp_path / "copy")
    assert "2 measured trainings" in exported.stdout
    text = (tmp_path / "copy" / "records.jsonl").read_text()
    assert str(tmp_path) not in text + (tmp_path / "copy" / "measurements.jsonl").read_text()
    copied = json.loads(sdabench("study", "show", tmp_path / "copy", "--json").stdout)
    assert copied["arms"] == found["arms"]
    assert [record.spec_digest for record in records_of(tmp_path / "copy")] == [
        each.spec_digest for each in StudyFolder(output).measurements(copied["sha256"])
    ]

    path = plugin / "studies" / "tiny.yaml"
    path.write_text(path.read_text().replace("smallest_effect: 1.0", "smallest_effect: 2.0"))
    changed = sdabench("study", "run", "tiny", "--seeds", "100")
    assert_error(changed, 1, "holds another version of the study tiny", "use another --output")
    assert "The registry has another version now" in sdabench("study", "show", output).stdout


def test_show_prints_the_decision_of_measured_trainings(plugin, tmp_path):
    study = frozen(load_study("tiny"))
    folder = StudyFolder(tmp_path / "runs" / "tiny")
    folder.freeze(study, pilot=False)
    for seed, noise in enumerate([0.0, 0.3, -0.2, 0.1]):
        values = {"top1_pct/-1": 90 + noise, "top1_pct/-2": 70.0, "octave_top1_pct": 80 + noise / 2}
        of_weights = {"swap_drop_pct": 1 + noise, "depth_slope": 0.1 + noise / 100}
        folder.append([measured("learned", seed, study.sha256, **values, **of_weights)])
        if seed < 3:
            folder.append([measured("uniform", seed, study.sha256, octave_top1_pct=75.0)])
    early = sdabench("study", "show", "tiny")
    assert early.returncode == 0, early.stderr
    assert "No decision yet: 7 of 8 trainings measured." in early.stdout
    folder.append([measured("uniform", 3, study.sha256, octave_top1_pct=75.0)])
    table = sdabench("study", "show", folder.path, "--format", "csv")
    assert table.stdout.splitlines()[0].startswith("study,test,primary,measure,")
    result = sdabench("study", "show", folder.path)
    assert "Decision: supported. Hypothesis: Depth attention helps." in result.stdout
    assert "90.05 ± 0.21" in result.stdout
    assert f"Digest {study.sha256[:8]}, in {folder.path}. The file in the registry is still the same." in (
        result.stdout
    )
    assert "Decision: supported." in sdabench("study", "show").stdout


def test_show_without_measurements_exits_5(plugin):
    result = sdabench("study", "show", "tiny")
    assert result.returncode == 5
    assert "Rule: All three, or it is not supported." in result.stdout
    assert "nothing of the study tiny was measured; 'sdabench study run tiny'" in result.stderr
    assert_error(sdabench("study", "show", "tinny"), 2, "unknown study 'tinny'; did you mean tiny?")


def test_detectors_are_measured_by_their_records(plugin, tmp_path):
    """After the loss of the measurements, the records give them again, without weights or a training."""
    options = ("study", "run", "shapes", "--seeds", "100", "--jobs", 1)
    first = sdabench(*options)
    assert first.returncode == 0, first.stderr
    assert "Measuring" not in first.stderr
    output = tmp_path / "runs" / "shapes-pilot"
    assert not list(output.glob("training/*/*.safetensors"))
    records = {record.spec_digest: record for record in records_of(output)}
    (output / "measurements.jsonl").unlink()
    shown = sdabench("study", "show", output)
    assert shown.returncode == 5
    assert "2 trainings of the study shapes ended, and none is measured yet; 'sdabench study" in shown.stderr
    again = sdabench(*options, "--json")
    assert "2 of 2 are completed." in again.stderr
    sha256 = json.loads(again.stdout)["sha256"]
    found = {each.arm: each for each in StudyFolder(output).measurements(sha256)}
    assert found.keys() == {"learned", "uniform"}
    for each in found.values():
        record = records[each.spec_digest]
        assert (each.values, each.images, each.seed) == (record.metrics, 4, 100)
        assert {"ap_pct", "ap_s_pct", "ap_m_pct"} <= each.values.keys()
    assert "2 measured trainings" in sdabench("study", "export", output, tmp_path / "copy").stdout
    assert "No decision: pilot seeds (100)" in sdabench("study", "show", tmp_path / "copy").stdout


def test_show_prints_the_decision_on_detectors(plugin, tmp_path):
    study = frozen(load_study("shapes"))
    folder = StudyFolder(tmp_path / "runs" / "shapes")
    folder.freeze(study, pilot=False)
    declared = sdabench("study", "show", "shapes").stdout
    assert "Data: 2 generated categories, 4 training and 4 validation images, 128 pixels." in declared
    for seed, noise in enumerate([0.0, 0.3, -0.2, 0.1]):
        values = {"ap_pct": 30.0, "ap_s_pct": 20 + noise, "ap_m_pct": 40.0}
        folder.append([measured("learned", seed, study.sha256, **values)])
        folder.append([measured("uniform", seed, study.sha256, **values | {"ap_s_pct": 22.0})])
    result = sdabench("study", "show", "shapes")
    assert "Decision: contradicted. Hypothesis: Depth attention helps detectors." in result.stdout
    [learned] = [line for line in result.stdout.splitlines() if "faster_rcnn_sda_small " in line]
    assert learned.split()[3:] == ["20.05", "±", "0.21", "40.00", "±", "0.00", "-", "30.00", "±", "0.00"]


@pytest.mark.parametrize(
    ("folder", "pilot", "command"),
    [
        ("runs/tiny", False, "sdabench study run tiny"),
        ("elsewhere", False, "sdabench study run tiny --output elsewhere"),
        ("runs/tiny-pilot", True, "sdabench study run tiny --seeds SEEDS"),
    ],
)
def test_a_folder_without_measurements_names_the_command_that_fills_it(plugin, folder, pilot, command):
    StudyFolder(Path(folder)).freeze(frozen(load_study("tiny")), pilot)
    result = sdabench("study", "show", folder)
    assert result.returncode == 5
    assert f"; '{command}' trains and measures its networks" in result.stderr


@pytest.mark.parametrize(
    ("interrupted", "words"),
    [
        (
            "sdabench.analysis.study_runs.StudySuite.unmeasured",
            "Results so far are in runs/tiny; rerun the same command to resume.",
        ),
        (
            "sdabench.tools.study.view.show_results",
            "The results are in runs/tiny; 'sdabench study show runs/tiny' prints them.",
        ),
    ],
)
def test_a_signal_after_the_trainings_says_what_is_next(plugin, monkeypatch, interrupted, words):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sdabench.analysis.study_runs.StudySuite.run", lambda *_: [])
    monkeypatch.setattr(interrupted, interrupt)
    result = sdabench("study", "run", "tiny", "--jobs", 1)
    assert (result.returncode, result.stdout) == (75, "")
    assert result.stderr.splitlines()[-1] == f"Stopped by a signal. {words}"


def test_plan_prints_cost_and_power(plugin, monkeypatch):
    """Each network is timed: its training on 2 x 16 images, and 7 x 8 images of evaluation and measurement."""
    rates = {"sda_small": _Rates(0.1, 0.01, 1.0), "sda_small_uniform": _Rates(0.2, 0.01, 1.0)}
    monkeypatch.setattr("sdabench.runs.estimate._measure", lambda job, model, *_: rates[model])
    result = sdabench("study", "plan", "tiny", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert [(job["model"], job["seed"]) for job in found["cost"]["jobs"][:3]] == [
        ("sda_small", 0), ("sda_small_uniform", 0), ("sda_small", 1),
    ]  # fmt: skip
    assert [job["seconds"] for job in found["cost"]["jobs"][:2]] == pytest.approx([4.76, 7.96])
    [power] = found["power"]
    assert (power["test"], power["sd"]) == ("accuracy", 0.5)


def test_seeds_are_lists_and_ranges():
    assert parse_seeds("0,1, 4") == (0, 1, 4)
    assert parse_seeds("100-102") == (100, 101, 102)
    for wrong in ("a", "3-1", "1-", "", "0-5000"):
        result = sdabench("study", "run", "tiny", "--seeds", wrong)
        assert result.returncode == 2
        assert "is not a list of seeds such as 0,1,2 or 100-102" in result.stderr
