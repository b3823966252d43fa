"""Run ``sdabench run`` on generated images: records, failures, resuming, signals."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from filelock import FileLock

from sdabench import create_model
from sdabench.records.class_predictions import ClassPredictions
from sdabench.report import accuracy
from tests.helpers.processes import stop_process, wait_for
from tests.helpers.program import sdabench
from tests.helpers.records import json_records

FAST = ["--batch-size", 8, "--workers", 0, "--resolution", 32]


def run(imagenet, output, *options):
    return sdabench(
        "run", "--suite", "classification", "--eval-only", "--data", f"imagenet={imagenet}",
        "--output", output, *FAST, *options,
    )  # fmt: skip


def test_run_writes_records_prints_table_and_resumes(imagenet, tmp_path):
    output = tmp_path / "out"
    first = run(imagenet, output, "--models", "resnet50")
    assert first.returncode == 0, first.stderr
    assert "[1/1] resnet50" in first.stderr
    assert "75.20" in first.stdout
    assert "Results of random weights are not compared" in first.stdout
    [predictions] = (output / "predictions").iterdir()
    assert len(ClassPredictions.read(predictions).paths) == 6

    second = run(imagenet, output, "--models", "resnet50", "--models", "senet50", "--json")
    assert second.returncode == 0
    assert "1 of 2 are completed." in second.stderr
    assert "resnet50" not in second.stderr
    assert [record["model"] for record in json_records(output)] == ["resnet50", "senet50"]
    assert [record["model"] for record in json.loads(second.stdout)] == ["resnet50", "senet50"]

    again = run(imagenet, output, "--models", "resnet50", "--seed", 1)
    assert "already" not in again.stderr
    assert len(json_records(output)) == 3
    assert "1 of 1 are completed." in run(imagenet, output, "--models", "resnet50").stderr
    assert len({record["predictions"] for record in json_records(output)}) == 3
    assert all((output / record["predictions"]).is_file() for record in json_records(output))


def test_json_skips_the_table(imagenet, tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "accuracy_sheet", lambda *arguments: pytest.fail("a table was drawn"))
    result = run(imagenet, tmp_path / "out", "--models", "resnet50", "--json")
    assert result.returncode == 0, result.stderr
    assert [record["model"] for record in json.loads(result.stdout)] == ["resnet50"]


def test_failed_network_is_recorded_and_retried(imagenet, tmp_path):
    output, weights = tmp_path / "out", tmp_path / "weights"
    weights.mkdir()
    torch.save(create_model("resnet50").state_dict(), weights / "senet50.pth")
    network = create_model("resnet50")
    torch.save(network.state_dict(), weights / "resnet50.pth")
    options = ["--models", "resnet50", "--models", "senet50", "--weights", weights, "--jobs", 1]
    first = run(imagenet, output, *options)
    assert first.returncode == 1
    failures = {record["model"]: record["failure"] for record in json_records(output)}
    assert failures["resnet50"] is None
    assert failures["senet50"]["kind"] == "WeightsError"
    assert "does not fit 'senet50'" in " ".join(first.stdout.split())

    torch.save(create_model("senet50").state_dict(), weights / "senet50.pth")
    second = run(imagenet, output, *options)
    assert second.returncode == 0
    assert [record["model"] for record in json_records(output)] == ["resnet50", "senet50", "senet50"]


def test_killed_job_is_recorded_as_failure(imagenet, tmp_path, monkeypatch):
    """Kill the evaluation of one network with SIGKILL, as the kernel does when memory runs out."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, signal, sys\nif '/specs/senet50-' in sys.argv[-1]: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    result = run(imagenet, tmp_path / "out", "--models", "resnet50", "--models", "senet50")
    assert result.returncode == 1
    crash = next(record for record in json_records(tmp_path / "out") if record["model"] == "senet50")
    assert crash["failure"]["kind"] == "crash"
    assert "SIGKILL" in crash["failure"]["message"]
    assert "smaller --batch-size" in crash["failure"]["message"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_broken_image_exits_4(imagenet, tmp_path, jobs):
    broken_image = sorted(imagenet.rglob("*.JPEG"))[0]
    broken_image.write_bytes(b"\xff\xd8 cut short")
    models = ["resnet50", "senet50", "cbam50"]
    model_options = [option for name in models for option in ("--models", name)]
    result = run(imagenet, tmp_path / "out", *model_options, "--jobs", jobs)
    assert result.returncode == 4
    assert result.stderr.count(str(broken_image)) == 1
    assert "Traceback" not in result.stderr
    assert [name in result.stderr for name in models] == [index < jobs for index in range(3)]


def test_skipped_images_are_named_and_evaluated_after_a_repair(imagenet, tmp_path):
    broken = sorted(imagenet.rglob("*.JPEG"))[0]
    content = broken.read_bytes()
    broken.write_bytes(b"x" * len(content))
    options = ["--models", "resnet50"]
    first = run(imagenet, tmp_path / "out", *options, "--skip-broken")
    assert first.returncode == 0, first.stderr
    assert "without 1 broken validation image" in first.stdout
    assert "1 of 1 are completed." in run(imagenet, tmp_path / "out", *options, "--skip-broken").stderr
    assert run(imagenet, tmp_path / "out", *options).returncode == 4
    broken.write_bytes(content)
    assert run(imagenet, tmp_path / "out", *options).returncode == 0
    records = json_records(tmp_path / "out")
    assert [record["samples"] for record in records] == [5, 0, 6]
    assert records[0]["dataset"]["skipped"] == [f"{broken.parent.name}/{broken.name}"]


def test_parallel_jobs_write_records_and_logs(imagenet, tmp_path):
    output = tmp_path / "out"
    options = ["--models", "resnet50", "--models", "senet50", "--jobs", 2]
    result = run(imagenet, output, *options, "--weights", tmp_path)  # a folder without weights
    assert result.returncode == 5
    for name in ("resnet50", "senet50"):
        assert f"{name} failed: no weights file at {tmp_path / name}.safetensors" in result.stderr
        [log] = (output / "logs").glob(f"{name}-*.log")
        assert "no weights file" in log.read_text()
    assert run(imagenet, output, *options).returncode == 0
    assert sorted(record["model"] for record in json_records(output)) == ["resnet50"] * 2 + ["senet50"] * 2


def test_with_adds_networks_and_refuses_other_tasks(imagenet, tmp_path):
    result = run(imagenet, tmp_path / "out", "--models", "resnet50", "--with", "sda_gcnet50")
    assert result.returncode == 0, result.stderr
    assert "[2/2] sda_gcnet50" in result.stderr
    last = next(line for line in reversed(result.stdout.splitlines()) if "sda_" in line)
    assert last.split()[:2] == ["SDA-GCNet-50", "(ratio"]
    wrong_task = run(imagenet, tmp_path / "no", "--models", "resnet50", "--with", "mask_rcnn_senet50")
    assert wrong_task.returncode == 2
    assert "'mask_rcnn_senet50' is not in the networks for the suite 'classification'" in wrong_task.stderr
    not_in_suite = run(imagenet, tmp_path / "no", "--models", "sda_gcnet50")
    assert "not in the suite 'classification', to which --with adds" in not_in_suite.stderr
    wrong_suite = sdabench("run", "--suite", "detection", "--with", "gcnet50")
    assert wrong_suite.returncode == 2
    assert "'gcnet50' is not in the networks for the suite 'detection'" in wrong_suite.stderr
    assert not (tmp_path / "no").exists()


def test_modules_in_working_directory_are_not_imported(imagenet, tmp_path):
    (tmp_path / "queue.py").write_text("raise RuntimeError('not this one')")
    result = sdabench(
        "run", "--suite", "classification", "--eval-only", "--data", f"imagenet={imagenet}",
        "--output", "out", *FAST, "--models", "resnet50", cwd=tmp_path, interpreter=("-P",),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


def test_locked_output_folder_is_an_error(imagenet, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    with FileLock(output / ".lock"):
        result = run(imagenet, output, "--models", "resnet50")
    assert result.returncode == 1
    assert "another run is writing to" in result.stderr


@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_signal_exits_75_and_rerun_resumes(imagenet, tmp_path, number, jobs):
    output = tmp_path / "out"
    command = [
        sys.executable, "-m", "sdabench", "run", "--suite", "classification", "--eval-only",
        "--data", f"imagenet={imagenet}", "--output", str(output), *map(str, FAST),
        "--models", "resnet50", "--models", "senet50", "--models", "cbam50", "--jobs", str(jobs),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    path = output / "records.jsonl"
    wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
    assert stop_process(process, number).endswith("rerun the same command to resume.\n")
    completed = len(json_records(output))
    assert 1 <= completed < 3
    result = run(imagenet, output, "--models", "resnet50", "--models", "senet50", "--models", "cbam50")
    assert result.returncode == 0
    assert f"{completed} of 3 are completed." in result.stderr
