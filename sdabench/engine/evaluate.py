"""Evaluation of one classification network, from image files to a record."""

import csv
import hashlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sdabench.data.folders import ImageSplit
from sdabench.data.images import Batch, EvaluationImages, collate
from sdabench.engine.arithmetic import autocast, exact_arithmetic, measuring_memory
from sdabench.engine.files import writing
from sdabench.engine.jobs import EvaluationJob, TrainingJob
from sdabench.engine.runs import read_run
from sdabench.engine.signals import leave_signals_to_the_parent
from sdabench.errors import DataError, OutputError, SdabenchError
from sdabench.evidence.environment import environment, git_revision
from sdabench.evidence.records import RANDOM, TRAINED_HERE, Record, Weights
from sdabench.hashing import sha256_of_file
from sdabench.metrics.topk import TopK
from sdabench.models.build import create_model
from sdabench.weights import load_weights


@dataclass(frozen=True)
class Predictions:
    """For each image of the listing: the five best classes, and the probability of the right one."""

    top5: Tensor  # (N, 5) int64
    label_probability: Tensor  # (N,) float32
    sha256: list[str]


def prepare_network(job: EvaluationJob) -> tuple[nn.Module, Weights]:
    """The network with the weights of a file, or without one with random ones that the seed decides."""
    torch.manual_seed(job.seed)
    network = create_model(job.model, num_classes=job.split.num_classes)
    if job.weights is None:
        return network, Weights(source=RANDOM, sha256=_sha256_of_state(network))
    load_weights(network, job.weights)
    return network, Weights(source=str(job.weights.resolve()), sha256=sha256_of_file(job.weights))


def evaluate(
    job: EvaluationJob,
    output: Path,
    advance: Callable[[int], None] = lambda images: None,
    **provenance: Any,
) -> Record:
    """Evaluates one network on every image once, and keeps its per-image predictions under ``output``.

    Args:
        advance: called with the number of images just done.
        provenance: what the record should say of the training behind the weights.

    Raises:
        DataError: an image cannot be decoded, or a generated dataset is not what was made.
        WeightsError: the checkpoint does not fit.
        SdabenchError: the network's outputs are not finite, or a file cannot be written.
    """
    device = torch.device(job.machine.device)
    folder = predictions_folder(output)
    network, weights = prepare_network(job)
    started = time.perf_counter()
    with exact_arithmetic(device), measuring_memory(device) as memory:
        predictions = predict(network, job, device, advance)
        conditions = environment(device)
    labels = torch.tensor([item.label for item in job.split.items])
    metric = TopK().update(predictions.top5, labels)
    dataset = job.split.describe(predictions.sha256)
    if job.split.fingerprint_sha256 not in (None, dataset.fingerprint_sha256):
        raise DataError(f"the images in {job.split.root} are not those that were made; make them anew")
    measured = provenance | {"dataset": dataset}
    question = job.record(weights, **measured).question
    path = write_predictions(folder / f"{job.model}-{question[:12]}.csv", job.split, predictions)
    return job.record(
        weights,
        **measured,
        metrics=metric.compute(),
        samples=metric.samples,
        predictions=path.relative_to(output).as_posix(),
        environment=conditions,
        git_revision=git_revision(),
        wall_seconds=round(time.perf_counter() - started, 3),
        peak_memory_bytes=memory(),
    )


def evaluate_training(
    job: TrainingJob, folder: Path, output: Path, advance: Callable[[int], None] = lambda images: None
) -> Record:
    """The record of a training that is done: its weights evaluated, each metric with those it is given.

    Args:
        folder: of the training, as :func:`sdabench.engine.train.train` returns it.
        output: gets the predictions.
    """
    run = read_run(folder)
    of_file: dict[str, Record] = {}
    for name in run.weights.values():
        if name not in of_file:
            of_file[name] = evaluate(job.evaluation(folder / name), output, advance, **run.provenance)
    first = next(iter(of_file.values()))
    metrics = {metric: of_file[name].metrics[metric] for metric, name in run.weights.items()}
    weights = first.weights.model_copy(update={"source": TRAINED_HERE})
    return first.model_copy(update={"metrics": metrics, "weights": weights})


def predict(
    network: nn.Module,
    job: EvaluationJob,
    device: torch.device,
    advance: Callable[[int], None] = lambda images: None,
) -> Predictions:
    """Runs the network over all images, in evaluation mode."""
    layout = torch.channels_last if job.channels_last else torch.contiguous_format
    network = network.eval().to(device, memory_format=layout)  # type: ignore[call-overload]
    count = len(job.split.items)
    top5 = torch.full((count, 5), -1)
    probability = torch.full((count,), float("nan"))
    sha256 = [""] * count
    seen: list[int] = []
    for batch in load_batches(job, pin=device.type == "cuda"):
        images = batch.images.to(device, memory_format=layout, non_blocking=True)
        with torch.inference_mode(), autocast(device, job.precision):
            logits = network(images).float()
        if not logits.isfinite().all():
            worst = int((~logits.isfinite().all(dim=1)).nonzero()[0, 0])
            path = job.split.items[batch.indices[worst]].path
            hint = "its weights are of no use" if job.precision == "fp32" else "try --amp off"
            raise SdabenchError(f"the network's output for {path} is not finite; {hint}")
        indices = torch.tensor(batch.indices)
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices.cpu()
        top5[indices, : best.shape[1]] = best
        probability[indices] = logits.softmax(dim=1).cpu().gather(1, batch.labels[:, None])[:, 0]
        for index, digest in zip(batch.indices, batch.sha256, strict=True):
            sha256[index] = digest
        seen += batch.indices
        advance(len(batch.indices))
    assert seen == list(range(count)), "every image is evaluated once"
    return Predictions(top5, probability, sha256)


def load_batches(job: EvaluationJob, pin: bool) -> Iterator[Batch]:
    """Every image once, in order, in batches; a broken file raises its error here."""
    loader: DataLoader[Any] = DataLoader(
        EvaluationImages(job.split, job.preprocessing),
        batch_size=job.batch_size,
        num_workers=job.machine.workers,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=leave_signals_to_the_parent,
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch


def predictions_folder(output: Path) -> Path:
    """The folder for predictions, made before anything is computed that could not be kept."""
    folder = output / "predictions"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}; name another --output") from None
    return folder


def write_predictions(path: Path, split: ImageSplit, predictions: Predictions) -> Path:
    """One line an image: path, label, its probability, and the five best classes."""
    with writing(path) as file:
        text = io.TextIOWrapper(file, newline="", errors="surrogateescape")
        writer = csv.writer(text)
        writer.writerow(["path", "label", "label_probability", *(f"top{rank}" for rank in range(1, 6))])
        rows = zip(split.items, predictions.label_probability, predictions.top5, strict=True)
        for item, probability, classes in rows:
            writer.writerow([item.path, item.label, f"{probability:.6g}", *classes.tolist()])
        text.detach()  # flushes, and leaves the file open
    return path


def _sha256_of_state(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
