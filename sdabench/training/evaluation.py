"""Evaluate one network, from image files to records."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sdabench.data.annotations import ID_ZERO
from sdabench.data.coco import CocoSplit
from sdabench.data.description import DatasetInfo
from sdabench.errors import DataError, WeightsError
from sdabench.hashing import sha256_of_file, sha256_of_lines
from sdabench.records.environment import environment, git_revision
from sdabench.records.network_source import source_of
from sdabench.records.record import Record
from sdabench.records.spec import Weights
from sdabench.records.store import RecordStore
from sdabench.training.distributed import world
from sdabench.training.job import AnyJob
from sdabench.training.memory import measuring_memory
from sdabench.training.precision import fp32_arithmetic
from sdabench.training.prediction import FittingBatch, PartialEvaluation, predict
from sdabench.training.run_folder import WEIGHTS, read_run
from sdabench.training.tasks import Predictions, task_of
from sdabench.weights.load import load_file

# Fields of the environment that can change the last bits of predictions.
CONDITIONS = ("device", "threads", "deterministic", "packages", "compiled")
OUTPUTS = 2  # increment when the outputs for an image change, so that partial evaluations are not resumed


def prepare_network(job: AnyJob) -> tuple[nn.Module, Weights]:
    """Build the network of a job with the weights of a file, or with random weights from the seed.

    Raises:
        WeightsError: the file does not fit the network or the classes, or has changed since the job was made.
    """
    _ = job.class_order  # other classes are reported rather than tensors of another shape
    torch.manual_seed(job.spec.seed)
    network = task_of(job.spec.task).build(job)
    weights: Weights = job.spec.weights
    if job.weights is None:
        return network, weights.model_copy(update={"sha256": _sha256_of_state(network)})
    entry = load_file(network, job.weights, weights.wrapper)
    digest = sha256_of_file(job.weights)
    if weights.sha256 not in (None, digest):
        raise WeightsError(f"{job.weights} has changed since the run started; run the command again")
    return network, weights.model_copy(update={"sha256": digest, "entry": entry})


def evaluate(job: AnyJob, output: Path, advance: Callable[[int], None] = lambda images: None) -> list[Record]:
    """Evaluate one network on every image once, and store its predictions under ``output``.

    Returns:
        A record for each task of the network in the main process, none in the others.

    Raises:
        Stopped: a signal requested it; the evaluation can be resumed.
        DataError: images cannot be decoded, and the job does not skip them; or a generated dataset has
            changed.
        WeightsError: the checkpoint does not fit.
        SdabenchError: the network's outputs are not finite, or a file cannot be written.
    """
    spec, device, here = job.spec, torch.device(job.machine.device), world()
    folder = here.on_rank_zero(RecordStore(output).predictions_folder)
    network, weights = prepare_network(job)
    started = time.perf_counter()
    best = job.weights is not None and spec.trains and job.weights.name != WEIGHTS
    suffix = f"-{job.weights.stem}" if best and job.weights else ""
    fitting = FittingBatch(job.batch_size)
    arithmetic = fp32_arithmetic(device, job.machine.deterministic, job.machine.tf32)
    with arithmetic, measuring_memory(device) as memory:
        conditions = environment(device, job.model, compiled=job.machine.compile)
        same = {key: conditions.get(key) for key in CONDITIONS}
        same |= {"batch_size": job.batch_size, "weights": weights.sha256}
        same |= {"tf32": True} if job.machine.tf32 else {}
        same |= {key: conditions[key] for key in ("depth_attention_kernels",) if key in conditions}
        partial = _partial_evaluation(job, folder, suffix, same)
        predictions = predict(network, job, device, advance, fitting, partial)
        conditions["processes"] = here.size
    fitted = min(here.all_gather(fitting.size))
    if predictions is None:
        return []
    conditions |= {field: getattr(job.machine, field) for field in task_of(spec.task).environment}
    if isinstance(job.split, CocoSplit) and job.split.has_id_zero:
        conditions["annotation_id_0"] = ID_ZERO
    dataset = _describe_evaluated(job, predictions)
    path = predictions.write(folder / f"{spec.name}{suffix}")
    partial.path.unlink(missing_ok=True)
    measured = predictions.measured()
    shared = {
        "weights": weights,
        "dataset": dataset,
        "samples": dataset.samples,
        "batch_size": job.batch_size,
        "fitted_batch_size": fitted if fitted < job.batch_size else None,
        "training": job.training,
        "predictions": path.relative_to(output).as_posix(),
        "predictions_sha256": sha256_of_file(path),
        "environment": conditions,
        "network_source": source_of(job.model, network.state_dict()),
        "git_revision": git_revision(),
        "wall_seconds": round(time.perf_counter() - started, 3),
        "peak_memory_bytes": memory(),
    }
    return [Record.of(spec, task, **measured[task]._asdict(), **shared) for task in spec.tasks]


def evaluate_training(
    job: AnyJob, folder: Path, output: Path, advance: Callable[[int], None] = lambda images: None
) -> list[Record]:
    """Evaluate the training in a folder, each metric with the weights selected for it; return records.

    Raises:
        WeightsError: a file of weights has changed since the training wrote it.
        Exception: see :func:`evaluate`.
    """
    here = world()
    run = here.on_rank_zero(lambda: read_run(folder))  # another machine may not see the folder
    here.on_rank_zero(lambda: run.check_weights(folder))
    for name in dict.fromkeys(run.weights.values()):
        here.share_file(folder / name, run.sha256.get(name))
    of_file = {
        name: evaluate(replace(job, weights=folder / name, training=run.training), output, advance)
        for name in dict.fromkeys(run.weights.values())
    }
    records = []
    for index, first in enumerate(next(iter(of_file.values()))):
        of_metric = {metric: of_file[name][index] for metric, name in run.weights.items()}
        chosen = {
            field: {
                metric: getattr(record, field)[metric]
                for metric, record in of_metric.items()
                if metric in getattr(record, field)
            }
            for field in ("metrics", "standard_errors")
        }
        records.append(first.model_copy(update=chosen))
    return records


def _partial_evaluation(
    job: AnyJob, folder: Path, suffix: str, conditions: dict[str, Any]
) -> PartialEvaluation:
    """Return the partial evaluation of a job, whose name does not depend on the sizes of the files.

    A repaired file can have another size; the other predictions are still valid.
    """
    items, spec = job.split.items, job.spec
    paths = spec.dataset.model_copy(update={"listing_sha256": sha256_of_lines(item.path for item in items)})
    conditions |= {"annotations": getattr(job.split, "annotations_sha256", None), "outputs": OUTPUTS}
    path = folder / f".{spec.with_values(dataset=paths).name}{suffix}.partial"
    return PartialEvaluation(path, conditions, [item.size for item in items])


def _describe_evaluated(job: AnyJob, predictions: Predictions) -> DatasetInfo:
    """Describe the evaluated images by the listing of all, and name the skipped ones."""
    dataset = predictions.split.describe(predictions.sha256)
    if job.split.fingerprint_sha256 not in (None, dataset.fingerprint_sha256):
        raise DataError(
            f"the images in {job.split.root} have changed since they were generated; generate them again"
        )
    if predictions.split is job.split:
        return dataset
    evaluated = {item.path for item in predictions.split.items}
    skipped = tuple(item.path for item in job.split.items if item.path not in evaluated)
    return dataset.model_copy(update={"listing_sha256": job.split.listing_sha256, "skipped": skipped})


def _sha256_of_state(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
