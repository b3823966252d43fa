"""The GPU benchmark runs its steps on a CPU with tiny networks, skips what is measured, and survives failures."""

import json
import os
import re
import subprocess
import sys
import time

import pytest

from sdabench.errors import UsageError
from tests.helpers.paths import CHECKOUT
from tests.helpers.processes import wait_for

BENCHMARKS = CHECKOUT / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="a source distribution has no benchmarks")


def run_benchmark(*arguments):
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *map(str, arguments)]
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def listed_steps():
    """Read the names of the steps from the source, which is quicker than to import it."""
    code = (BENCHMARKS / "gpu_steps/__init__.py").read_text()
    names = re.findall(r'\bStep\(f?"([^"]+)"', code)
    return [name.replace("{name}", model) for name in names for model in ("sda_resnet86", "sda_pyconv86")]


def test_each_step_measures_something_or_states_why_it_cannot(tmp_path):
    folder = tmp_path / "gpu"
    # Two steps are left out that differ from others only in an argument.
    names = {*listed_steps()} - {"attention-sda_pyconv86", "evaluation-bf16"}
    arguments = ("--device", "cpu", "--tiny", "-o", folder, "--steps", *sorted(names))
    result = run_benchmark(*arguments)
    logs = "".join(path.read_text() for path in (folder / "logs").glob("*.txt"))
    assert result.returncode == 0, result.stdout + result.stderr + logs
    text = (folder / "record.json").read_text()
    assert str(tmp_path) not in text
    assert str(CHECKOUT) not in text
    entries = {entry["step"]: entry for entry in json.loads(text)["results"]}
    states = {name: entry["state"] for name, entry in entries.items()}
    if states.pop("evaluation") == "cannot run":
        assert entries["evaluation"]["reason"] == "timm is not installed"
    assert states.keys() == names - {"evaluation"}
    on_cuda = {"compiled-sda_resnet86", "compiled-sda_pyconv86", "graphs", "depth-scale"}
    assert states == {name: "cannot run" if name in on_cuda else "done" for name in states}
    assert all(entries[name]["reason"] for name in on_cuda)
    assert all(entry["measures"] for entry in entries.values() if entry["state"] == "done")
    values = {
        (name, each["name"]): each["value"] for name in entries for each in entries[name].get("measures", [])
    }
    assert values["logits", "networks compared"] == 2
    assert values["logits", "worst element, fp32"] == 0  # the CPU beside itself
    assert 1e-4 < values["logits", "worst element, bf16"] < 1
    assert values["resume", "bf16: weights are bit-identical"] is True
    assert "| card" in (folder / "table.md").read_text()

    again = run_benchmark(*arguments)
    assert (again.returncode, (folder / "record.json").read_text()) == (0, text)


@pytest.fixture
def steps(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu_steps import core, processes, record

    return core, processes, record


def test_a_failing_a_killed_and_a_slow_step_are_reported(steps, tmp_path):
    core, processes, _ = steps

    def fail(setting):
        raise ValueError(f"no {setting.folder}/images")

    def refuse(setting):
        raise core.CannotRunError("no timm")

    def states(run, seconds=60.0):
        setting = core.Setting("cpu", True, tmp_path, seconds)
        running = processes.RunningStep(core.Step("one", "A step", 1, run), setting, tmp_path / "log.txt")
        wait_for(running.ended)
        return running.finish()

    assert states(fail) == {"state": "failed", "error": "ValueError: no FOLDER/images"}
    assert states(refuse) == {"state": "cannot run", "reason": "no timm"}
    assert states(lambda setting: os.kill(os.getpid(), 9))["error"].endswith("was ended by SIGKILL")
    assert states(lambda setting: time.sleep(60), 0.3)["state"] == "stopped"
    found = states(lambda setting: core.Outcome([core.Measure("speed", 1.4, target=1.5)]))
    assert (found["state"], found["measures"][0]["value"]) == ("done", 1.4)
    assert "Traceback" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(
    ("value", "target", "at_most", "met"),
    [
        (1.5, 1.5, False, True), (1.4, 1.5, False, False), (0.6, 0.6, True, True), (0.7, 0.6, True, False),
        (True, True, False, True), (False, True, False, False), (None, 1.5, False, False), (1.0, None, False, None),
    ],
)  # fmt: skip
def test_measures_meet_their_targets(steps, value, target, at_most, met):
    assert steps[0].Measure("speed", value, "", target, at_most).met is met


def test_a_batch_that_exhausts_the_memory_is_halved(steps):
    from gpu_steps.speed import with_smaller_batches

    def work(batch, enough):
        if batch > enough:
            raise RuntimeError(f"CUDA out of memory for {batch} images")
        return batch

    assert with_smaller_batches(64, lambda batch: work(batch, 20)) == 16
    with pytest.raises(RuntimeError, match="for 4 images"):
        with_smaller_batches(64, lambda batch: work(batch, 3))
    with pytest.raises(ValueError, match="another"):
        with_smaller_batches(64, lambda batch: int("another"))


def test_results_depend_on_card_torch_and_sources(steps, tmp_path):
    core, _, record = steps
    card = record.Identity("NVIDIA H100 80GB HBM3", "2.11.0", "aa", False)

    def entry(identity, state, seconds=60.0):
        identity = vars(identity)
        measures = [{"name": "speed", "value": 2.0, "target": 1.5}]
        return {"step": "one", "identity": identity, "revision": None, "state": state, "seconds": seconds,
                "measures": measures}  # fmt: skip

    results = record.Results(tmp_path / "record.json")
    results.append(entry(record.Identity("cpu", card.torch, "aa", True), "done"))
    with pytest.raises(UsageError, match="no results of a GPU"):
        results.export(tmp_path / "results", [])
    results.append(entry(card, "done"))
    results.append(entry(card, "stopped", 120.0))
    other = record.Identity(card.card, card.torch, "bb", False)
    read = record.Results(tmp_path / "record.json")
    assert read.latest("one", card)["state"] == "done"
    assert read.latest("one", other) is None
    assert read.latest("one", other, any_commit=True)["state"] == "done"
    assert read.latest("one", record.Identity("another", card.torch, "aa", False), any_commit=True) is None
    step = core.Step("one", "A step", 5, lambda setting: core.Outcome([]))
    assert read.minutes(step, other) == 1  # as measured on this card
    folder = read.export(tmp_path / "results", [step])
    assert folder.name == "nvidia-h100-80gb-hbm3"
    assert "| one" in (folder / "table.md").read_text()
    assert "≥ 1.5" in (folder / "table.md").read_text()
