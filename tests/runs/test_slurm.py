"""Slurm jobs, submitted to the local executor of submitit in place of Slurm; job states and options."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sdabench.cli.cluster import sbatch_option, slurm_minutes
from sdabench.errors import ExitCode, SdabenchError, UsageError
from sdabench.runs.slurm import Resources, Slurm, SlurmProcess
from sdabench.runs.slurm.queue import SlurmQueue
from tests.helpers.processes import wait_for
from tests.helpers.program import sdabench

pytest.importorskip("submitit")

RECIPE = """\
title: a quick one
epochs: {epochs}
batch_size: 5
optimizer: {{learning_rate: 0.001}}
augmentation: {{crop: 32}}
validation: {{crop: 32, every_epochs: 0}}
fit_below: 1000.0
"""
SLURM = ["--launcher", "slurm", "--gpus", "0", "--time", "10"]


@pytest.fixture(autouse=True)
def local_cluster(monkeypatch):
    monkeypatch.setenv("SDABENCH_SLURM_CLUSTER", "local")


def train_command(textures, output, epochs, *models):
    path = output.parent / "quick.yaml"
    path.write_text(RECIPE.format(epochs=epochs))
    return suite_command(output, models, "--data", f"synthetic={textures}", "--recipe", path)


def eval_command(imagenet, output, *models):
    fast = ["--batch-size", "8", "--workers", "0", "--resolution", "32"]
    return suite_command(output, models, "--eval-only", "--data", f"imagenet={imagenet}", *fast)


def suite_command(output, models, *options):
    chosen = [option for name in models for option in ("--models", name)]
    return ["run", "--suite", "classification", "--output", str(output), *SLURM, *chosen, *map(str, options)]


def records(output):
    return [json.loads(line) for line in (output / "records.jsonl").read_text().splitlines()]


def job_ids(output):
    path = output / "slurm/jobs.json"
    return list(json.loads(path.read_text()).values()) if path.exists() else []


def read_log(output, model):
    [path] = (output / "logs").glob(f"{model}-*.log")
    return path.read_text()


class Background:
    """The program in the background; stderr goes to a file, since processes of the local executor share it."""

    def __init__(self, command, path):
        self.path = path
        with path.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sdabench", *command], stdout=subprocess.DEVNULL, stderr=stderr
            )

    def wait(self):
        """Wait for the program and return its exit code and stderr."""
        return self.process.wait(timeout=300), self.path.read_text()


def children(process_id):
    return [
        int(child) for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    ]


def test_one_slurm_job_per_network_then_the_table(imagenet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = sdabench(*eval_command(Path("imagenet"), Path("out"), "resnet50", "senet50"))
    assert result.returncode == ExitCode.OK, result.stderr
    assert "75.20" in result.stdout
    first, second = job_ids(Path("out"))
    assert f"resnet50 is Slurm job {first}, log {tmp_path / 'out/logs'}" in result.stderr
    assert f"Job {second} on" in read_log(Path("out"), "senet50")
    assert sorted(record["model"] for record in records(Path("out"))) == ["resnet50", "senet50"]
    assert {record["environment"]["networks_at_once"] for record in records(Path("out"))} == {1}


def test_job_survives_coordinator_exit_and_preemption(textures, tmp_path):
    output = tmp_path / "out"
    command = train_command(textures, output, 25, "resnet50")
    first = Background(command, tmp_path / "first")
    wait_for(lambda: any("\n" in path.read_text() for path in output.rglob("metrics.jsonl")))
    first.process.terminate()
    status, stderr = first.wait()
    [job_id] = job_ids(output)
    assert status == ExitCode.STOPPED
    assert f"Slurm job {job_id} still runs (stop with 'scancel {job_id}'); rerun the same command" in stderr

    second = Background(command, tmp_path / "second")
    [task] = children(job_id)
    os.kill(task, signal.SIGUSR2)  # as Slurm announces a preemption
    status, stderr = second.wait()
    assert status == ExitCode.OK, stderr
    assert f"resnet50 is still Slurm job {job_id}" in stderr
    assert job_ids(output) == [job_id]
    assert read_log(output, "resnet50").count(f"Job {job_id} on") == 2
    assert "resnet50: resuming after epoch" in read_log(output, "resnet50")
    assert [record["failure"] for record in records(output)] == [None]


def test_killed_job_fails_and_cancelled_job_does_not(imagenet, tmp_path, monkeypatch):
    output, site = tmp_path / "out", tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, signal, sys, time\n"
        "if '/specs/resnet50-' in sys.argv[-1]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "if '/specs/senet50-' in sys.argv[-1]: time.sleep(30)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    suite = Background(eval_command(imagenet, output, "resnet50", "senet50"), tmp_path / "suite")
    wait_for(lambda: len(job_ids(output)) == 2 and any((output / "logs").glob("senet50-*.log")))
    os.kill(int(job_ids(output)[1]), signal.SIGINT)  # as LocalJob.cancel does it
    status, stderr = suite.wait()
    assert status == ExitCode.STOPPED, stderr
    assert "senet50 was stopped: Slurm ended it: CANCELLED" in stderr
    assert stderr.endswith("rerun the same command to resume.\n")
    [record] = records(output)
    assert record["model"] == "resnet50"
    assert "was ended by SIGKILL" in record["failure"]["message"]
    assert f"its output is in {output / 'logs'}" in record["failure"]["message"]


class FixedStateQueue:
    """A queue in which every job is in the same state."""

    settle = 0.0

    def __init__(self, state):
        self.fixed_state = state

    def state(self, job_id):
        return self.fixed_state


@pytest.mark.parametrize(
    ("state", "status", "words"),
    [
        ("RUNNING", None, ""),
        ("COMPLETING", None, ""),
        ("CANCELLED", ExitCode.STOPPED, "CANCELLED"),
        ("PREEMPTED", ExitCode.STOPPED, "PREEMPTED"),
        ("OUT_OF_MEMORY", ExitCode.ERROR, "OUT_OF_MEMORY; try a smaller --batch-size"),
        ("TIMEOUT", ExitCode.ERROR, "TIMEOUT; it did not save in time"),
        ("NODE_FAIL", ExitCode.ERROR, "NODE_FAIL; rerun the same command to submit it again"),
        ("UNKNOWN", ExitCode.ERROR, "no longer known to Slurm"),
    ],
)
def test_job_without_result_takes_state_from_slurm(tmp_path, state, status, words):
    process = SlurmProcess("7", tmp_path, tmp_path / "absent.log", FixedStateQueue(state), earlier=False)
    assert process.poll() == status
    assert words in process.cause()
    log = tmp_path / ("absent.log" if status == ExitCode.STOPPED else "7_0_log.out")
    assert str(log) in process.cause()


def test_result_from_submitit_alone_is_a_timeout(tmp_path):
    (tmp_path / "7_0_result.pkl").write_bytes(b"nobody opens this")
    process = SlurmProcess("7", tmp_path, tmp_path / "absent.log", FixedStateQueue("FAILED"), earlier=False)
    assert process.poll() == ExitCode.ERROR
    assert process.cause().startswith(
        "TIMEOUT: it reached its time limit more often than --max-timeouts allows, or"
    )
    assert str(tmp_path / "7_0_log.out") in process.cause()


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit code 0 before it could write a record"), (1, "exit code 1"), (-9, "ended by SIGKILL")],
)
def test_job_stores_exit_code_of_its_command(tmp_path, status, words):
    (tmp_path / "7_status").write_text(str(status))
    process = SlurmProcess("7", tmp_path, tmp_path / "its.log", FixedStateQueue("COMPLETED"), earlier=False)
    assert process.poll() == status
    assert words in process.cause()
    assert str(tmp_path / "its.log") in process.cause()


def test_transient_end_state_is_ignored_until_it_settles(tmp_path):
    queue = FixedStateQueue("NODE_FAIL")
    queue.settle = 60.0
    process = SlurmProcess("7", tmp_path, tmp_path / "absent.log", queue, earlier=False)
    assert process.poll() is None
    queue.fixed_state = "PENDING"
    assert process.poll() is None
    queue.fixed_state, queue.settle = "NODE_FAIL", 0.0
    assert process.poll() == ExitCode.ERROR


@pytest.fixture
def fake_command(tmp_path, monkeypatch):
    """Prepend a new folder to PATH; return a function that writes a shell script there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def write(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return write


def test_sacct_is_asked_for_jobs_missing_from_squeue(fake_command):
    fake_command("squeue", "echo '11 RUNNING'; echo '12 COMPLETED'")
    fake_command("sacct", "[ $1 = --jobs=13 ] && echo 'CANCELLED by 1000'; exit 0")
    queue = SlurmQueue()
    assert [queue.state(job_id) for job_id in ("11", "12", "13", "14")] == [
        "RUNNING", "COMPLETED", "CANCELLED", "UNKNOWN",
    ]  # fmt: skip


def test_unreachable_slurm_keeps_the_last_known_state(fake_command):
    fake_command("squeue", "echo '11 RUNNING'")
    queue = SlurmQueue(every=0.0)
    assert queue.state("11") == "RUNNING"
    fake_command("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    assert queue.state("11") == "RUNNING"
    with pytest.raises(SdabenchError, match="squeue failed: Unable to contact slurm controller"):
        SlurmQueue().state("11")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:30", 91), ("1:30:00", 90), ("2-12", 3600), ("1-0:30", 1470), ("1-00:00:01", 1441)],
)
def test_slurm_time_formats(text, minutes):
    assert slurm_minutes(text) == minutes


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (slurm_minutes, "2", "needs 3 minutes"),
        (slurm_minutes, "1h", "is not a Slurm time"),
        (sbatch_option, "account=", "is not KEY=VALUE"),
        (sbatch_option, "time=5", "use --time"),
        (sbatch_option, "comment=x\n#SBATCH --uid=0", "control character"),
        (sbatch_option, "comment=x\r", "control character"),
        (sbatch_option, "--cpus_per_task=5", "use --cpus"),
    ],
)
def test_invalid_slurm_options_are_usage_errors(kind, text, words):
    with pytest.raises(UsageError, match=words):
        kind(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--partition", "gpu"], "--partition needs --launcher slurm"),
        (["--slurm-option", "qos=high"], "--slurm-option needs --launcher slurm"),
        (
            ["--launcher", "slurm", "--gpus", "0", "--device", "cuda"],
            "--device cuda and --gpus 0 contradict each other",
        ),
        (["--launcher", "slurm", "--device", "cuda:1"], "the device is cpu or cuda"),
    ],
)
def test_incompatible_options_are_usage_errors(options, words, tmp_path):
    result = sdabench("run", "--suite", "classification", "--output", tmp_path / "out", *options)
    assert result.returncode == ExitCode.USAGE
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_missing_slurm_or_submitit_names_the_next_step(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no Slurm commands found"):
        Slurm(tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"pip install 'sdabench\[slurm\]'"):
        Slurm(tmp_path)


def test_sbatch_parameters_follow_the_options():
    resources = Resources("gpu", 90, gpus=4, cpus=32, processes=4, options={"account": "vision"})
    parameters = resources.parameters("a name")
    assert parameters["timeout_min"] == 90
    assert parameters["gpus_per_node"] == 4
    assert parameters["slurm_additional_parameters"] == {"requeue": True, "account": "vision"}
    assert resources.threads == 8
