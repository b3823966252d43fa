"""Several processes by the command line: ``--nproc``, which starts torchrun, and torchrun itself."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.processes import stopped, wait_for
from tests.helpers.program import sdabench
from tests.helpers.records import json_records
from tests.helpers.training import RECIPE_FILE, broken


@pytest.fixture
def options(textures, tmp_path):
    """Of a training of thirty epochs with two steps each."""
    recipe = tmp_path / "quick.yaml"
    recipe.write_text(RECIPE_FILE.replace("epochs: 2", "epochs: 30").replace("fit_below: 100.0", ""))
    return ["--data", f"synthetic={textures}", "--recipe", str(recipe), "--workers", "1"]


def steps(output):
    return sum(len(path.read_text().splitlines()) for path in output.glob("training/*/metrics.jsonl"))


def test_two_processes_are_stopped_go_on_and_speak_with_one_voice(options, tmp_path):
    output = tmp_path / "out"
    command = ["train", "resnet50", *options, "--output", str(output), "--nproc", "2"]
    said = stopped(in_two_processes(options, output), signal.SIGUSR2)
    assert said.endswith("the same command resumes.\n")
    assert "Warning" not in said
    assert len(list(output.rglob("checkpoints/step-*.json"))) == 1
    result = sdabench(*command, "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("resuming after epoch") == 1
    training = json.loads(result.stdout)["training"]
    assert (training["processes"], training["parts"], training["resumed"]) == (2, 2, 1)
    assert training["steps"] == 60
    assert len(json_records(output)) == 1


def in_two_processes(options, output):
    """Begun, and in the middle of its training."""
    command = ["train", "resnet50", *options, "--output", str(output), "--nproc", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sdabench", *command],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: steps(output) > 1)
    return process


def test_a_second_signal_ends_all_without_a_traceback(options, tmp_path):
    process = in_two_processes(options, tmp_path / "out")
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(1.1)
    stopped(process, signal.SIGINT)


def test_that_torchrun_was_killed_is_said(options, tmp_path):
    process = in_two_processes(options, tmp_path / "out")
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True)  # fmt: skip
    os.kill(int(listing.stdout.split()[0]), signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "torchrun was killed by SIGKILL; the same command resumes." in said


def test_the_exit_code_is_that_of_the_processes(options, textures, tmp_path):
    folder, path = broken(textures, tmp_path)
    options = [option.replace(str(textures), str(folder)) for option in options]
    result = sdabench("train", "resnet50", *options, "--output", tmp_path / "out", "--nproc", 2)
    assert result.returncode == 4
    assert result.stderr.count("Error:") == 1
    assert path.name in result.stderr


@pytest.mark.parametrize(
    ("extra", "words"),
    [(["--device", "cuda"], "needs a GPU per process"), (["--device", "cuda:0"], "use --device cuda, not")],
)  # fmt: skip
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_more_processes_than_gpus_are_refused(options, tmp_path, extra, words):
    result = sdabench("train", "resnet50", *options, "--output", tmp_path, "--nproc", 2, *extra)
    assert result.returncode == 2
    assert pytest.importorskip("re").search(words, result.stderr)


@pytest.mark.slow
def test_torchrun_begins_anew_from_the_last_checkpoint_when_a_process_dies(options, tmp_path):
    """Elastic restart: the second of two processes is killed once there is a checkpoint."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def torchrun(output):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        command += ["--max-restarts=1", "-m", "sdabench", "train", "resnet50", *options]
        command += ["--output", str(output), "--checkpoint-every", "0"]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    undisturbed = torchrun(whole)
    undisturbed.communicate()
    assert undisturbed.returncode == 0
    disturbed = torchrun(killed)
    wait_for(lambda: list(killed.rglob("checkpoints/step-*.json")))
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(disturbed.pid)], capture_output=True, text=True, check=True)  # fmt: skip
    os.kill(int(listing.stdout.split()[-1]), signal.SIGKILL)
    _, said = disturbed.communicate()
    assert disturbed.returncode == 0, said
    assert "resuming after epoch" in said
    first, second = (load_file(next(output.rglob("model.safetensors"))) for output in (whole, killed))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert json_records(killed)[-1]["training"]["resumed"] == 1
