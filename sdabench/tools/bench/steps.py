"""The steps that ``sdabench bench`` times."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdabench.registry.recipes import Precision
from sdabench.training.precision import autocast

Mode = Literal["inference", "training"]
MODES: tuple[Mode, ...] = ("inference", "training")
Step = Callable[[], object]


def inference_step(network: nn.Module, images: Tensor, precision: Precision) -> Step:
    def step() -> None:
        network.eval()
        with torch.no_grad(), autocast(images.device, precision):
            network(images)

    return step


class TrainingStep:
    """A step of SGD with momentum; the learning rate is so small that the weights stay finite."""

    def __init__(self, network: nn.Module, images: Tensor, precision: Precision) -> None:
        self.network, self.images, self.precision = network, images, precision
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9)
        # A larger scale can overflow at first, and the optimizer would not be timed.
        in_half = precision == "fp16"
        self.scaler = torch.amp.GradScaler(images.device.type, init_scale=1.0, enabled=in_half)
        self.labels = torch.zeros(len(images), dtype=torch.long, device=images.device)

    def __call__(self) -> None:
        self.compute_gradients()
        self.update_weights()
        self.optimizer.zero_grad()

    def compute_gradients(self) -> None:
        self.network.train()
        with autocast(self.images.device, self.precision):
            loss = F.cross_entropy(self.network(self.images), self.labels)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update_weights(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()


STEPS: dict[Mode, Callable[[nn.Module, Tensor, Precision], Step]] = {
    "inference": inference_step,
    "training": TrainingStep,
}
