"""Copy the next batch to a CUDA device while the device computes with the present one."""

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
    """What the loader delivered: a batch, a DataError or Stopped; or an exception that it raised.

    ``copied`` is the event after the copy of a batch; None on the host.
    """

    value: Any
    copied: torch.cuda.Event | None = None
    raised: bool = False


class Prefetcher(Iterator[Any]):
    """Iterate over batches; copy the next one to a CUDA device meanwhile, on a stream of its own.

    The images are copied as uint8 pixels. The loader's order, random numbers and errors are kept: an
    exception is raised after the batches before it. The device holds the pixels of two batches, and of a
    third until the caller drops the one before. If there is no memory for a copy, batches stay on the host,
    as they do if the device is a CPU or with ``enabled=False``.

    Args:
        batches: generator of :func:`sdabench.training.tasks.load_batches`; :meth:`close` closes it.
    """

    def __init__(self, batches: Generator[Any], device: torch.device, enabled: bool = True) -> None:
        self.loader, self.device = batches, device
        cuda = device.type == "cuda" and enabled
        self.stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
        self.following: _Loaded | None = None
        self.batches = batches if self.stream is None else self._prefetched()

    def __next__(self) -> Any:
        return next(self.batches)

    def close(self) -> None:
        self.batches.close()
        self.loader.close()

    def release(self) -> None:
        """Move the next batch back to the host, and copy no more batches."""
        self.stream = None
        if self.following is not None:
            batch = self._usable(self.following)
            copied = self.following.copied is not None
            self.following.value = batch.mapped(Tensor.cpu) if copied else batch
            self.following.copied = None

    def _prefetched(self) -> Generator[Any]:
        with closing(self.loader):
            self.following = self._load()
            while self.following is not None:
                present = self.following
                # After Stopped or an exception, the loader has no workers.
                is_last = present.raised or isinstance(present.value, Stopped)
                self.following = None if is_last else self._load()
                if present.raised:
                    raise present.value
                yield self._usable(present)

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

    def _usable(self, loaded: _Loaded) -> Any:
        """Return the value after the device, not the host, waits for its copy.

        Its memory is reused only after the work that the present stream has by the time it is freed.
        """
        if loaded.copied is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(loaded.copied)
            loaded.value.mapped(partial(_record, stream=stream))
        return loaded.value


def _record(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    tensor.record_stream(stream)
    return tensor
