"""Batches are prefetched to the device in the order and with the errors of the loader."""

import pytest
import torch

from sdabench.data.images import Batch
from sdabench.errors import DataError, SdabenchError
from sdabench.training import prefetch
from sdabench.training.job import Machine
from sdabench.training.prediction import FittingBatch, predict
from sdabench.training.prefetch import Prefetcher
from sdabench.training.signals import Stopped
from sdabench.training.trainer import Trainer, load_training_batches
from tests.helpers.stub_cuda.tensors import counted_events
from tests.helpers.training import classifier_job, detector_job, evaluation_job_for

CUDA = torch.device("cuda:1")
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
pytestmark = pytest.mark.usefixtures("stub")


def batch_of(value):
    pixels = torch.full((1, 2, 2, 3), value, dtype=torch.uint8).permute(0, 3, 1, 2)
    return Batch(pixels, torch.tensor([value]), [value], [""], []).pin_memory()


class Loader:
    """Yield the values, a batch for a number; raise an exception for a class."""

    def __init__(self, *values):
        self.values, self.taken, self.closed = values, 0, False

    def __call__(self):
        try:
            for value in self.values:
                self.taken += 1
                if isinstance(value, type):
                    raise value("of the loader")
                yield batch_of(value) if isinstance(value, int) else value
        finally:
            self.closed = True


def test_next_batch_is_on_the_device_before_it_is_used():
    loader = Loader(1, 2, 3)
    with counted_events() as events:
        batches = Prefetcher(loader(), CUDA)
        first = next(batches)
        copies = {kind for kind, _ in events}
    assert loader.taken == 2
    assert copies == {"pinned copy to the device"}  # and no operation, and no synchronization
    assert batches.next_batch.value.images.device == CUDA
    assert (first.images.device, first.labels.device, first.images.dtype) == (CUDA, CUDA, torch.uint8)
    assert [first.labels.item(), *(each.labels.item() for each in batches)] == [1, 2, 3]


def test_copies_are_on_another_stream_that_the_current_one_waits_for(monkeypatch):
    streams, waits = [], []
    move = prefetch.move
    monkeypatch.setattr(
        prefetch, "move", lambda *a, **k: (streams.append(torch.cuda.current_stream(CUDA)), move(*a, **k))[1]
    )
    monkeypatch.setattr(torch.cuda.Stream, "wait_event", lambda stream, event: waits.append(stream))
    list(Prefetcher(Loader(1, 2)(), CUDA))
    current = torch.cuda.current_stream(CUDA)
    assert len(streams) == 4  # images and labels of two batches
    assert current not in streams
    assert waits == [current] * 2


def test_errors_come_after_the_batches_before_them():
    broken = DataError("broken")
    batches = Prefetcher(Loader(1, broken, 2, SdabenchError)(), CUDA)
    assert next(batches).labels.item() == 1
    assert next(batches) is broken
    assert next(batches).labels.item() == 2
    with pytest.raises(SdabenchError, match="of the loader"):
        next(batches)


def test_stop_comes_after_the_previous_batch_and_ends_the_loading():
    loader = Loader(1, Stopped(), 2)
    batches = Prefetcher(loader(), CUDA)
    assert next(batches).labels.item() == 1
    assert isinstance(next(batches), Stopped)
    assert loader.taken == 2


def test_second_signal_ends_the_loading_at_once():
    loader = Loader(1, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        next(Prefetcher(loader(), CUDA))
    assert loader.closed


@pytest.mark.parametrize("used", [0, 1, 3])
def test_loader_is_closed_with_the_batches(used):
    loader = Loader(1, 2, 3)
    batches = Prefetcher(loader(), CUDA)
    for _ in range(used):
        next(batches)
    batches.close()
    assert loader.closed == (used > 0)
    assert next(batches, None) is None


def test_released_batches_stay_on_the_host():
    batches = Prefetcher(Loader(1, 2, 3)(), CUDA)
    assert next(batches).images.device == CUDA
    batches.release()
    rest = [*batches]
    assert [(each.images.device.type, each.labels.item()) for each in rest] == [("cpu", 2), ("cpu", 3)]


def test_batches_stay_on_the_host_if_there_is_no_memory_for_their_copy(monkeypatch):
    def fail(*arguments, **options):
        raise OUT_OF_MEMORY

    monkeypatch.setattr(prefetch, "move", fail)
    batches = list(Prefetcher(Loader(1, 2)(), CUDA))
    assert [(each.images.device.type, each.labels.item()) for each in batches] == [("cpu", 1), ("cpu", 2)]


def test_nothing_is_prefetched_on_the_cpu():
    loader = Loader(1, 2)
    batches = Prefetcher(loader(), torch.device("cpu"))
    next(batches)
    assert loader.taken == 1


def test_batches_that_do_not_fit_are_copied_in_micro_batches(shallow, textures):
    job = evaluation_job_for(classifier_job(textures, model=shallow["resnet_narrow"]), batch_size=2)
    network = Trainer(job_on_cuda(textures, shallow)).network
    expected = predict(network, job, CUDA).classes
    seen = []

    def remember(module, inputs):
        seen.append(len(inputs[0]))
        if len(inputs[0]) > 1:
            raise OUT_OF_MEMORY

    network.register_forward_pre_hook(remember)
    fitting = FittingBatch(2)
    halved = predict(network, job, CUDA, fitting=fitting).classes
    assert seen == [2, 1, 1, 1, 1]
    assert fitting.size == 1
    assert halved.labels.tolist() == expected.labels.tolist()
    assert halved.label_probability == pytest.approx(expected.label_probability, rel=1e-4)


def job_on_cuda(textures, shallow, **changes):
    job = classifier_job(textures, model=shallow["resnet_narrow"], **changes)
    return job.on(Machine(device=str(CUDA)))


def test_input_of_a_step_is_pinned_and_normalized_in_two_operations(shallow, textures):
    batches = load_training_batches(trainer := Trainer(job_on_cuda(textures, shallow)))
    trainer.take_step(next(batches))
    with counted_events() as events:
        trainer.take_step(next(batches))
    kinds = {kind for kind, _ in events}
    normalizing = sum(count for (_, place), count in events.items() if place.startswith("data/views.py"))
    assert "pageable copy to the device" not in kinds
    assert normalizing == 2


def test_host_waits_once_per_batch_of_an_evaluation(shallow, textures):
    trainer = Trainer(job_on_cuda(textures, shallow))
    job = evaluation_job_for(trainer.job, batch_size=2)  # of four images
    predict(trainer.network, job, CUDA)
    with counted_events() as events:
        predict(trainer.network, job, CUDA)
    waits = {place: count for (kind, place), count in events.items() if kind == "synchronization"}
    assert sum(waits.values()) == 2, waits
    assert next(iter(waits)).startswith("training/tasks/classification.py")


def test_targets_of_detectors_are_prefetched(shallow, shapes):
    job = detector_job(shapes, model=shallow["faster_rcnn"]).on(Machine(device=str(CUDA)))
    batch = next(load_training_batches(Trainer(job)))
    tensors = [*batch.images, *(each for target in batch.targets for each in target.values())]
    assert {tensor.device for tensor in tensors} == {CUDA}
