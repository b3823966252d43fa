"""Predict all images of a split, each once, divided among ranks; interrupted predictions resume."""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from math import ceil
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from pydantic_core import to_json
from torch import nn

from sdabench.data.images import BrokenImagesError
from sdabench.data.shard_order import reading_order
from sdabench.errors import DataError, NothingMeasuredError, SdabenchError
from sdabench.files import atomic_gzip_write, read_decompressed
from sdabench.json_files import parse_json
from sdabench.training.compilation import compile_network, compiler_errors
from sdabench.training.device_errors import may_be_out_of_memory
from sdabench.training.distributed import Report, world
from sdabench.training.job import AnyJob
from sdabench.training.prefetch import Prefetcher
from sdabench.training.signals import Stopped, stop_requests
from sdabench.training.tasks import AnyBatch, Predictions, load_batches, task_of


@dataclass(frozen=True)
class Prediction:
    """A network's output for one image of the listing, and the sha256 of that image's file."""

    index: int
    sha256: str
    output: Any


@dataclass(frozen=True)
class PartialEvaluation:
    """The file with the predictions of an interrupted evaluation.

    They are used only under the same conditions, because another batch size, device or version changes the
    last bits of an output, and only for files of the same size: ``sizes`` are those of all images in bytes.
    """

    path: Path
    conditions: dict[str, Any]
    sizes: Sequence[int]

    def read(self) -> list[Prediction]:
        """Read the predictions; return none if the file is missing or damaged, or if conditions differ."""
        try:
            data = parse_json(read_decompressed(self.path, "predictions"))
            if data["conditions"] == self.conditions:
                rows = [(Prediction(*values), size) for *values, size in data["predictions"]]
                return [each for each, size in rows if self.sizes[each.index] == size]
        except (SdabenchError, OSError, ValueError, TypeError, KeyError, IndexError):
            pass
        return []

    def write(self, predictions: list[Prediction]) -> None:
        rows = [(each.index, each.sha256, each.output, self.sizes[each.index]) for each in predictions]
        with atomic_gzip_write(self.path) as file:  # whose checksum shows damage
            file.write(to_json({"conditions": self.conditions, "predictions": rows}))


@dataclass
class FittingBatch:
    """The number of images per micro-batch, halved whenever the memory is exhausted."""

    size: int

    def outputs(
        self,
        batch: AnyBatch,
        outputs_of: Callable[[Any], list[Any]],
        release: Callable[[], None] = lambda: None,
    ) -> list[Any]:
        """Compute the outputs of a batch; call ``release`` to free memory before a smaller micro-batch."""
        while True:
            try:
                micro_batches = batch.micro_batches(ceil(len(batch) / self.size))
                return [output for micro_batch in micro_batches for output in outputs_of(micro_batch)]
            except (RuntimeError, MemoryError) as error:
                if not may_be_out_of_memory(error) or self.size == 1:
                    raise
            self.size = ceil(min(self.size, len(batch)) / 2)
            release()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def predict(
    network: nn.Module,
    job: AnyJob,
    device: torch.device,
    advance: Callable[[int], None] = lambda images: None,
    fitting: FittingBatch | None = None,
    partial: PartialEvaluation | None = None,
) -> Predictions | None:
    """Run the network on all images in evaluation mode; return the predictions in the main process.

    Batches do not depend on the world size. ``fitting`` is reduced to the number of images that fit into
    memory. ``partial`` stores predictions at times, after a signal and if images are broken, so that another
    call can resume. A batch with a broken image is left out, or only that image if the job skips them.

    Raises:
        Stopped: a signal requested it.
        DataError: images cannot be decoded, and the job does not skip them; all others were predicted.
        NothingMeasuredError: all images were skipped.
        SdabenchError: an output is not finite.
    """
    here = world()
    predicted = here.on_rank_zero(partial.read) if partial else []
    remaining = batches_without(
        {each.index for each in predicted}, len(job.split.items), job.batch_size, [*reading_order(job.split)]
    )
    again = {index for batch in remaining for index in batch}  # also of a batch with a broken image
    predicted = [each for each in predicted if each.index not in again]
    if predicted:
        advance(len(predicted))
    # Only the main process returns the predictions of the earlier call.
    predictor = _Predictor(network, job, device, fitting, partial, predicted if here.is_main else [])
    predictor.take_turns(remaining, advance)
    predictor.report_broken()
    of_ranks = here.gather(predictor.predicted)
    return None if of_ranks is None else _predictions(job, _sorted(of_ranks))


class _Predictor:
    """The share of one rank in the predictions of all images."""

    def __init__(
        self,
        network: nn.Module,
        job: AnyJob,
        device: torch.device,
        fitting: FittingBatch | None,
        partial: PartialEvaluation | None,
        predicted: list[Prediction],
    ) -> None:
        channels_last = job.spec.protocol.channels_last
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        network = network.eval().to(device, memory_format=self.layout)  # type: ignore[call-overload]
        self.network = compile_network(network) if job.machine.compile else network
        self.job, self.device, self.partial, self.predicted = job, device, partial, predicted
        self.fitting = fitting or FittingBatch(job.batch_size)
        self.here, self.task = world(), task_of(job.spec.task)
        self.broken: list[str] = []

    def take_turns(self, remaining: Sequence[list[int]], advance: Callable[[int], None]) -> None:
        """Predict batches, one per rank in each turn; save between turns. Raise Stopped after a signal."""
        here, job = self.here, self.job
        batches = self.load(remaining[here.rank :: here.size])
        with stop_requests() as stop_requested, closing(batches):
            saved = time.monotonic()
            for position in range(here.size, len(remaining) + here.size, here.size):
                time_to_save = time.monotonic() - saved > job.machine.checkpoint_seconds
                is_last = position >= len(remaining)
                batch = next(batches, None)
                own = self.take_turn(batch, stop_requested() and not is_last, time_to_save, batches.release)
                reports = here.reports(own)
                advance(sum(report.images for report in reports))
                stop = any(report.stop for report in reports)
                if stop or reports[0].save:
                    self.save()
                    saved = time.monotonic()
                if stop:
                    raise Stopped

    def load(self, own: Sequence[list[int]]) -> Prefetcher:
        """Load the batches of this rank; copy whole batches to the device only if they fit into memory."""
        job, cuda = self.job, self.device.type == "cuda"
        images, batch_of, workers = self.task.evaluation_images(job), self.task.batch_of, job.machine.workers
        batches = load_batches(images, batch_of, workers, cuda, job.skip_broken, batch_sampler=own)
        return Prefetcher(batches, self.device, enabled=self.fitting.size >= job.batch_size)

    def take_turn(
        self,
        batch: AnyBatch | DataError | Stopped | None,
        stop: bool,
        save: bool,
        release: Callable[[], None],
    ) -> Report:
        """Predict a batch; None if the other ranks have one more."""
        if isinstance(batch, DataError):
            self.broken.extend(batch.args)
        if batch is None or isinstance(batch, DataError):
            return Report(0, None, stop, save)
        if isinstance(batch, Stopped):  # while this rank waited for a batch
            return Report(0, None, stop=True, save=save)
        try:
            outputs = self.fitting.outputs(batch, self.outputs_of, release)
        except SdabenchError as error:
            return Report(0, error, stop, save)
        self.predicted.extend(map(Prediction, batch.indices, batch.sha256, outputs))
        return Report(len(batch), None, stop, save)

    @torch.inference_mode()
    def outputs_of(self, micro_batch: AnyBatch) -> list[Any]:
        with compiler_errors(self.job.model, self.job.machine.compile):
            return self.task.outputs(self.network, micro_batch.to(self.device, self.layout), self.job)

    def save(self) -> None:
        """Store the predictions of all ranks, if the evaluation can be resumed."""
        partial = self.partial
        if partial is not None:
            so_far = self.here.gather(self.predicted)
            self.here.on_rank_zero(lambda: partial.write(_sorted(so_far or [])))

    def report_broken(self) -> None:
        """Raise the error of broken images on all ranks, unless the job skips them and others are left."""
        all_broken = sorted(message for own in self.here.all_gather(self.broken) for message in own)
        if not all_broken:
            return
        error = BrokenImagesError(*all_broken)
        if not self.job.skip_broken:
            self.save()
            kept = "; then rerun the same command, which keeps the other predictions" if self.partial else ""
            self.here.raise_everywhere(DataError(f"{error}{kept}"))
        if not any(self.here.all_gather(len(self.predicted))):
            self.here.raise_everywhere(NothingMeasuredError(f"every image is broken: {error}"))


def _predictions(job: AnyJob, predicted: list[Prediction]) -> Predictions:
    """Convert the predictions of all images, apart from those that the job skips, in their order."""
    indices, items = [each.index for each in predicted], job.split.items
    if len(indices) < len(items) and job.skip_broken:
        job = replace(job, split=job.split.select([items[index] for index in indices]))
    else:
        assert indices == list(range(len(items))), "one for each image"
    outputs, digests = [each.output for each in predicted], [each.sha256 for each in predicted]
    predictions: Predictions = task_of(job.spec.task).predictions(job, outputs, digests)
    return predictions


def batches_without(
    done: Collection[int], images: int, batch_size: int, order: Sequence[int] | None = None
) -> list[list[int]]:
    """List the indices of all images in batches, without completed batches; ``order`` is that of reading."""
    order = range(images) if order is None else order
    batches = [[*order[start : start + batch_size]] for start in range(0, images, batch_size)]
    return [batch for batch in batches if not set(batch) <= set(done)]


def _sorted(of_ranks: list[list[Prediction]]) -> list[Prediction]:
    return sorted((prediction for own in of_ranks for prediction in own), key=attrgetter("index"))
