"""The worker process: it reads a job file and leaves records, an exit code, and one line for an error."""

import os
import signal
import subprocess
import sys

import pytest

from sdabench.data.source import DataSource
from sdabench.errors import ExitCode
from sdabench.records.store import RecordStore
from sdabench.training.job import Machine, evaluation_job
from sdabench.training.job_file import save_job
from tests.helpers.training import classifier_job


def worker(path, **options):
    return subprocess.run(
        [sys.executable, "-m", "sdabench.runs.worker", str(path)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def job(imagenet, **options):
    source = DataSource("imagenet", imagenet)
    machine = Machine(batch_size=3, **options)
    return evaluation_job("resnet50", source, source.read("val"), machine=machine)


def test_job_writes_records_from_any_working_directory(imagenet, tmp_path):
    saved_job = job(imagenet)
    result = worker(save_job(saved_job, tmp_path / "out"), cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (ExitCode.OK, "", "")
    [record] = RecordStore(tmp_path / "out").latest(saved_job.spec)
    assert (record.samples, record.batch_size, record.failure) == (6, 3, None)
    assert record.dataset.fingerprint_sha256 is not None


def test_several_ranks_run_the_same_job_file(imagenet, tmp_path):
    saved_job = job(imagenet, world_size=2)
    result = worker(save_job(saved_job, tmp_path))
    assert (result.returncode, result.stderr) == (ExitCode.OK, "")
    [record] = RecordStore(tmp_path).read()
    assert (record.samples, record.environment["processes"]) == (6, 2)


@pytest.mark.parametrize("world_size", [1, 2])
def test_error_is_one_line_with_record_and_exit_code(imagenet, tmp_path, world_size):
    broken_image = sorted(imagenet.rglob("*.JPEG"))[1]
    saved_job = job(imagenet, world_size=world_size)
    path = save_job(saved_job, tmp_path)
    broken_image.write_bytes(b"no image")
    result = worker(path)
    assert result.returncode == ExitCode.INTEGRITY
    assert result.stderr.startswith("Error: ")
    assert broken_image.name in result.stderr
    assert result.stderr.count("\n") == 1
    [record] = RecordStore(tmp_path).read()
    assert (record.failure.kind, broken_image.name in record.failure.message) == ("DataError", True)


def test_invalid_job_file_is_one_line(tmp_path):
    path = tmp_path / "specs/x.json"
    result = worker(path)
    assert result.returncode == ExitCode.ERROR
    assert result.stderr == f"Error: cannot read {path}: No such file or directory; run the command again\n"
    path.parent.mkdir()
    path.write_text("{}")
    result = worker(path)
    assert result.stderr.startswith(f"Error: {path}: spec: ")
    assert result.stderr.count("\n") == 1


def test_signal_exits_75_and_the_job_file_resumes(textures, tmp_path):
    saved_job = classifier_job(textures, epochs=12, model="resnet50")
    path = save_job(saved_job, tmp_path)
    process = subprocess.Popen([sys.executable, "-m", "sdabench.runs.worker", str(path)], process_group=0)
    try:
        while not any(path.stat().st_size for path in tmp_path.rglob("metrics.jsonl")):
            assert process.poll() is None
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == ExitCode.STOPPED
    finally:
        process.kill()
    assert RecordStore(tmp_path).read() == []
    assert worker(path).returncode == ExitCode.OK
    [record] = RecordStore(tmp_path).read()
    assert (record.training.resumed, record.training.epochs) == (1, 12)
