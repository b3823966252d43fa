"""Specs: the same experiment has the same digest."""

import json
import shutil

import pytest

from sdabench.data.source import DataSource
from sdabench.errors import DataError
from sdabench.records.record import Failure, Record
from sdabench.records.spec import RunSpec
from sdabench.records.store import RecordStore
from sdabench.registry import load_registry
from sdabench.registry.recipes import load_recipe
from sdabench.training.job import evaluation_job, training_job
from sdabench.training.job_file import read_job_file, save_job
from sdabench.weights.local import LocalWeights
from tests.helpers.training import classifier_job, detector_job


def evaluation(imagenet, **options):
    source = DataSource("imagenet", imagenet)
    return evaluation_job("resnet50", source, source.read("val"), **options)


def test_record_keeps_the_digest_of_its_spec(textures, shapes, tmp_path):
    store = RecordStore(tmp_path)
    for job in (classifier_job(textures), detector_job(shapes)):
        records = [Record.of(job.spec, task, metrics={"ap_pct": 1.0}) for task in job.spec.tasks]
        store.append(records)
        assert [record.key for record in records] == job.spec.keys
        assert [record.key for record in store.latest(job.spec)] == job.spec.keys
    lines = [json.loads(line) for line in store.path.read_text().splitlines()]
    assert [(line["spec_digest"], line["task"]) for line in lines] == [record.key for record in store.read()]


def test_job_round_trips(textures, tmp_path):
    job = classifier_job(textures, workers=2, skip_broken=True)
    loaded = read_job_file(save_job(job, tmp_path)).job()
    assert loaded.spec == job.spec
    assert loaded.spec.spec_digest == job.spec.spec_digest
    assert (loaded.machine, loaded.skip_broken) == (job.machine, True)
    assert (loaded.train, loaded.split) == (job.train, job.split)


def test_digest_ignores_data_path_and_recipe_title(textures, tmp_path):
    other = shutil.copytree(textures, tmp_path / "elsewhere")
    assert (
        classifier_job(textures).spec.spec_digest
        == classifier_job(other, title="other words").spec.spec_digest
    )


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"epochs": 3}, {"model": "senet50"}, {"train_images": 8}, {"val_images": 2}]
)
def test_digest_depends_on_training_settings(textures, changes):
    assert classifier_job(textures).spec.spec_digest != classifier_job(textures, **changes).spec.spec_digest


def test_digest_depends_on_the_bytes_of_weights(imagenet, tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    files = [LocalWeights.of_file(tmp_path / name) for name in "abc"]
    a, b, c = (evaluation(imagenet, weights=file).spec.spec_digest for file in files)
    assert a == b != c


@pytest.mark.parametrize(
    "changes", [{"strides": [1, 2, 2, 1]}, {"options": {"groups": 8}}, {"depth_attention": True}]
)
def test_changed_definition_of_a_network_is_another_experiment(textures, tmp_path, monkeypatch, changes):
    job, store = classifier_job(textures), RecordStore(tmp_path)
    older = job.spec.with_values(network_sha256=None)  # of a version that did not record the definition
    saved = save_job(job, tmp_path)
    store.append([Record.of(older, "classification", metrics={"top1_pct": 1.0})])
    assert list(store.valid([job.spec])) == job.spec.keys
    store.append([Record.of(job.spec, "classification", metrics={"top1_pct": 2.0})])
    assert store.valid([job.spec])[job.spec.keys[0]].metrics == {"top1_pct": 2.0}

    models = load_registry().models
    network = models[job.model].network.model_copy(update=changes)
    monkeypatch.setitem(models, job.model, models[job.model].model_copy(update={"network": network}))
    other = classifier_job(textures).spec
    assert other.spec_digest != job.spec.spec_digest
    assert store.valid([other])[other.keys[0]].metrics == {"top1_pct": 1.0}
    assert not store.read()[-1].is_defined
    with pytest.raises(DataError, match=f"the definition of {job.model} has changed since the run started"):
        read_job_file(saved).job()
    monkeypatch.setitem(models, job.model, models[job.model].model_copy(update={"title": "x", "note": "y"}))
    assert classifier_job(textures).spec == other


def test_recipe_and_protocol_must_fit_the_tasks(textures, shapes):
    with pytest.raises(ValueError, match="protocol"):
        classifier_job(textures).spec.with_values(protocol=detector_job(shapes).spec.protocol)
    with pytest.raises(ValueError, match="recipe"):
        classifier_job(textures).spec.with_values(recipe=load_recipe("smoke", "detection"))


def test_failure_is_not_valid_and_the_last_record_is_used(textures, tmp_path):
    job, store = classifier_job(textures), RecordStore(tmp_path)
    good, again = (Record.of(job.spec, "classification", metrics={"top1_pct": x}) for x in (1.0, 2.0))
    failed = good.model_copy(update={"failure": Failure(kind="crash", message="no")})
    store.append([failed])
    assert store.valid([job.spec]) == {}
    store.append([good, again, failed])
    assert store.valid([job.spec])[again.key].metrics == {"top1_pct": 2.0}
    assert store.latest(job.spec)[0].failure is not None
    assert store.latest(classifier_job(textures, seed=1).spec) == []


def test_specs_are_frozen(textures):
    spec: RunSpec = training_job(
        "resnet50", DataSource("synthetic", textures), classifier_job(textures).spec.recipe
    ).spec
    with pytest.raises(ValueError, match="frozen"):
        spec.seed = 1


def test_job_for_another_network_has_its_definition(textures):
    spec = classifier_job(textures, model="senet50").for_model("resnet50", 0).spec
    assert spec.network_sha256 == load_registry().model("resnet50").network_sha256
    assert spec.is_defined
