"""Copy the next batch to a CUDA device while the device computes the current one."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sdabench.data.images import move
from sdabench.errors import DataError
from sdabench.training.device_errors import is_out_of_memory
from sdabench.training.signals import Stopped


@dataclass
class _Loaded:
    """What the loader yielded (a batch, a DataError or Stopped), or an exception that it raised.

    ``copied`` is the event after the copy of a batch, None if the batch is on the host.
    """

    value: Any
    copied: torch.cuda.Event | None = None
    raised: bool = False


class Prefetcher(Iterator[Any]):
    """Iterate over batches; copy the next one to a CUDA device on a separate stream.

    The images are copied as uint8 pixels. Order, random numbers and errors are those of the loader: an
    exception is raised after the batches before it. The device holds the pixels of two batches, and of a
    third until the caller deletes the previous one. Batches stay on the host on a CPU, with
    ``enabled=False``, and if there is no memory for a copy.

    Args:
        batches: generator of :func:`sdabench.training.tasks.load_batches`; :meth:`close` closes it.
    """

    def __init__(self, batches: Generator[Any], device: torch.device, enabled: bool = True) -> None:
        self.loader, self.device = batches, device
        cuda = device.type == "cuda" and enabled
        self.stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
        self.next_batch: _Loaded | None = None
        self.batches = batches if self.stream is None else self._prefetched()

    def __next__(self) -> Any:
        return next(self.batches)

    def close(self) -> None:
        self.batches.close()
        self.loader.close()

    def release(self) -> None:
        """Move the next batch back to the host, and stop copying batches."""
        self.stream = None
        if self.next_batch is not None:
            batch = self._wait_for_copy(self.next_batch)
            copied = self.next_batch.copied is not None
            self.next_batch.value = batch.mapped(Tensor.cpu) if copied else batch
            self.next_batch.copied = None

    def _prefetched(self) -> Generator[Any]:
        with closing(self.loader):
            self.next_batch = self._load()
            while self.next_batch is not None:
                current = self.next_batch
                # After Stopped or an exception, the loader has no workers.
                is_last = current.raised or isinstance(current.value, Stopped)
                self.next_batch = None if is_last else self._load()
                if current.raised:
                    raise current.value
                yield self._wait_for_copy(current)

    def _load(self) -> _Loaded | None:
        """Take a batch from the loader, and start its copy; None after the last one."""
        try:
            batch = next(self.loader)
        except StopIteration:
            return None
        except Exception as error:
            return _Loaded(error, raised=True)
        if self.stream is None or isinstance(batch, (DataError, Stopped)):
            return _Loaded(batch)
        try:
            with torch.cuda.stream(self.stream):
                there = batch.mapped(partial(move, device=self.device))
                return _Loaded(there, self.stream.record_event())
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        self.stream = None
        return _Loaded(batch)

    def _wait_for_copy(self, loaded: _Loaded) -> Any:
        """Return the value, and let the current stream, not the host, wait for its copy.

        Its memory is reused only after the work that the current stream has when the memory is freed.
        """
        if loaded.copied is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(loaded.copied)
            loaded.value.mapped(partial(_record_stream, stream=stream))
        return loaded.value


def _record_stream(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    tensor.record_stream(stream)
    return tensor
