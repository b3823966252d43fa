"""The progress of a training, which a checkpoint stores, and the numbers of the last step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdabench.errors import SdabenchError

# Below the smallest normal number of float16, scaled gradients of 1 would lose digits.
SMALLEST_SCALE = 2.0**-14


class DivergedError(SdabenchError):
    """The loss, the gradients or the weights are not finite.

    On CUDA, the numbers of a step are read one step late, so that the host does not wait for the device. The
    message names the step at fault, but the weights have been updated by then. No checkpoint contains
    them, because all numbers are read before one is written.
    """


@dataclass
class Progress:
    """The progress of a training, in plain values that a checkpoint stores."""

    step: int = 0
    skipped_steps: int = 0  # whose gradients in float16 were not finite, so that they changed no weight
    concluded: int = 0  # epochs that were validated and logged
    epoch_losses: dict[str, float] = field(default_factory=dict)  # sums over this epoch's images so far
    epoch_images: int = 0
    first_loss: float = math.nan
    last_loss: float = math.nan
    unsound: list[str] | None = None  # faults that the check of the network found
    images: int = 0
    skipped: int = 0
    seconds: float = 0.0
    resumed: int = 0
    seeds: list[int] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    best_epochs: dict[str, int] = field(default_factory=dict)
    best_sha256: dict[str, str] = field(default_factory=dict)  # of the weights files of the best epochs
    validated: int = 0  # last step after which a validation within an epoch was logged

    @property
    def updates(self) -> int:
        """Number of steps that have changed the weights; it determines the learning rate."""
        return self.step - self.skipped_steps

    @property
    def mean_losses(self) -> dict[str, float]:
        """Mean loss over the images of this epoch so far, and mean terms of the loss if it has several.

        NaN before the first step of an epoch.
        """
        means = {name: value / self.epoch_images for name, value in self.epoch_losses.items()}
        return {"loss": sum(means.values()) if means else math.nan} | (means if len(means) > 1 else {})

    def add_losses(self, step: int, losses: dict[str, float], images: int) -> None:
        """Add the mean losses of a step, counted from 0, over the images of its batch."""
        if step == 0:
            self.first_loss = sum(losses.values())
        self.epoch_images += images
        for name, value in losses.items():
            self.epoch_losses[name] = self.epoch_losses.get(name, 0.0) + value * images


@dataclass
class PendingStep:
    """A step whose numbers are on the device until they are read, at once or during the next step.

    ``step`` counts from 0; ``images`` are those of its batch, over all ranks. ``losses`` (N,) are the terms
    of the loss, with their ``names``, summed over all ranks. ``norm`` is the norm of the gradients before
    clipping, None without it and in float16; ``scales`` are the loss scales before and after the update.
    """

    step: int
    learning_rate: float
    images: int
    names: Sequence[str]
    losses: Tensor
    norm: Tensor | None = None
    scales: tuple[Tensor, Tensor] | None = None
    copied: torch.cuda.Event | None = None
    copy: Tensor | None = None

    def start_copy(self) -> None:
        """Start to copy the numbers to pinned memory, in the order of the current stream."""
        self.copy = self._joined().to("cpu", non_blocking=True)
        self.copied = torch.cuda.current_stream(self.losses.device).record_event()

    def _joined(self) -> Tensor:
        others = [each.reshape(1) for each in (self.norm, *(self.scales or ())) if each is not None]
        return torch.cat([self.losses, *others])

    def read(self) -> "StepNumbers":
        """Wait for the numbers."""
        if self.copied is not None:
            self.copied.synchronize()
        values: list[float] = (self._joined() if self.copy is None else self.copy).tolist()
        count = len(self.names)
        losses = dict(zip(self.names, values[:count], strict=True))
        others = iter(values[count:])
        norm = None if self.norm is None else next(others)
        before, after = (None, None) if self.scales is None else (next(others), next(others))
        return StepNumbers(losses, norm, before, after)


@dataclass(frozen=True)
class StepNumbers:
    """The numbers of a step; see :class:`PendingStep`."""

    losses: dict[str, float]
    norm: float | None = None
    scale_before: float | None = None
    scale_after: float | None = None

    @property
    def skipped(self) -> bool:
        """Whether gradients in float16 were not finite: the scale is lowered, and no weight is changed."""
        if self.scale_before is None or self.scale_after is None:
            return False
        return self.scale_after < self.scale_before

    @property
    def fault(self) -> str | None:
        """Description of what is not finite, or None."""
        total = sum(self.losses.values())
        if not math.isfinite(total):
            return f"the loss is {total}"
        if self.norm is not None and not math.isfinite(self.norm):
            return f"the norm of the gradients is {self.norm}"
        if self.scale_after is not None and self.scale_after < SMALLEST_SCALE:
            return "the gradients are not finite at any scale of the loss"
        return None
