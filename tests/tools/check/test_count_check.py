"""Changed counts are reported as regressions."""

import shutil

import pytest

from sdabench.paths import registry_dir
from sdabench.records.counts import stored_counts
from tests.helpers.gate import check, tiny_in
from tests.helpers.records import json_lines, write_json_lines

GROUPS = "{depths: [5, 6, 12, 5], depth_attention: true, options: {groups: 8}}"


pytestmark = pytest.mark.usefixtures("tiny")


def test_committed_golden_files_pass():
    output = check("counts", "outputs", "--models", "resnet50", "--models", "mask_rcnn_sda_resnet86", rc=0)
    assert "failed" in output


def test_changed_group_count_is_a_regression(tmp_path, monkeypatch):
    registry = tmp_path / "registry"
    shutil.copytree(registry_dir(), registry)
    path = registry / "models/resnet.yaml"
    entry = path.read_text()
    assert GROUPS in entry
    path.write_text(entry.replace(GROUPS, GROUPS.replace("8", "4")))
    monkeypatch.setenv("SDABENCH_REGISTRY", str(registry))
    output = check("counts", "outputs", "--models", "sda_resnet86", rc=3)
    stored = stored_counts()["sda_resnet86"]
    assert f"Regression  counts sda_resnet86: params {stored.params:,} -> " in output
    assert f"    macs {stored.macs:,} -> " in output
    assert "outputs sda_resnet86: logits[" in output
    assert "names or shapes of the weights changed too" in output


def test_one_extra_parameter_is_a_regression(golden_folder):
    path = golden_folder / "counts.jsonl"
    [count] = json_lines(path)
    write_json_lines(path, count | {"params": count["params"] + 1})
    output = check("counts", *tiny_in(golden_folder), rc=3)
    assert f"counts tiny: params {count['params'] + 1:,} -> {count['params']:,}\n" in output
