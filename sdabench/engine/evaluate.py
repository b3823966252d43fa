"""Evaluation of one classification network, from image files to a record."""

import csv
import hashlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sdabench.data.imagenet import ImageNetSplit
from sdabench.data.images import Batch, EvaluationImages, collate
from sdabench.engine.settings import EvaluationSettings
from sdabench.errors import DataError, SdabenchError
from sdabench.evidence.environment import environment, git_revision
from sdabench.evidence.records import Record, Weights
from sdabench.hashing import sha256_of_file
from sdabench.metrics import TopK
from sdabench.models.build import create_model
from sdabench.weights import load_weights

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Predictions:
    """For each image of the listing: the five best classes, and the probability of the right one."""

    top5: Tensor  # (N, 5) int64
    label_probability: Tensor  # (N,) float32
    sha256: list[str]


def prepare_network(model: str, weights: Path | None, seed: int) -> tuple[nn.Module, Weights]:
    """The network with the weights of a file, or without one with random ones that the seed decides."""
    torch.manual_seed(seed)
    network = create_model(model)
    if weights is None:
        return network, Weights(source="random", sha256=_sha256_of_state(network))
    load_weights(network, weights)
    return network, Weights(source=str(weights.resolve()), sha256=sha256_of_file(weights))


def evaluate(
    model: str,
    split: ImageNetSplit,
    settings: EvaluationSettings,
    output: Path,
    advance: Callable[[int], None] = lambda images: None,
) -> Record:
    """Evaluates one network on every image once, and keeps its per-image predictions under ``output``.

    Args:
        advance: called with the number of images just done.

    Raises:
        DataError: an image cannot be decoded; the message has its path.
        WeightsError: the checkpoint does not fit.
        SdabenchError: the network's outputs are not finite, or a file cannot be written.
    """
    device = torch.device(settings.device)
    folder = predictions_folder(output)
    network, weights = prepare_network(model, settings.weights, settings.seed)
    started = time.perf_counter()
    with exact_arithmetic(device), measuring_memory(device) as memory:
        predictions = predict(network, split, settings, device, advance)
        conditions = environment(device)
    labels = torch.tensor([item.label for item in split.items])
    metric = TopK().update(predictions.top5, labels)
    dataset = split.describe(predictions.sha256)
    question = settings.record(model, dataset, weights).question
    path = write_predictions(folder / f"{model}-{question[:12]}.csv", split, predictions)
    return settings.record(
        model,
        dataset,
        weights,
        metrics=metric.compute(),
        samples=metric.samples,
        predictions=path.relative_to(output).as_posix(),
        environment=conditions,
        git_revision=git_revision(),
        wall_seconds=round(time.perf_counter() - started, 3),
        peak_memory_bytes=memory(),
    )


def predict(
    network: nn.Module,
    split: ImageNetSplit,
    settings: EvaluationSettings,
    device: torch.device,
    advance: Callable[[int], None] = lambda images: None,
) -> Predictions:
    """Runs the network over all images, in evaluation mode."""
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    network = network.eval().to(device, memory_format=layout)  # type: ignore[call-overload]
    count = len(split.items)
    top5 = torch.full((count, 5), -1)
    probability = torch.full((count,), float("nan"))
    sha256 = [""] * count
    seen: list[int] = []
    for batch in load_batches(split, settings, pin=device.type == "cuda"):
        images = batch.images.to(device, memory_format=layout, non_blocking=True)
        with torch.inference_mode(), _autocast(device, settings.precision):
            logits = network(images).float()
        if not logits.isfinite().all():
            worst = int((~logits.isfinite().all(dim=1)).nonzero()[0, 0])
            path = split.items[batch.indices[worst]].path
            raise SdabenchError(f"the network's output for {path} is not finite; try --amp off")
        indices = torch.tensor(batch.indices)
        top5[indices] = logits.topk(5, dim=1).indices.cpu()
        probability[indices] = logits.softmax(dim=1).cpu().gather(1, batch.labels[:, None])[:, 0]
        for index, digest in zip(batch.indices, batch.sha256, strict=True):
            sha256[index] = digest
        seen += batch.indices
        advance(len(batch.indices))
    assert seen == list(range(count)), "every image is evaluated once"
    return Predictions(top5, probability, sha256)


def load_batches(split: ImageNetSplit, settings: EvaluationSettings, pin: bool) -> Iterator[Batch]:
    """Every image once, in order, in batches; a broken file raises its error here."""
    loader: DataLoader[Any] = DataLoader(
        EvaluationImages(split, settings.preprocessing),
        batch_size=settings.batch_size,
        num_workers=settings.workers,
        collate_fn=collate,
        pin_memory=pin,
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
        raise SdabenchError(f"cannot write {folder}: {error.strerror}; name another --output") from None
    return folder


def write_predictions(path: Path, split: ImageNetSplit, predictions: Predictions) -> Path:
    """One line an image: path, label, its probability, and the five best classes."""
    beside = path.with_name(f"{path.name}.tmp")
    try:
        with beside.open("w", newline="", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "label_probability", *(f"top{rank}" for rank in range(1, 6))])
            rows = zip(split.items, predictions.label_probability, predictions.top5, strict=True)
            for item, probability, classes in rows:
                writer.writerow([item.path, item.label, f"{probability:.6g}", *classes.tolist()])
        beside.replace(path)
    except OSError as error:
        raise SdabenchError(f"cannot write {path}: {error.strerror}; name another --output") from None
    return path


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """float32 means float32: cuDNN may not use TF32 for convolutions, which it does by default."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def measuring_memory(device: torch.device) -> Iterator[Callable[[], int]]:
    """Yields a function that tells the peak memory in bytes: the device's, or on CPU the process's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device)
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        yield lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _sha256_of_state(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=AUTOCAST.get(precision), enabled=precision in AUTOCAST)
