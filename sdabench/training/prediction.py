"""A network's outputs for all images of a split: each image once, by as many processes as there are."""

import time
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass
from math import ceil
from operator import attrgetter
from typing import Any

import torch
from torch import nn

from sdabench.errors import DataError, SdabenchError
from sdabench.training.distributed import world
from sdabench.training.jobs import EvaluationJob
from sdabench.training.memory import is_out_of_memory
from sdabench.training.partial_evaluation import Answer, PartialEvaluation
from sdabench.training.signals import Stopped, stop_requests
from sdabench.training.tasks import AnyBatch, Predictions, engine_of, load


@dataclass
class FittingBatch:
    """How many images at a time the memory allows: half as many, whenever it does not."""

    size: int

    def outputs(self, batch: AnyBatch, of_part: Callable[[Any], list[Any]]) -> list[Any]:
        """What ``of_part`` says of each image, computed in parts that fit."""
        while True:
            try:
                parts = batch.parts(ceil(len(batch) / self.size))
                return [output for part in parts for output in of_part(part)]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.size == 1:
                    raise
            self.size = ceil(min(self.size, len(batch)) / 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


@dataclass(frozen=True)
class _Turn:
    """What a process has done in its turn."""

    images: int
    error: SdabenchError | None
    stop: bool  # it was asked to
    save: bool  # it is time to


def predict(
    network: nn.Module,
    job: EvaluationJob,
    device: torch.device,
    advance: Callable[[int], None] = lambda images: None,
    fitting: FittingBatch | None = None,
    unfinished: PartialEvaluation | None = None,
) -> Predictions | None:
    """Runs the network over all images, in evaluation mode. Batches are the same whoever computes them.

    Args:
        advance: called with the number of images just done.
        fitting: learns how many images at a time the memory allows.
        unfinished: what was done before is taken from there, and what is done is left there.

    Returns:
        The predictions in the first process; None in the others.

    Raises:
        Stopped: a signal asked for it.
        DataError: an image cannot be decoded.
        SdabenchError: the network's outputs are not finite.
    """
    here, engine, fitting = world(), engine_of(job.task), fitting or FittingBatch(job.batch_size)
    layout = torch.channels_last if job.channels_last else torch.contiguous_format
    network = network.eval().to(device, memory_format=layout)  # type: ignore[call-overload]
    images = engine.evaluation_images(job)
    answers = here.on_rank_zero(unfinished.read) if unfinished else []
    if answers:
        advance(len(answers))
    left = batches_without({answer.index for answer in answers}, len(job.split.items), job.batch_size)
    own = left[here.rank :: here.size]
    pin = device.type == "cuda"
    batches = load(images, engine.batch_of, job.machine.workers, pin, batch_sampler=own)
    if not here.first:
        answers = []  # the first process has them

    @torch.inference_mode()
    def of_part(part: AnyBatch) -> list[Any]:
        return engine.outputs(network, part.to(device, layout), job)

    def take_turn() -> tuple[int, SdabenchError | None]:
        batch = next(batches, None)
        if batch is None or isinstance(batch, DataError):
            return 0, batch
        try:
            outputs = fitting.outputs(batch, of_part)
        except SdabenchError as error:
            return 0, error
        answers.extend(map(Answer, batch.indices, batch.sha256, outputs))
        return len(batch), None

    with stop_requests() as stop_asked, closing(batches):
        saved = time.monotonic()
        for done in range(here.size, len(left) + here.size, here.size):
            result = take_turn()
            time_to_save = time.monotonic() - saved > job.machine.checkpoint_seconds
            of_all = here.all_gather(_Turn(*result, stop_asked(), time_to_save))
            here.raise_any([turn.error for turn in of_all])
            advance(sum(turn.images for turn in of_all))
            stop = done < len(left) and any(turn.stop for turn in of_all)
            if unfinished is not None and (stop or of_all[0].save):
                so_far = here.gather(answers)
                here.on_rank_zero(lambda kept=so_far: unfinished.write(_joined(kept)))  # type: ignore[misc]
                saved = time.monotonic()
            if stop:
                raise Stopped
    gathered = here.gather(answers)
    if gathered is None:
        return None
    answers = _joined(gathered)
    every = range(len(job.split.items))
    assert [answer.index for answer in answers] == list(every), "every image is evaluated once"
    return engine.predictions(job, [each.output for each in answers], [each.sha256 for each in answers])


def batches_without(done: Collection[int], images: int, batch_size: int) -> list[list[int]]:
    """The indices of all images in batches, without those batches that are done."""
    batches = [list(range(start, min(start + batch_size, images))) for start in range(0, images, batch_size)]
    return [batch for batch in batches if not set(batch) <= set(done)]


def _joined(of_all: list[list[Answer]]) -> list[Answer]:
    return sorted((answer for own in of_all for answer in own), key=attrgetter("index"))
