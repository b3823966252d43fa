"""A network of a user's own file in the commands, from training to what it measured."""

import json

import pytest

from sdabench.records.json_lines import read_lines
from sdabench.records.record import Record
from tests.helpers.program import assert_error, sdabench

FACTORY = """
from torch import nn

def tiny(width=4, num_classes=1000):
    return nn.Sequential(
        nn.Conv2d(3, width, 5, 4, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes),
    )
"""


@pytest.fixture
def name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(FACTORY)
    return "python:./net.py:tiny?width=6"


def test_an_own_network_is_trained_evaluated_and_shown(name, textures, tmp_path):
    data = ["--data", f"synthetic={textures}", "--workers", 0]
    training = sdabench(
        "train", name, *data, "--recipe", "smoke", "--resolution", 32, "--epochs", 2, "--output", "own"
    )
    assert training.returncode in (0, 3), training.stderr
    evaluation = sdabench("eval", name, *data, "--weights", "own", "--output", "again", "--json")
    assert evaluation.returncode == 0, evaluation.stderr
    (trained,), (evaluated,) = (
        read_lines(tmp_path / each / "records.jsonl", Record) for each in ("own", "again")
    )
    assert evaluated.metrics == trained.metrics
    assert json.loads(evaluation.stdout)["network_source"]["tensors"] == 8  # 1 convolution, 5 of the norm, 2

    (tmp_path / "net.py").write_text("raise SystemExit('a reader of results runs no code')\n")
    shown = sdabench("show", "again")
    assert shown.returncode == 0, shown.stderr
    assert "net.py:tiny?width=6" in shown.stdout
    assert_error(sdabench("eval", name, *data, "--weights", "own", "--output", "third"), 4)
