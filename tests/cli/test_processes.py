"""Train in several processes from the command line: by ``--nproc`` or by torchrun."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdabench.cli.machine import _world_size, parse_processes, visible_gpus
from sdabench.cli.options import AUTO
from tests.helpers.processes import stop_process, wait_for
from tests.helpers.program import assert_error, sdabench
from tests.helpers.records import json_records
from tests.helpers.training import RECIPE_FILE, copy_with_broken_image


@pytest.fixture
def options(textures, tmp_path):
    """Return the options of a training run of thirty epochs with two steps each."""
    recipe = tmp_path / "quick.yaml"
    recipe.write_text(RECIPE_FILE.replace("epochs: 2", "epochs: 30").replace("fit_below: 100.0", ""))
    return ["--data", f"synthetic={textures}", "--recipe", str(recipe), "--workers", "1"]


def logged_steps(output):
    return sum(len(path.read_text().splitlines()) for path in output.glob("training/*/metrics.jsonl"))


def test_two_processes_stop_and_resume_with_single_messages(options, tmp_path):
    output = tmp_path / "out"
    command = ["train", "resnet50", *options, "--output", str(output), "--nproc", "2"]
    stderr = stop_process(start_two_processes(options, output), signal.SIGUSR2)
    assert stderr.endswith("rerun the same command to resume.\n")
    assert "Warning" not in stderr
    assert len(list(output.rglob("checkpoints/step-*.json"))) == 1
    result = sdabench(*command, "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("resuming after epoch") == 1
    training = json.loads(result.stdout)["training"]
    assert (training["processes"], training["parts"], training["resumed"]) == (2, 2, 1)
    assert training["steps"] == 60
    assert len(json_records(output)) == 1


def start_two_processes(options, output):
    """Start a training run in two processes and wait until it has logged several steps."""
    command = ["train", "resnet50", *options, "--output", str(output), "--nproc", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sdabench", *command],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: logged_steps(output) > 1)
    return process


def test_second_signal_exits_without_traceback(options, tmp_path):
    process = start_two_processes(options, tmp_path / "out")
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(1.1)
    stop_process(process, signal.SIGINT)


def test_killed_rank_is_reported_and_ranks_listen_on_loopback_only(options, tmp_path):
    process = start_two_processes(options, tmp_path / "out")
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True)  # fmt: skip
    ranks = listing.stdout.split()
    if Path("/proc/net/tcp").exists():
        addresses = [address for pid in (process.pid, *ranks) for address in listening_addresses(pid)]
        assert addresses
        assert set(addresses) == {"0100007F"}  # 127.0.0.1
    os.kill(int(ranks[1]), signal.SIGKILL)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Process 2 was killed by SIGKILL; rerun the same command to resume." in stderr
    assert "Traceback" not in stderr


def listening_addresses(pid):
    """Return the addresses in hexadecimal that a process listens on for TCP connections."""
    files = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    sockets = [line.split() for line in lines[1:]]
    return [
        each[1].partition(":")[0] for each in sockets if each[3] == "0A" and f"socket:[{each[9]}]" in files
    ]


def test_exit_code_comes_from_the_processes(options, textures, tmp_path):
    folder, path = copy_with_broken_image(textures, tmp_path)
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
def test_more_processes_than_gpus_is_a_usage_error(options, tmp_path, extra, words):
    result = sdabench("train", "resnet50", *options, "--output", tmp_path, "--nproc", 2, *extra)
    assert result.returncode == 2
    assert pytest.importorskip("re").search(words, result.stderr)


@pytest.mark.parametrize("count", ["0", "-1", "1025", "all"])
def test_number_of_processes_is_checked(count):
    result = sdabench("eval", "resnet50", "--nproc", count)
    assert_error(result, 2, f"'{count}' is not a number from 1 to 1024, or auto")


def test_auto_starts_a_process_per_gpu_unless_torchrun_started_them(monkeypatch):
    """Without a GPU, it starts one process."""
    assert [_world_size(parse_processes(count)) for count in ("auto", "2")] == [AUTO, 2]
    for gpus, expected in ((0, [1, 1, 1]), (4, [4, 1, 1])):
        monkeypatch.setattr("torch.cuda.device_count", lambda gpus=gpus: gpus)
        assert [visible_gpus(device) for device in (None, "cuda:1", "cpu")] == expected
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    assert [_world_size(parse_processes(count)) for count in ("auto", "2")] == [3, 3]


@pytest.mark.slow
def test_torchrun_restarts_from_last_checkpoint_after_kill(options, tmp_path):
    """Kill one of two processes after the first checkpoint, so that torchrun restarts both."""
    reference, killed = tmp_path / "whole", tmp_path / "killed"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def torchrun(output):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        command += ["--max-restarts=1", "-m", "sdabench", "train", "resnet50", *options]
        command += ["--output", str(output), "--checkpoint-every", "0"]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    uninterrupted = torchrun(reference)
    uninterrupted.communicate()
    assert uninterrupted.returncode == 0
    interrupted = torchrun(killed)
    wait_for(lambda: list(killed.rglob("checkpoints/step-*.json")))
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(interrupted.pid)], capture_output=True, text=True, check=True)  # fmt: skip
    os.kill(int(listing.stdout.split()[-1]), signal.SIGKILL)
    _, stderr = interrupted.communicate()
    assert interrupted.returncode == 0, stderr
    assert "resuming after epoch" in stderr
    first, second = (load_file(next(output.rglob("model.safetensors"))) for output in (reference, killed))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert json_records(killed)[-1]["training"]["resumed"] == 1


def test_two_machines_train_without_a_shared_folder(textures, tmp_path):
    """Two torchruns replace two machines; the second one receives the weights that it evaluates."""
    recipe = tmp_path / "quick.yaml"
    recipe.write_text(RECIPE_FILE.replace("fit_below: 100.0", ""))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    torchrun += ["--master-addr=127.0.0.1", f"--master-port={port}"]
    command = [
        "-m",
        "sdabench",
        "train",
        "resnet50",
        "--data",
        f"synthetic={textures}",
        "--recipe",
        str(recipe),
    ]
    outputs = [tmp_path / "first", tmp_path / "second"]
    machines = [
        subprocess.Popen(
            [*torchrun, f"--node-rank={machine}", *command, "--output", str(output)],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for machine, output in enumerate(outputs)
    ]  # fmt: skip
    stderr = [machine.communicate(timeout=300)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], stderr
    [record] = json_records(outputs[0])
    assert (record["training"]["processes"], record["environment"]["processes"]) == (2, 2)
    first, second = (next(output.rglob("model.safetensors")) for output in outputs)
    assert first.read_bytes() == second.read_bytes()
    assert {path.name for path in outputs[1].rglob("*") if path.is_file()} == {"model.safetensors"}
