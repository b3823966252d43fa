"""Failures of jobs are recorded, refusals to start are not; outputs that cannot be written are noticed first."""

import os

import pytest
import torch

from sdabench.errors import DataError, OutputError, RefusedError, UsageError
from sdabench.processes import NETWORKS_AT_ONCE
from sdabench.records.store import RecordStore
from sdabench.runs.execution import execute, recording_failures
from sdabench.training.loop import train
from sdabench.training.signals import Stopped
from tests.helpers.training import StopAfter, classifier_job


def fail_with(error, textures, output):
    with pytest.raises(type(error)), recording_failures(classifier_job(textures), output):
        raise error
    return [record.failure.kind for record in RecordStore(output).read()]


@pytest.mark.parametrize("error", [RefusedError("another training"), UsageError("no such option")])
def test_refusals_are_recorded_only_in_a_suite(textures, tmp_path, monkeypatch, error):
    assert fail_with(error, textures, tmp_path) == []
    monkeypatch.setenv(NETWORKS_AT_ONCE, "1")
    assert fail_with(error, textures, tmp_path) == [type(error).__name__]


def test_failures_are_recorded(textures, tmp_path):
    assert fail_with(DataError("broken"), textures, tmp_path) == ["DataError"]


@pytest.mark.parametrize("name", ["predictions", "records.jsonl"])
def test_output_that_cannot_be_written_is_an_error_before_the_work(textures, tmp_path, name):
    path = tmp_path / name
    path.mkdir() if name == "records.jsonl" else path.touch()
    with (
        pytest.raises(OutputError, match=f"cannot write {path}: .*; name another --output"),
        recording_failures(classifier_job(textures), tmp_path),
    ):
        pytest.fail("the work has started")


def test_path_that_is_not_utf_8_is_refused(textures, tmp_path):
    odd = tmp_path / os.fsdecode(b"\xff")
    odd.symlink_to(textures)
    with pytest.raises(UsageError, match="the path of the data or weights is not UTF-8"):
        classifier_job(odd)


def test_threads_of_a_resumed_training_end_with_its_job(textures, tmp_path, monkeypatch, tiny):
    """The next job of the process would have them too. The threads are not real, because forks follow."""
    threads = [1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    job = classifier_job(textures, model=tiny)
    with pytest.raises(Stopped):
        train(job, tmp_path, StopAfter(5))
    threads.append(2)
    [record] = execute(job, tmp_path)
    assert (record.environment["threads"], threads[-1]) == (1, 2)
