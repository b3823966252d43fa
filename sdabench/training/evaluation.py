"""Evaluation of one network, from image files to records."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sdabench.errors import DataError, OutputError
from sdabench.hashing import sha256_of_file
from sdabench.records.environment import environment, git_revision
from sdabench.records.record import RANDOM, TRAINED_HERE, Record, Weights
from sdabench.training.distributed import world
from sdabench.training.jobs import EvaluationJob, TrainingJob
from sdabench.training.memory import measuring_memory
from sdabench.training.partial_evaluation import PartialEvaluation
from sdabench.training.precision import strict_fp32
from sdabench.training.prediction import FittingBatch, predict
from sdabench.training.run_folder import read_run
from sdabench.training.tasks import engine_of
from sdabench.weights import load_weights


def prepare_network(job: EvaluationJob) -> tuple[nn.Module, Weights]:
    """The network with the weights of a file, or without one with random ones that the seed decides."""
    torch.manual_seed(job.seed)
    network = engine_of(job.task).build(job)
    if job.weights is None:
        return network, Weights(source=RANDOM, sha256=_sha256_of_state(network))
    load_weights(network, job.weights.path)
    return network, Weights(source=job.weights.source, sha256=sha256_of_file(job.weights.path))


def evaluate(
    job: EvaluationJob,
    output: Path,
    advance: Callable[[int], None] = lambda images: None,
    **provenance: Any,
) -> list[Record]:
    """Evaluates one network on every image once, and keeps its per-image predictions under ``output``.

    Args:
        advance: called with the number of images just done.
        provenance: what the records should say of the training behind the weights.

    Returns:
        A record for each task of the network; of several processes the first one has them, the others none.

    Raises:
        Stopped: a signal asked for it; the same evaluation goes on where it was.
        DataError: an image cannot be decoded, or a generated dataset is not what was made.
        WeightsError: the checkpoint does not fit.
        SdabenchError: the network's outputs are not finite, or a file cannot be written.
    """
    device, here = torch.device(job.machine.device), world()
    folder = here.on_rank_zero(lambda: predictions_folder(output))
    network, weights = prepare_network(job)
    started = time.perf_counter()
    name = f"{job.model}-{job.record(job.tasks[0], weights, **provenance).question[:12]}"
    fitting = FittingBatch(job.batch_size)
    with strict_fp32(device, job.machine.deterministic), measuring_memory(device) as memory:
        conditions = environment(device)
        same = {key: conditions[key] for key in ("device", "threads", "deterministic", "packages")}
        unfinished = PartialEvaluation(folder / f".{name}.unfinished", same | {"batch_size": job.batch_size})
        predictions = predict(network, job, device, advance, fitting, unfinished)
        conditions["processes"] = here.size
    fitted = min(here.all_gather(fitting.size))
    if predictions is None:
        return []
    if job.task == "detection":
        conditions["evaluator"] = job.machine.evaluator
    dataset = job.split.describe(predictions.sha256)
    if job.split.fingerprint_sha256 not in (None, dataset.fingerprint_sha256):
        raise DataError(f"the images in {job.split.root} are not those that were made; make them anew")
    measured = provenance | {"dataset": dataset}
    path = predictions.write(folder / name)
    unfinished.delete()
    of_tasks = predictions.measured()
    seconds = round(time.perf_counter() - started, 3)
    return [
        job.record(
            task,
            weights,
            **measured,
            metrics=of_tasks[task].metrics,
            standard_errors=of_tasks[task].standard_errors,
            samples=len(job.split.items),
            fitted_batch_size=fitted if fitted < job.batch_size else None,
            predictions=path.relative_to(output).as_posix(),
            environment=conditions,
            git_revision=git_revision(),
            wall_seconds=seconds,
            peak_memory_bytes=memory(),
        )
        for task in job.tasks
    ]


def evaluate_training(
    job: TrainingJob, folder: Path, output: Path, advance: Callable[[int], None] = lambda images: None
) -> list[Record]:
    """The records of a training that is done: its weights evaluated, each metric with those it is given.

    Args:
        folder: of the training, as :func:`sdabench.training.loop.train` returns it.
        output: gets the predictions.
    """
    run = read_run(folder)
    of_file = {
        name: evaluate(job.evaluation(folder / name), output, advance, **run.provenance)
        for name in dict.fromkeys(run.weights.values())
    }
    records = []
    for index, first in enumerate(next(iter(of_file.values()))):
        of_metric = {metric: of_file[name][index] for metric, name in run.weights.items()}
        taken = {
            field: {
                metric: getattr(record, field)[metric]
                for metric, record in of_metric.items()
                if metric in getattr(record, field)
            }
            for field in ("metrics", "standard_errors")
        }
        weights = first.weights.model_copy(update={"source": TRAINED_HERE})
        records.append(first.model_copy(update={**taken, "weights": weights}))
    return records


def predictions_folder(output: Path) -> Path:
    """The folder for predictions, made before anything is computed that could not be kept."""
    folder = output / "predictions"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}; name another --output") from None
    return folder


def _sha256_of_state(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
