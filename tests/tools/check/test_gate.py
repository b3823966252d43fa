"""Missing, obsolete and updated golden files."""

import pytest

from sdabench.paths import results_dir
from sdabench.records.json_lines import read_lines
from sdabench.records.record import Record
from sdabench.registry import load_registry
from sdabench.tools.check.evaluation_jobs import NETWORKS, RECORDS
from sdabench.tools.check.output_check import GoldenOutputs
from tests.helpers.gate import check, tiny_in
from tests.helpers.records import json_lines, write_json_lines

pytestmark = pytest.mark.usefixtures("tiny")


def test_missing_golden_file_exits_5(golden_folder):
    (golden_folder / "outputs.jsonl").unlink()
    output = check("counts", "outputs", *tiny_in(golden_folder), rc=5)
    assert f"Missing  outputs tiny: not in {golden_folder / 'outputs.jsonl'}" in output


def test_regression_outranks_missing_golden_file(golden_folder):
    (golden_folder / "outputs.jsonl").unlink()
    [count] = json_lines(golden_folder / "counts.jsonl")
    write_json_lines(golden_folder / "counts.jsonl", count | {"macs": 1})
    check("counts", "outputs", *tiny_in(golden_folder), rc=3)


def test_renamed_network_is_reported_under_both_names(golden_folder, monkeypatch):
    models = load_registry().models
    monkeypatch.setitem(models, "little", models["tiny"])
    monkeypatch.delitem(models, "tiny")
    output = check("outputs", "--models", "tiny", "--models", "little", "--baseline", golden_folder, rc=5)
    assert "outputs little: not in " in output
    assert "outputs tiny: " in output
    assert "no network has this name" in output
    output = check("outputs", "--models", "tiny", "--baseline", golden_folder, "--update", rc=0)
    assert "Removed  outputs: tiny" in output
    assert list(read_lines(golden_folder / "outputs.jsonl", GoldenOutputs)) == []


def test_empty_selection_exits_5():
    output = check("predictions", "--models", "bam50", rc=5)
    assert "nothing was compared: predictions covers only resnet50, " in output
    check("counts", "predictions", "--models", "bam50", rc=5)
    assert "did you mean" in check("--models", "resnet5", rc=2)


def test_update_rewrites_only_what_differs(golden_folder):
    path = golden_folder / "counts.jsonl"
    check(
        "counts", "--models", "senet50", "--models", "resnet50", "--baseline", golden_folder, "--update", rc=0
    )
    before = {line["model"]: line for line in json_lines(path)}
    assert list(before) == [name for name in load_registry().models if name in before]
    modified = {name: line | {"macs": 1} for name, line in before.items()}
    write_json_lines(path, *modified.values())
    macs = before["tiny"]["macs"]
    output = check("counts", *tiny_in(golden_folder), "--update", rc=0)
    assert f"Changed  counts tiny: macs 1 -> {macs:,}\n" in output
    after = {line["model"]: line for line in json_lines(path)}
    assert after == modified | {"tiny": before["tiny"]}


def test_update_leaves_passing_golden_files_unchanged(golden_folder):
    path = golden_folder / "outputs.jsonl"
    [stored] = json_lines(path)
    stored["outputs"]["logits"]["values"][0] *= 1 + 1e-6
    write_json_lines(path, stored)
    before = path.read_bytes()
    check("outputs", *tiny_in(golden_folder), "--update", rc=0)
    assert path.read_bytes() == before


def test_update_refuses_installed_golden_files(monkeypatch):
    monkeypatch.setattr("sdabench.tools.check.golden_files.results_are_shipped", lambda: True)
    output = check("counts", "--models", "resnet50", "--update", rc=2)
    assert "choose a --baseline folder" in output


def test_every_network_has_golden_outputs():
    stored = [golden.model for golden in read_lines(results_dir() / "outputs.jsonl", GoldenOutputs)]
    known = [name for name in load_registry().models if name != "tiny"]
    assert stored == known, "run: sdabench check outputs --update"
    records = read_lines(results_dir() / RECORDS, Record)
    assert {record.model for record in records} == set(NETWORKS)
