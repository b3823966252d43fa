"""Measure the trained networks of a study.

Those of classifiers: accuracy by octave, swapped depth weights and attention depth. Those of detectors are in
their records.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from sdabench.analysis.depth_weights import attention_depth, depth_slope, stage_depths
from sdabench.analysis.swapping import (
    Accuracies,
    accuracies_by_octave,
    mean_over_octaves,
    swap_depth_weights,
)
from sdabench.data.folders import ImageSplit
from sdabench.data.images import Batch
from sdabench.data.object_sizes import OBJECTS, read_objects
from sdabench.errors import DataError
from sdabench.models.depth_attention import recorded_depth_weights, replaced_depth_weights
from sdabench.records.environment import environment
from sdabench.records.record import Record
from sdabench.records.studies import Measurement
from sdabench.registry.studies import Study, of_octave
from sdabench.training.evaluation import prepare_network
from sdabench.training.job import AnyJob
from sdabench.training.precision import strict_fp32
from sdabench.training.run_folder import TRAININGS, read_run
from sdabench.training.signals import Stopped
from sdabench.training.tasks import AnyBatch, load_batches, task_of
from sdabench.training.trainer import Trainer, load_training_batches

STATISTICS_BATCHES = 16  # training batches from which an untrained network gets the statistics of batch norms
Advance = Callable[[int], None]


@dataclass(frozen=True)
class ValidationImages:
    """The decoded validation images of a job, with octave and size of the object in each."""

    batches: list[Batch]
    labels: Tensor  # (N,)
    octaves: Tensor  # (N,)
    sizes: Tensor  # (N,), as shares of the short side

    @classmethod
    def of(cls, job: AnyJob) -> "ValidationImages":
        """Read the images of a generated dataset; raise a DataError if one is broken or has no object."""
        split: ImageSplit = job.split
        objects = read_objects(split.root.parent / OBJECTS)
        try:
            drawn = [objects[f"{split.split}/{item.path}"] for item in split.items]
        except KeyError as error:
            raise DataError(
                f"{split.root.parent / OBJECTS} has no {error}; generate the dataset again"
            ) from None
        task, count = task_of("classification"), len(split.items)
        places = [
            list(range(first, min(first + job.batch_size, count)))
            for first in range(0, count, job.batch_size)
        ]
        batches = load_batches(task.evaluation_images(job), task.batch_of, 0, False, batch_sampler=places)
        return cls(
            batches=list(_sound(batches)),
            labels=torch.tensor([item.label for item in split.items]),
            octaves=torch.tensor([each.octave for each in drawn]),
            sizes=torch.tensor([each.size for each in drawn], dtype=torch.float64),
        )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Outputs:
    """What a network computes for all validation images; ``weights`` are (N, blocks, C) by stage."""

    accuracies: Accuracies
    weights: dict[str, Tensor]


def measure_training(
    job: AnyJob,
    study: Study,
    study_sha256: str,
    arm: str,
    output: Path,
    images: ValidationImages,
    advance: Advance,
) -> Measurement:
    """Measure the trained network of a job in its output folder.

    ``advance`` is called with the number of images just processed; see :func:`images_to_process`.

    Raises:
        WeightsError: the weights are not those that the training wrote.
    """
    started, device = time.perf_counter(), torch.device(job.machine.device)
    folder = output / TRAININGS / job.spec.name
    run = read_run(folder)
    run.check_weights(folder)
    job = replace(job, weights=folder / run.weights["top1_pct"])
    with strict_fp32(device, job.machine.deterministic):
        network, weights = prepare_network(job)
        network.to(device, memory_format=_layout(job)).eval()  # type: ignore[call-overload]
        values = dict(_values(network, job, study, images, advance))
        conditions = environment(device, job.model)
    return Measurement(
        study_sha256=study_sha256,
        arm=arm,
        model=job.model,
        seed=job.spec.seed,
        spec_digest=job.spec.spec_digest,
        weights_sha256=weights.sha256,
        images=len(images),
        values=values,
        environment=conditions,
        seconds=round(time.perf_counter() - started, 3),
    )


def recorded_measurement(record: Record, job: AnyJob, study_sha256: str, arm: str) -> Measurement:
    """Return the metrics in the record of a training as its measurement."""
    return Measurement(
        study_sha256=study_sha256,
        arm=arm,
        model=job.model,
        seed=job.spec.seed,
        spec_digest=job.spec.spec_digest,
        weights_sha256=record.weights.sha256,
        images=record.samples,
        values=record.metrics,
        environment=record.environment,
    )


def images_to_process(images: int, permutations: int, fused: bool) -> int:
    """Return how many images :func:`measure_training` processes at most, apart from training images."""
    return images * (2 + 2 * permutations if fused else 1)


def _values(
    network: nn.Module, job: AnyJob, study: Study, images: ValidationImages, advance: Advance
) -> Iterator[tuple[str, float]]:
    outputs = compute_outputs(network, images, job, advance)
    yield "octave_top1_pct", mean_over_octaves(outputs.accuracies)
    for octave, accuracy in outputs.accuracies.items():
        yield of_octave("top1_pct", octave), accuracy
    if not stage_depths(outputs.weights):
        return
    untrained = untrained_network(job)
    before = compute_outputs(untrained, images, job, advance).weights
    del untrained
    slopes = {
        name: depth_slope(attention_depth(weights), images.sizes).estimate
        for name, weights in (("trained", outputs.weights), ("untrained", before))
    }
    yield "depth_slope", slopes["trained"] - slopes["untrained"]
    for name, weights in (("trained", outputs.weights), ("untrained", before)):
        yield f"depth_slope_{name}", slopes[name]
        for stage, depths in stage_depths(weights).items():
            yield f"depth_slope_{name}/{stage}", depth_slope(depths, images.sizes).estimate
        depths = attention_depth(weights)
        for octave in outputs.accuracies:
            mean = float(depths[images.octaves == octave].mean())
            yield of_octave(f"attention_depth_{name}", octave), mean
    yield from _swapped(network, job, study, images, outputs, advance)


def _swapped(
    network: nn.Module,
    job: AnyJob,
    study: Study,
    images: ValidationImages,
    outputs: Outputs,
    advance: Advance,
) -> Iterator[tuple[str, float]]:
    """Yield the drops of accuracy with swapped weights: zero if all images have the same weights."""
    names = ("swap_drop_pct", "swap_within_drop_pct", "swap_across_drop_pct")
    if all(torch.equal(each, each[:1].expand_as(each)) for each in outputs.weights.values()):
        yield from dict.fromkeys(names, 0.0).items()
        return

    def classify(weights: Mapping[str, Tensor]) -> Accuracies:
        return compute_outputs(network, images, job, advance, weights).accuracies

    found = swap_depth_weights(
        outputs.weights, images.octaves, outputs.accuracies, classify, study.permutations
    )
    yield from zip(names, (found.drop_pct, found.within_drop_pct, found.across_drop_pct), strict=True)


@torch.inference_mode()
def compute_outputs(
    network: nn.Module,
    images: ValidationImages,
    job: AnyJob,
    advance: Advance = lambda images: None,
    replaced: Mapping[str, Tensor] | None = None,
) -> Outputs:
    """Classify all validation images, with ``replaced`` depth weights (N, blocks, C) if they are given."""
    device = torch.device(job.machine.device)
    layout = _layout(job)
    predicted: list[int] = []
    weights: dict[str, list[Tensor]] = {}
    for batch in images.batches:
        places = batch.indices
        given = {stage: each[places].to(device) for stage, each in (replaced or {}).items()}
        with replaced_depth_weights(network, given), recorded_depth_weights(network) as recorded:
            logits = network(batch.to(device, layout).images)
        predicted += logits.argmax(dim=1).tolist()
        for stage, each in recorded.items() if replaced is None else ():
            weights.setdefault(stage, []).append(each.cpu().clone())
        advance(len(batch))
    hits = torch.tensor(predicted) == images.labels
    joined = {stage: torch.cat(each) for stage, each in weights.items()}
    return Outputs(accuracies_by_octave(hits, images.octaves), joined)


def _layout(job: AnyJob) -> torch.memory_format:
    return torch.channels_last if job.spec.protocol.channels_last else torch.contiguous_format


def untrained_network(job: AnyJob) -> nn.Module:
    """Return the network as its training started, in evaluation mode.

    Its batch norms have the statistics of the first training batches: those of a network that never saw an
    image are no statistics of any.
    """
    trainer = Trainer(job.on(job.machine.model_copy(update={"workers": 0, "compile": False})))
    network = trainer.network
    with closing(load_training_batches(trainer)) as batches:
        some = (
            batch.to(trainer.device, trainer.layout) for batch in islice(_sound(batches), STATISTICS_BATCHES)
        )
        update_bn((batch.images for batch in some), network)
    return network.eval()


def _sound(batches: Iterable[AnyBatch | DataError | Stopped]) -> Iterator[Batch]:
    for batch in batches:
        if isinstance(batch, (DataError, Stopped)):
            raise batch
        assert isinstance(batch, Batch)
        yield batch
