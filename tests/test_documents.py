"""What the documents say is what the program does."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from sdabench import __version__
from sdabench.claims.accuracy import run_verdicts
from sdabench.records.record import Record, read_lines
from sdabench.registry import load_registry
from sdabench.report.accuracy import accuracy_sheet
from sdabench.report.render import to_markdown
from tests.helpers.paths import CHECKOUT
from tests.helpers.program import sdabench

README = (CHECKOUT / "README.md").read_text()


def test_the_readmes_table_is_printed_by_the_tool():
    found = re.search(r"<!-- table: sdabench (.*?) -->\n(.*?)<!-- end -->", README, re.DOTALL)
    assert found[2].strip() == sdabench(*found[1].split()).stdout.strip()


def test_the_readmes_other_table_is_of_the_stored_records():
    found = re.search(r"<!-- records: (.*?) -->\n(.*?)<!-- end -->", README, re.DOTALL)
    records = list(read_lines(CHECKOUT / found[1], Record))
    registry = load_registry()
    names = registry.suite("classification")
    tables = registry.suite_tables("classification")
    of_model = {name: [record for record in records if record.model == name] for name in names}
    sheet = accuracy_sheet(tables[0], run_verdicts(tables, names, of_model))
    assert found[2].strip() == to_markdown(sheet).strip()
    assert {record.recipe["name"] for record in records} == {"smoke"}
    assert {record.model for record in records} == set(names)


def test_the_stored_records_of_the_detectors_are_of_every_row_and_their_losses_fall():
    records = list(read_lines(CHECKOUT / "results/smoke-detection.jsonl", Record))
    for suite in ("detection", "segmentation"):
        of_suite = [record for record in records if record.task == suite]
        assert [record.model for record in of_suite] == load_registry().suite(suite)
        assert all(record.training.fits and record.training.frozen is False for record in of_suite)
    assert {record.recipe["name"] for record in records} == {"smoke"}
    assert len(records) == 33


def test_ci_runs_the_readmes_test_command():
    command = next(line for line in README.splitlines() if line.endswith(".venv/bin/tox"))
    assert command in (CHECKOUT / ".ci/run").read_text().splitlines()


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_the_files_that_a_document_names_are_there(document):
    text = (CHECKOUT / document).read_text()
    named = re.findall(r"\]\((?!http)([^)]+)\)|`(\w+/[\w/]+\.(?:py|jsonl))`", text)
    assert named
    assert [name for name in (link or path for link, path in named) if not (CHECKOUT / name).exists()] == []


def test_the_worked_example_of_a_new_block_works(tmp_path):
    """In a copy of the checkout: the two files are written, and the commands run."""
    for part in ("sdabench", "registry", "results", "cli.py"):
        source = CHECKOUT / part
        shutil.copytree(source, tmp_path / part) if source.is_dir() else shutil.copy(source, tmp_path)
    text = (CHECKOUT / "CONTRIBUTING.md").read_text()
    for name, content in re.findall(r"<!-- file: (.*?) -->\n```\w+\n(.*?)```", text, re.DOTALL):
        (tmp_path / name).write_text(content)
    for name, content in re.findall(r"<!-- append: (.*?) -->\n```\w+\n(.*?)```", text, re.DOTALL):
        with (tmp_path / name).open("a") as file:
            file.write(content)
    [commands] = re.findall(r"<!-- run -->\n```sh\n(.*?)```", text, re.DOTALL)
    said = {}
    named = ["sdabench show sda_senet152", "sdabench flops mask_rcnn_sda_varnet50"]
    for line in [*named, *commands.splitlines()]:
        _, *arguments = shlex.split(line)
        command = [sys.executable, str(tmp_path / "cli.py"), *arguments]
        environment = os.environ | {"SDABENCH_CACHE": str(tmp_path / "cache")}
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
        )
        assert result.returncode == 0, result.stderr
        said[" ".join(arguments[:2])] = result.stdout
    blocks = 3 * 256 + 4 * 512 + 6 * 1024 + 3 * 2048  # channels; each has a weight and a bias
    stages = [(256, 64, 3), (512, 64, 4), (1024, 64, 6), (2048, 128, 3)]
    depth_attention = 2 * 2048 + sum(c * d + 2 * d + n * (d * c + c) for c, d, n in stages)
    params = 25_557_032 + 2 * blocks
    assert "baseline: senet152" in said["show sda_senet152"]
    assert f" {params:,} " in said["flops varnet50"]
    assert f" {params + depth_attention:,} " in said["flops varnet50"]
    heads = 44_396_336 - 23_508_032  # of Mask R-CNN, ResNet-50: all, and its backbone (detection-counts.csv)
    trunk = params + depth_attention - 2048 * 1000 - 1000 - 2 * 2048  # without the classifier and its norm
    assert f" {trunk + heads:,} " in said["flops mask_rcnn_sda_varnet50"]
    assert f"depth attention adds {depth_attention:,} parameters" in said["show sda_varnet50"]
    assert "the network fits them" in said["train sda_varnet50"]
    assert re.search(
        rf"SDA-VarNet-50 .* {(params + depth_attention) / 1e6:.3f} ", said["table classification-attention"]
    )
    assert "@inproceedings{doe2026varnet," in said["cite sda_varnet50"]
    assert "@article{guo2024selective," in said["cite sda_varnet50"]


def test_the_citation_is_of_this_version():
    assert yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())["version"] == __version__
