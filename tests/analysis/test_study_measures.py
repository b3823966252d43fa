"""Measure small networks that are trained on generated images."""

from dataclasses import replace

import pytest
import torch

from sdabench import create_model
from sdabench.analysis.depth_weights import attention_depth, depth_slope
from sdabench.analysis.study_measures import (
    ValidationImages,
    compute_outputs,
    images_to_process,
    measure_training,
    untrained_network,
)
from sdabench.analysis.study_runs import StudySuite, is_pilot, plan_of, study_jobs
from sdabench.claims.studies import judged_in
from sdabench.data.synthetic import write_dataset
from sdabench.errors import DataError, RefusedError, UsageError
from sdabench.files import folder_lock
from sdabench.records.store import records_of
from sdabench.records.studies import shipped_study
from sdabench.registry.studies import frozen, load_study, recipe_of, study_names
from sdabench.training.evaluation import evaluate_training, prepare_network
from sdabench.training.job import Machine
from sdabench.training.loop import train
from tests.helpers.studies import declared, write_study_plugin


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """The trainings of both arms with seed 0."""
    monkeypatch.setenv("SDABENCH_PLUGINS", str(write_study_plugin(tmp_path / "plugin")))
    data, study = tmp_path / "data", load_study("tiny")
    write_dataset(data, plan_of(study.data))
    return study_jobs(study, [0], lambda images: Machine(), data)


def test_a_trained_network_is_measured(jobs, tmp_path):
    job, output, processed = jobs[0], tmp_path / "out", []
    folder = train(job, output)
    images = ValidationImages.of(job)
    found = measure_training(job, declared(), "0" * 64, "learned", output, images, processed.append)
    values = found.values
    assert (found.arm, found.model, found.seed, found.images) == ("learned", "sda_small", 0, 8)
    of_octaves = [values["top1_pct/-1"], values["top1_pct/-2"]]
    assert values["octave_top1_pct"] == pytest.approx(sum(of_octaves) / 2)
    assert sum(processed) == images_to_process(8, 2, fused=True) == 6 * 8

    trained = prepare_network(replace(job, weights=folder / "model.safetensors"))[0].eval()
    pixels = torch.cat(
        [batch.to(torch.device("cpu"), torch.contiguous_format).images for batch in images.batches]
    )
    with torch.inference_mode():
        right = trained(pixels).argmax(1) == images.labels
        depths = [
            attention_depth(network.depth_attention_weights(pixels))
            for network in (trained, untrained_network(job))
        ]
    assert values["top1_pct/-1"] == pytest.approx(100 * right[images.octaves == -1].double().mean().item())
    after, before = [depth_slope(each, images.sizes).estimate for each in depths]
    assert values["depth_slope"] == pytest.approx(after - before)
    assert values["swap_drop_pct"] == pytest.approx(
        values["swap_across_drop_pct"] - values["swap_within_drop_pct"]
    )


def test_an_untrained_network_has_initial_weights_and_statistics_of_training_images(jobs):
    job = jobs[0]
    torch.manual_seed(0)
    initial = create_model("sda_small", num_classes=2)
    network = untrained_network(job)
    assert not network.training
    own = dict(network.named_parameters())
    assert all(torch.equal(value, own[name]) for name, value in initial.named_parameters())
    assert not torch.equal(network.bn1.running_mean, initial.bn1.running_mean)
    again = untrained_network(job)
    assert torch.equal(network.bn1.running_var, again.bn1.running_var)


def test_swapping_uniform_weights_changes_nothing(jobs, tmp_path):
    job = jobs[1]
    train(job, tmp_path)
    images = ValidationImages.of(job)
    found = measure_training(job, declared(), "0" * 64, "uniform", tmp_path, images, lambda images: None)
    assert found.values["swap_drop_pct"] == 0.0
    assert found.values["depth_slope"] == pytest.approx(0.0, abs=1e-12)
    assert found.values["attention_depth_trained/-1"] == pytest.approx(0.5)


def test_given_weights_replace_those_of_the_network(jobs):
    network, images = untrained_network(jobs[0]), ValidationImages.of(jobs[0])
    own = compute_outputs(network, images, jobs[0])
    assert {stage: tuple(each.shape) for stage, each in own.weights.items()} == {
        "layer1": (8, 2, 16), "layer2": (8, 2, 16), "layer3": (8, 1, 32), "layer4": (8, 1, 32),
    }  # fmt: skip
    assert compute_outputs(network, images, jobs[0], replaced=own.weights).accuracies == own.accuracies
    nothing = {stage: torch.zeros_like(each) for stage, each in own.weights.items()}
    chance = compute_outputs(network, images, jobs[0], replaced=nothing).accuracies
    assert chance == {-1: 50.0, -2: 50.0}  # without any input, all images get one class


def test_images_without_a_known_object_are_an_error(jobs):
    objects = jobs[0].split.root.parent / "objects.csv"
    lines = objects.read_text().splitlines()
    objects.write_text("\n".join(line for line in lines if not line.startswith("val/")))
    with pytest.raises(DataError, match=r"objects\.csv has no 'val/"):
        ValidationImages.of(jobs[0])


def test_other_seeds_are_pilot_seeds():
    study = declared()
    assert not is_pilot(study, [0, 1])
    assert is_pilot(study, [100])
    with pytest.raises(UsageError, match="1 belong to the study and others do not"):
        is_pilot(study, [1, 100])


@pytest.mark.parametrize("name", study_names())
def test_shipped_measurements_agree_with_their_records(name):
    """Octaves are equally frequent, so that their mean is the accuracy of the record; a tie may differ.

    The measures of detectors are the metrics of their records.
    """
    folder = shipped_study(name)
    if not folder.has_study:
        pytest.skip("has no results")
    judged = judged_in(folder)
    assert judged.is_complete
    records = {record.spec_digest: record for record in records_of(folder.path)}
    for each in judged.measurements:
        metrics = records[each.spec_digest].metrics
        if judged.study.task == "detection":
            assert each.values == metrics
        else:
            assert each.values["octave_top1_pct"] == pytest.approx(metrics["top1_pct"], abs=0.2)


def test_shipped_studies_have_data_recipes_and_networks():
    shipped = [load_study(name) for name in study_names()]
    assert {each.name for each in shipped} == {"depth-scale", "depth-scale-mini", "depth-scale-detection"}
    for study in shipped:
        recipe, plan = recipe_of(study), plan_of(study.data)
        assert len(study.seeds) >= 6
        if study.task == "detection":
            assert (plan.total, len(plan.category_ids)) == (4000, 10)
        else:
            assert len(plan.categories) == len(study.data.classes)
            assert recipe.resolution <= study.data.image_size


def test_trainings_are_measured_once_and_repeated_only_if_their_weights_are_lost(jobs, tmp_path, monkeypatch):
    """A process can be killed between training and measuring."""
    suite = StudySuite(jobs, tmp_path / "out", frozen=frozen(load_study("tiny")))
    [first, _] = jobs
    folder = train(first, suite.output)
    suite.store.append(evaluate_training(first, folder, suite.output))
    assert (suite.unmeasured(), suite.remaining(suite.done())) == ([first], [jobs[1]])
    (folder / "model.safetensors").rename(tmp_path / "lost")
    assert (suite.unmeasured(), suite.remaining(suite.done())) == ([], jobs)
    (tmp_path / "lost").rename(folder / "model.safetensors")
    suite.measure(suite.unmeasured(), "cpu", lambda images: None)
    assert not (folder / "model.safetensors").exists()
    assert (suite.unmeasured(), suite.remaining(suite.done())) == ([], [jobs[1]])
    (tmp_path / "lost").write_bytes(b"")  # as after an interruption between measuring and deleting
    (tmp_path / "lost").rename(folder / "model.safetensors")
    suite._delete_weights(first)
    assert not (folder / "model.safetensors").exists()
    monkeypatch.setattr("sdabench.files.LOCK_TIMEOUT", 0.05)
    with folder_lock(suite.output, "run"), pytest.raises(RefusedError, match="another run is writing to"):
        suite.measure([first], "cpu", lambda images: None)
    suite.measure([first], "cpu", lambda images: None)  # measured by another run in the meantime
    [measured] = suite.folder.measurements(suite.frozen.sha256)
    assert (measured.arm, measured.spec_digest) == ("learned", first.spec.spec_digest)
