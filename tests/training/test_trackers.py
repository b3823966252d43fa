"""Experiment trackers get what ``metrics.jsonl`` has, also of a training that was stopped and resumed."""

import importlib.util
from functools import partial

import pytest
from click.testing import CliRunner

from sdabench.cli import cli
from sdabench.training.job import Machine
from sdabench.training.loop import train
from sdabench.training.run_folder import MetricsLog
from sdabench.training.signals import Stopped
from sdabench.training.trackers import RUN_ID, open_tracker
from tests.helpers.training import StopAfter, read_log
from tests.helpers.training import classifier_job as any_classifier_job

classifier_job = partial(any_classifier_job, model="tiny", epochs=4)
needs_mlflow = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed"
)


@pytest.fixture(autouse=True)
def local(monkeypatch):
    """Use the default store of MLflow; its own settings are restored at the end."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def stop_and_resume(job, output):
    with pytest.raises(Stopped):
        train(job, output, StopAfter(25))
    return train(job, output)


def of_tensorboard(folder, quantity):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = events.EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return [(each.step, pytest.approx(each.value)) for each in accumulator.Scalars(quantity)]


def mlflow_client(output):
    from mlflow.tracking import MlflowClient

    return MlflowClient((output / "mlruns").as_uri())


def logged(folder, quantity):
    return [(line["step"], line[quantity]) for line in read_log(folder)]


def test_tensorboard_matches_the_log_of_a_resumed_training(textures, tmp_path):
    pytest.importorskip("tensorboard")
    folder = stop_and_resume(classifier_job(textures).on(Machine(trackers=("tensorboard",))), tmp_path)
    for quantity in ("loss", "learning_rate"):
        assert logged(folder, quantity) == of_tensorboard(folder, quantity)


@needs_mlflow
def test_mlflow_continues_the_run_of_a_resumed_training(textures, tmp_path):
    (tmp_path / "mlruns").mkdir()  # of files, which is faster than a database
    job = classifier_job(textures).on(Machine(trackers=("mlflow",)))
    with pytest.raises(Stopped):
        train(job, tmp_path, StopAfter(25))
    client = mlflow_client(tmp_path)
    [experiment] = [each for each in client.search_experiments() if each.name == "sdabench"]
    [stopped] = client.search_runs([experiment.experiment_id])
    assert stopped.info.status == "KILLED"
    folder = train(job, tmp_path)
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == stopped.info.run_id == (folder / RUN_ID).read_text()
    assert (run.info.status, run.info.run_name) == ("FINISHED", folder.name)
    assert run.data.params["model"] == "tiny"
    assert run.data.params["optimizer.learning_rate"] == "0.05"
    found = [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, "loss")]
    assert found == logged(folder, "loss")


@needs_mlflow
def test_mlflow_writes_to_a_database_by_default(textures, tmp_path):
    pytest.importorskip("sqlalchemy")
    folder = tmp_path / "training" / "tiny-1"
    folder.mkdir(parents=True)
    spec = classifier_job(textures).spec
    lines = [{"step": 2, "loss": 1.0}, {"step": 4, "loss": 0.5}]
    open_tracker("mlflow", folder, spec, lines[:1]).close("KILLED")
    tracker = open_tracker("mlflow", folder, spec, lines)
    assert [(each.step, each.value) for each in tracker.client.get_metric_history(tracker.run, "loss")] == [
        (2, 1.0),
        (4, 0.5),
    ]
    assert (tmp_path / "mlflow.db").is_file()
    assert not (tmp_path / "mlruns").exists()


def test_a_tracker_that_fails_does_not_stop_the_training(tmp_path):
    class Full:
        def write(self, values):
            raise OSError(28, "No space left on device")

        def close(self, status):
            raise AssertionError

    log, said = MetricsLog(tmp_path, {"mlflow": Full()}), []
    with log.tracked():
        for step in (1, 2):
            log.write({"step": step, "loss": 1.0}, said.append)
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2]
    assert len(said) == 1
    assert "mlflow failed and gets no more values" in said[0]


@pytest.mark.parametrize(
    ("options", "package"), [(["--track", "mlflow"], "mlflow"), (["--tensorboard"], "tensorboard")]
)
def test_a_missing_package_is_named_with_its_command(monkeypatch, tmp_path, options, package):
    monkeypatch.setattr("sdabench.training.trackers.find_spec", lambda name: None)
    result = CliRunner().invoke(cli, ["train", "resnet50", "--output", str(tmp_path / "x"), *options])
    assert f"pip install 'sdabench[{package}]'" in str(result.exception)
    assert not (tmp_path / "x").exists()
