"""Experiment trackers get what ``metrics.jsonl`` has, also of a training that was stopped and resumed."""

import importlib.util
from functools import partial
from threading import Event, current_thread

import pytest
from click.testing import CliRunner

from sdabench.cli import cli
from sdabench.training.job import Machine
from sdabench.training.loop import train
from sdabench.training.run_folder import MetricsLog
from sdabench.training.signals import Stopped
from sdabench.training.trackers import CLOSE_SECONDS, RUN_ID, STORES, MLflow
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
    monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", "ERROR")
    for status in CLOSE_SECONDS:
        monkeypatch.setitem(CLOSE_SECONDS, status, 300)  # on a slow machine


@pytest.fixture
def spec(textures):
    return classifier_job(textures).spec


def stop_and_resume(job, output):
    with pytest.raises(Stopped):
        train(job, output, StopAfter(25))
    return train(job, output)


def of_tensorboard(folder, quantity):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = events.EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return [(each.step, pytest.approx(each.value)) for each in accumulator.Scalars(quantity)]


def logged(folder, quantity):
    return [(line["step"], line[quantity]) for line in read_log(folder)]


def test_tensorboard_matches_the_log_of_a_resumed_training(textures, tmp_path):
    pytest.importorskip("tensorboard")
    folder = stop_and_resume(classifier_job(textures).on(Machine(trackers=("tensorboard",))), tmp_path)
    for quantity in ("loss", "learning_rate"):
        assert logged(folder, quantity) == of_tensorboard(folder, quantity)


@needs_mlflow
def test_mlflow_continues_the_run_of_a_resumed_training(textures, tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    store = (tmp_path / "mlruns").as_uri()  # of files, which is faster than a database
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    job = classifier_job(textures).on(Machine(trackers=("mlflow",)))
    with pytest.raises(Stopped):
        train(job, tmp_path, StopAfter(25))
    client = MlflowClient(store)
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


def training_folder(output):
    folder = output / "training" / "tiny-1"
    folder.mkdir(parents=True)
    return folder


def log_two_steps(folder, names, spec):
    """Log two steps, each with its trackers; return what was said."""
    log, said = MetricsLog(folder), []
    with log.tracked():
        log.open_trackers(names, spec, said.append)
        for step in (2, 4):
            log.write({"step": step, "loss": 1 / step})
    assert [line["step"] for line in read_log(folder)] == [2, 4]
    return said


@needs_mlflow
def test_mlflow_writes_to_a_database_by_default(spec, tmp_path):
    folder = training_folder(tmp_path)
    assert log_two_steps(folder, ["mlflow"], spec) == []
    tracker = MLflow(folder, spec)  # of a resumed training
    tracker.write({"step": 4, "loss": 9.0})
    tracker.write({"step": 6, "loss": 0.125})
    found = tracker.client.get_metric_history(tracker.run, "loss")
    assert [(each.step, each.value) for each in found] == [(2, 0.5), (4, 0.25), (6, 0.125)]
    assert (tmp_path / "mlflow.db").is_file()


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("mlflow", lambda output: (output / "mlflow.db").mkdir()),
        ("mlflow", lambda output: (output / "mlflow.db").write_text("not a database, but a longer text")),
        ("tensorboard", lambda output: (output / "training/tiny-1/tensorboard").write_text("a file")),
    ],
)
def test_an_unusable_store_is_reported_once_and_the_training_continues(spec, tmp_path, name, spoil):
    pytest.importorskip(name)
    folder = training_folder(tmp_path)
    spoil(tmp_path)
    [line] = log_two_steps(folder, [name], spec)
    assert "gets no more values: " in line
    assert line.endswith("; metrics.jsonl has all of them")
    assert "\n" not in line


def test_a_broken_package_is_reported_and_the_training_continues(spec, tmp_path, monkeypatch):
    monkeypatch.setattr("sdabench.training.trackers.IMPORTED", {"mlflow": "sdabench.no_such_module"})
    [line] = log_two_steps(training_folder(tmp_path), ["mlflow"], spec)
    assert line.startswith("MLflow gets no more values: No module named 'sdabench.no_such_module'")


def test_a_store_that_fails_later_is_reported_without_secrets(spec, tmp_path, monkeypatch):
    class Full:
        def __init__(self, folder, spec):
            assert current_thread().daemon  # no step waits for it

        def write(self, values):
            raise ValueError("no space\nat http://user:secret@host/store")

    monkeypatch.setitem(STORES, "mlflow", Full)
    assert log_two_steps(training_folder(tmp_path), ["mlflow"], spec) == [
        "MLflow gets no more values: no space at http://host/store; metrics.jsonl has all of them"
    ]


def test_a_store_that_never_answers_delays_no_step(spec, tmp_path, monkeypatch):
    answered = Event()
    monkeypatch.setitem(STORES, "mlflow", lambda folder, spec: answered.wait())
    monkeypatch.setitem(CLOSE_SECONDS, "FINISHED", 0.01)
    [line] = log_two_steps(training_folder(tmp_path), ["mlflow"], spec)
    answered.set()
    assert "no answer for 0.01 s" in line


@pytest.mark.parametrize(
    ("options", "package"), [(["--track", "mlflow"], "mlflow"), (["--tensorboard"], "tensorboard")]
)
@pytest.mark.parametrize("command", ["train resnet50", "run --suite classification"])
def test_a_missing_package_is_named_with_its_command(monkeypatch, tmp_path, command, options, package):
    monkeypatch.setattr("sdabench.training.trackers.find_spec", lambda name: None)
    result = CliRunner().invoke(cli, [*command.split(), "--output", str(tmp_path / "x"), *options])
    assert f"pip install 'sdabench[{package}]'" in str(result.exception)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("command", ["train resnet50", "run --suite classification"])
def test_the_trackers_of_the_command_line_reach_the_jobs(monkeypatch, textures, tmp_path, command):
    pytest.importorskip("tensorboard")
    found = []
    module = f"sdabench.cli.{command.split()[0]}.show_plan"
    monkeypatch.setattr(module, lambda suite, *rest, **named: found.append(suite))
    options = ["--tensorboard", "--track", "tensorboard", "--dry-run", "--output", str(tmp_path / "x")]
    result = CliRunner().invoke(cli, [*command.split(), "--data", f"synthetic={textures}", *options])
    assert result.exit_code == 0, result.output
    assert {job.machine.trackers for job in found[0].jobs} == {("tensorboard",)}
