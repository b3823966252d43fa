"""Evaluate real JPEG files and compare with a plain loop."""

import csv
import gzip
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from sdabench import create_model
from sdabench.data.imagenet import read_imagenet
from sdabench.data.source import DataSource
from sdabench.errors import DataError, NothingMeasuredError, SdabenchError, UsageError
from sdabench.records.spec import protocol_at
from sdabench.report.summary import describe_metrics
from sdabench.training.evaluation import evaluate
from sdabench.training.job import Machine, evaluation_job
from sdabench.training.prediction import FittingBatch, predict
from sdabench.training.tasks import classification
from sdabench.training.tasks.classification import Classification
from sdabench.weights.local import LocalWeights

CPU = torch.device("cpu")


def make_job(
    imagenet, model="resnet50", workers=0, batch_size=4, resolution=64, weights=None, seed=0, **protocol
):
    machine = Machine(workers=workers, batch_size=batch_size)
    source, protocol = DataSource("imagenet", imagenet), protocol_at(resolution, "classification", **protocol)
    split = read_imagenet(imagenet)
    return evaluation_job(model, source, split, weights, machine=machine, protocol=protocol, seed=seed)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return create_model("resnet50").eval()


def logits_by_hand(network, path):
    image = functional.center_crop(functional.resize(Image.open(path).convert("RGB"), 73), 64)
    pixels = functional.to_tensor(image)
    x = (pixels - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    with torch.inference_mode():
        return network(x[None])[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_predictions_match_a_plain_loop(imagenet, network, workers):
    job = make_job(imagenet, workers=workers)
    progress = []
    predictions = predict(network, job, CPU, progress.append).classes
    assert sum(progress) == 6
    for index, item in enumerate(job.split.items):
        logits = logits_by_hand(network, job.split.root / item.path)
        assert predictions.top5[index].tolist() == logits.topk(5).indices.tolist()
        expected = logits.softmax(dim=0)[item.label].item()
        assert predictions.label_probability[index].item() == pytest.approx(expected, rel=1e-3)
        first, second = logits.softmax(dim=0).topk(2).values.tolist()
        assert predictions.top1_probability[index].item() == pytest.approx(first, rel=1e-3)
        assert predictions.margin[index].item() == pytest.approx(first - second, rel=1e-2)


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"channels_last": True}])
def test_precision_and_memory_format_barely_change_outputs(imagenet, network, options):
    exact = predict(network, make_job(imagenet), CPU).classes.label_probability
    other = predict(network, make_job(imagenet, **options), CPU).classes.label_probability
    assert np.allclose(np.log(exact), np.log(other), atol=0.5 if "precision" in options else 1e-3)


def test_record_describes_the_measurement(imagenet, tmp_path):
    [record] = evaluate(make_job(imagenet), tmp_path)
    assert record.samples == 6
    assert record.metrics.keys() == {"top1_pct", "top5_pct"}
    assert record.weights.source == "random"
    assert not record.comparable
    assert len(record.dataset.fingerprint_sha256) == 64
    assert record.environment["packages"]["torch"]
    assert record.peak_memory_bytes > 0
    with gzip.open(tmp_path / record.predictions, "rt", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["label"]) for row in rows] == [0, 0, 300, 300, 600, 600]
    hits = [row["label"] == row["top1"] for row in rows]
    assert record.metrics["top1_pct"] == pytest.approx(100 * sum(hits) / 6)


def test_metrics_come_from_the_given_weights(imagenet, tmp_path):
    """A classifier that always predicts class 300 is correct on exactly two of six images."""
    network = create_model("resnet50")
    torch.nn.init.zeros_(network.fc.weight)
    network.fc.bias.data = torch.arange(1000.0).eq(300).float()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    [record] = evaluate(make_job(imagenet, weights=LocalWeights.of_file(tmp_path / "w.pth")), tmp_path)
    assert record.metrics["top1_pct"] == pytest.approx(100 / 3)
    assert record.weights.source == str(tmp_path / "w.pth")
    assert len(record.weights.sha256) == 64


def test_record_names_the_entry_of_the_weights(imagenet, tmp_path, network):
    best = network.state_dict()
    last = {key: tensor + 1 for key, tensor in best.items()}
    torch.save({"state_dict": last, "best": {"model": best}}, tmp_path / "w.pth")
    weights = LocalWeights.of_file(tmp_path / "w.pth")
    with pytest.raises(UsageError, match="under 'state_dict' and 'best.model'"):
        evaluate(make_job(imagenet, weights=weights), tmp_path)
    jobs = [make_job(imagenet, weights=replace(weights, wrapper=key)) for key in ("best", "state_dict")]
    [record] = evaluate(jobs[0], tmp_path)
    assert (record.weights.wrapper, record.weights.entry) == ("best", "best.model")
    assert len({job.spec.spec_digest for job in jobs}) == 2
    torch.save({"state_dict": best}, tmp_path / "w.pth")
    job = make_job(imagenet, weights=weights)
    [record] = evaluate(job, tmp_path)
    assert (record.weights.wrapper, record.weights.entry) == (None, "state_dict")
    assert record.spec_digest == job.spec.spec_digest


def test_unwritable_output_fails_before_evaluation(imagenet, tmp_path):
    (tmp_path / "predictions").write_text("")
    job = make_job(imagenet)
    with pytest.raises(SdabenchError, match="cannot write .*predictions"):
        evaluate(replace(job, spec=job.spec.with_values(model="no_such_network")), tmp_path)


def test_random_weights_depend_on_seed(imagenet, tmp_path):
    digests = [
        evaluate(make_job(imagenet, resolution=32, seed=seed), tmp_path)[0].weights.sha256
        for seed in (0, 0, 1)
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_image_stops_evaluation_with_its_path(imagenet, network, workers):
    broken_image = sorted(imagenet.rglob("*.JPEG"))[3]
    broken_image.write_bytes(broken_image.read_bytes()[:200])
    with pytest.raises(DataError, match=broken_image.name) as caught:
        predict(network, make_job(imagenet, workers=workers), CPU)
    assert "\n" not in str(caught.value)


def test_non_finite_outputs_are_an_error(imagenet):
    network = create_model("resnet50")
    network.fc.bias.data[5] = float("nan")
    with pytest.raises(SdabenchError, match="not finite"):
        predict(network, make_job(imagenet), CPU)


class LimitedMemory:
    """A forward hook that raises an error for batches above a limit, as if memory ran out."""

    def __init__(self, limit, error):
        self.limit, self.error, self.sizes = limit, error, []

    def __call__(self, module, inputs):
        self.sizes.append(len(inputs[0]))
        if len(inputs[0]) > self.limit:
            raise self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if"),
    ],
)
def test_batch_is_halved_until_it_fits_in_memory(imagenet, network, error):
    expected = predict(network, make_job(imagenet, batch_size=1), CPU).classes
    memory, fitting = LimitedMemory(2, error), FittingBatch(6)
    hook = network.register_forward_pre_hook(memory)
    try:
        predictions = predict(network, make_job(imagenet, batch_size=6), CPU, fitting=fitting).classes
    finally:
        hook.remove()
    assert memory.sizes == [6, 3, 2, 2, 2]
    assert fitting.size == 2
    assert np.array_equal(predictions.top5, expected.top5)
    assert np.allclose(predictions.label_probability, expected.label_probability, rtol=1e-4)


def test_fitted_batch_size_is_recorded(imagenet, tmp_path, monkeypatch):
    build = Classification.build

    def build_with_limited_memory(self, job):
        built = build(self, job)
        built.register_forward_pre_hook(LimitedMemory(3, MemoryError()))
        return built

    monkeypatch.setattr(Classification, "build", build_with_limited_memory)
    [record] = evaluate(make_job(imagenet, batch_size=6), tmp_path)
    assert (record.batch_size, record.fitted_batch_size) == (6, 3)
    assert "batch size reduced from 6 to 3 to fit into memory" in describe_metrics(record)


def test_single_image_out_of_memory_and_other_errors_are_raised(imagenet, network):
    for limit, error, sizes in ((0, MemoryError("none"), [4, 2, 1]), (0, RuntimeError("a bug"), [4])):
        memory = LimitedMemory(limit, error)
        hook = network.register_forward_pre_hook(memory)
        try:
            with pytest.raises(type(error), match=str(error)):
                predict(network, make_job(imagenet), CPU)
        finally:
            hook.remove()
        assert memory.sizes == sizes


def test_large_batch_is_split_on_cpu(imagenet, network, monkeypatch):
    engine, job = Classification(), make_job(imagenet)
    images = engine.evaluation_images(job)
    batch = engine.batch_of([images[index] for index in range(4)], []).to(CPU, torch.contiguous_format)
    batch_sizes = []
    hook = network.register_forward_pre_hook(lambda module, inputs: batch_sizes.append(len(inputs[0])))
    with torch.inference_mode():
        expected = engine.outputs(network, batch, job)
        monkeypatch.setattr(classification, "PIXELS_AT_ONCE", 3 * 64 * 64)
        outputs = engine.outputs(network, batch, job)
    hook.remove()
    assert batch_sizes == [4, 3, 1]
    for (classes, *probabilities), (expected_classes, *others) in zip(outputs, expected, strict=True):
        assert classes == expected_classes
        assert probabilities == pytest.approx(others, rel=1e-3)


def truncated(folder, *numbers):
    """Truncate some images; return their paths and contents."""
    files = sorted(folder.rglob("*.JPEG"))
    before = {files[number]: files[number].read_bytes() for number in numbers}
    for path, data in before.items():
        path.write_bytes(data[: len(data) // 2])
    return before


@pytest.mark.parametrize("workers", [0, 1])
def test_predictions_are_kept_when_images_are_broken(imagenet, tmp_path, workers):
    """A repaired file has another size, and its batch alone is predicted again."""
    [expected] = evaluate(make_job(imagenet, batch_size=2), tmp_path / "whole")
    broken = truncated(imagenet, 2, 5)
    with pytest.raises(DataError, match="2 broken images: .*rerun the same command") as caught:
        evaluate(make_job(imagenet, batch_size=2, workers=workers), tmp_path)
    for path in broken:
        assert str(path) in str(caught.value)
    first, last = broken
    first.write_bytes(broken[first])
    with pytest.raises(DataError, match=f"{last} cannot be decoded"):
        evaluate(make_job(imagenet, batch_size=2, workers=workers), tmp_path)
    last.write_bytes(broken[last])
    progress = []
    [record] = evaluate(make_job(imagenet, batch_size=2), tmp_path, progress.append)
    assert progress == [4, 2]  # the kept predictions, and the batch of the last image
    assert (record.metrics, record.dataset) == (expected.metrics, expected.dataset)
    assert (tmp_path / record.predictions).read_bytes() == (
        tmp_path / "whole" / expected.predictions
    ).read_bytes()
    assert len(list((tmp_path / "predictions").iterdir())) == 1


def test_kept_prediction_of_a_changed_file_is_not_used(imagenet, tmp_path):
    broken = truncated(imagenet, 5)
    with pytest.raises(DataError):
        evaluate(make_job(imagenet, batch_size=2), tmp_path)
    [(path, data)] = broken.items()
    path.write_bytes(data)
    with sorted(imagenet.rglob("*.JPEG"))[0].open("ab") as file:
        file.write(b"\0")
    progress = []
    evaluate(make_job(imagenet, batch_size=2), tmp_path, progress.append)
    assert progress == [2, 2, 2]


@pytest.mark.parametrize("broken", [(2,), (2, 3, 5)], ids=["one", "a whole batch and one"])
def test_skipped_images_are_recorded_and_not_comparable(imagenet, tmp_path, broken):
    paths = truncated(imagenet, *broken)
    job = replace(make_job(imagenet, batch_size=2), skip_broken=True)
    [record] = evaluate(replace(job, split=replace(job.split, complete=True)), tmp_path)
    assert record.dataset.skipped == tuple(f"{path.parent.name}/{path.name}" for path in paths)
    assert record.samples == record.dataset.samples == 6 - len(broken)
    assert not record.dataset.complete
    assert record.spec_digest == job.spec.spec_digest
    with gzip.open(tmp_path / record.predictions, "rt", newline="") as lines:
        assert len(list(csv.DictReader(lines))) == record.samples
    assert f"without {len(broken)} broken image" in describe_metrics(record)
    for path in paths:
        path.unlink()
    [same] = evaluate(make_job(imagenet, batch_size=1), tmp_path / "without")
    assert same.metrics == record.metrics
    assert same.dataset.fingerprint_sha256 == record.dataset.fingerprint_sha256


def test_nothing_is_measured_if_every_image_is_skipped(imagenet, tmp_path):
    truncated(imagenet, *range(6))
    with pytest.raises(NothingMeasuredError, match="every image is broken: 6 broken images"):
        evaluate(replace(make_job(imagenet, batch_size=4), skip_broken=True), tmp_path)
