"""Golden outputs: what every network puts out for seeded weights and images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from sdabench.data.coco_images import DetectionBatch, DetectionSample, resize_image
from sdabench.data.description import Preprocessing, Resizing
from sdabench.data.views import Normalization, resize_and_crop
from sdabench.models.detection.detector import Detector
from sdabench.models.inputs import resized_shape
from sdabench.paths import OUTPUTS
from sdabench.records.json_lines import read_lines
from sdabench.registry import load_registry
from sdabench.tools.check import Problem
from sdabench.tools.check.golden_files import in_order, write_baselines
from sdabench.tools.check.seeded_inputs import RECIPE, image, layout, noise, seeded_network
from sdabench.training.precision import strict_fp32

SEED = 0
RESOLUTION = 64  # pixels of the crop, or of a detector's short side
CLASSES = 10
SIZES = ((90, 110), (120, 80))  # (width, height) of the images, in pixels
KEPT = 12  # elements of each of a detector's outputs, spread evenly over it
# Of an output's standard deviation. Rounding moves an element by 1.4e-5 of it at most: measured over torch
# 2.6 and 2.15, one and two threads, both memory formats, and processors without AVX.
TOLERANCE = 3e-4
# (left, top, right, bottom) in shares of the image's width and height.
BOXES = ((0.0, 0.0, 1.0, 1.0), (0.1, 0.2, 0.5, 0.9), (0.55, 0.05, 0.95, 0.35), (0.3, 0.6, 0.45, 0.75))


class Output(BaseModel):
    """An output of that ``shape``: ``std`` over all its elements, and some ``values``, evenly spaced."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: list[int]
    std: float
    values: list[float]

    @classmethod
    def of(cls, tensor: Tensor, kept: int) -> "Output":
        flat = tensor.detach().double().flatten()
        places = spaced(flat.numel(), kept)
        values = [float(f"{value:.7g}") for value in flat[places].tolist()]
        return cls(shape=list(tensor.shape), std=float(f"{flat.std(correction=0).item():.7g}"), values=values)

    @property
    def finite(self) -> bool:
        return bool(np.isfinite([self.std, *self.values]).all())


class Golden(BaseModel):
    """The outputs of one network; ``tensors`` is a digest of the names and shapes of its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    outputs_schema: Literal["sdabench.outputs/1"] = Field("sdabench.outputs/1", alias="schema")
    model: str
    weights: str = RECIPE
    seed: int = SEED
    tensors: str
    outputs: dict[str, Output]


class Difference(NamedTuple):
    """``relative`` to the standard deviation of the baseline's output."""

    relative: float
    where: str
    was: float
    now: float

    def __str__(self) -> str:
        return f"{self.where} {self.was:.7g} -> {self.now:.7g}, {self.relative:.2g} standard deviations"


@dataclass(frozen=True)
class Outputs:
    """See :class:`sdabench.tools.check.Check`."""

    folder: Path
    subjects: Sequence[str]
    name: str = "outputs"

    @property
    def path(self) -> Path:
        return self.folder / OUTPUTS

    def baselines(self) -> dict[str, Golden]:
        return {item.model: item for item in read_lines(self.path, Golden)}

    def measure(self, subject: str) -> Golden:
        return golden(subject)

    def problems(self, was: Golden, now: Golden) -> list[Problem]:
        """One at most, which names the worst element."""
        hint = "; its tensors have other names or shapes" if was.tensors != now.tensors else ""
        if (was.weights, was.seed) != (now.weights, now.seed):
            recipes = f"{was.weights}, seed {was.seed} -> {now.weights}, seed {now.seed}"
            return [Problem(f"the baseline is of other weights or images: {recipes}", status="integrity")]
        old, new = ({name: tuple(one.shape) for name, one in each.outputs.items()} for each in (was, now))
        if old != new:
            names = [name for name in old | new if old.get(name) != new.get(name)]
            words = "; ".join(f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}" for name in names)
            return [Problem(f"the outputs have other shapes: {words}{hint}")]
        if any(len(was.outputs[name].values) != len(now.outputs[name].values) for name in was.outputs):
            words = "the baseline keeps another number of elements; --update writes it anew"
            return [Problem(words, status="integrity")]
        all_worst = [worst_difference(name, was.outputs[name], now.outputs[name]) for name in was.outputs]
        beyond = sorted((each for each in all_worst if not each.relative <= TOLERANCE), reverse=True)
        if not beyond:
            return []
        lines = [str(each) for each in beyond]
        return [Problem(f"{lines[0]} (tolerance {TOLERANCE:g}){hint}", tuple(lines[1:]))]

    def flaw(self, now: Golden) -> str | None:
        broken = [name for name, output in now.outputs.items() if not output.finite]
        return f"{', '.join(broken)}: not finite (NaN or infinite)" if broken else None

    def write(self, baselines: dict[str, Golden]) -> None:
        write_baselines(self.path, [baselines[name] for name in in_order(baselines)])


def golden(name: str) -> Golden:
    """Computes a network's outputs, on the CPU in float32."""
    detector = load_registry().model(name).backbone is not None
    options: dict[str, Any] = {"num_classes": CLASSES}
    if detector:
        sizes = Resizing.at(RESOLUTION)
        options |= {"min_size": sizes.short, "max_size": sizes.long}
    network = seeded_network(name, SEED, **options)
    with torch.inference_mode(), strict_fp32(torch.device("cpu")):
        outputs = outputs_of(network)
    return Golden(
        model=name,
        tensors=layout(network),
        outputs={key: Output.of(tensor, kept) for key, (tensor, kept) in outputs.items()},
    )


def outputs_of(
    network: nn.Module, memory_format: torch.memory_format = torch.contiguous_format
) -> dict[str, tuple[Tensor, int]]:
    """Each output of a network for the seeded images, and how many elements of it are kept."""
    images = [image(number, width, height, SEED) for number, (width, height) in enumerate(SIZES)]
    if not isinstance(network, Detector):
        preprocessing = Preprocessing.at(RESOLUTION)
        pixels = torch.stack([pil_to_tensor(resize_and_crop(each, preprocessing)) for each in images])
        logits = network(Normalization(preprocessing.mean, preprocessing.std)(pixels, memory_format))
        return {"logits": (logits, logits.numel())}
    sizes = Resizing.at(RESOLUTION)
    samples, boxes = [], []
    for each in images:
        height, width = resized_shape(each.height, each.width, sizes.short, sizes.long)
        samples.append(DetectionSample(resize_image(each, (height, width)), None, 0, ""))
        boxes.append(torch.tensor(BOXES) * torch.tensor([width, height] * 2))
    batch = DetectionBatch.of(samples, []).to(torch.device("cpu"), memory_format)
    labels = torch.arange(len(images) * len(BOXES)) % CLASSES + 1
    outputs = network.forward_given(batch.images, boxes, labels) | selected(network, batch.images)
    return {name: (tensor, KEPT) for name, tensor in outputs.items()}


class SeededHead(nn.Module):
    """Says objectness and box deltas of anchors, whatever is in the maps."""

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return [_noise("objectness", each, 3, 3.0) for each in maps], [
            _noise("anchor deltas", each, 12, 0.3) for each in maps
        ]


def _noise(name: str, like: Tensor, channels: int, scale: float) -> Tensor:
    count, _, height, width = like.shape
    numbers = noise(f"{name} {height}", (count, channels, height, width), SEED)
    return scale * torch.from_numpy(numbers)


def selected(network: Detector, images: list[Tensor]) -> dict[str, Tensor]:
    """What thresholds, NMS and limits leave of seeded scores and deltas: proposals, and detections of these.

    In the first image there are so few that the threshold decides, in the second the limit does.
    """
    batch, _ = network.transform(images)
    strides = network.roi_heads.box_roi_pool.strides
    height, width = batch.tensors.shape[-2:]
    maps = {
        str(stride): batch.tensors.new_zeros(len(images), 1, -(-height // stride), -(-width // stride))
        for stride in (*strides, 2 * strides[-1])
    }
    own, network.rpn.head = network.rpn.head, SeededHead()
    proposals, _ = network.rpn(batch, maps)
    network.rpn.head = own
    few = [proposals[0][:8], *proposals[1:]]
    count = sum(map(len, few))
    logits = torch.from_numpy(noise("class logits", (count, CLASSES + 1), SEED))
    logits += torch.linspace(-3, 3, CLASSES + 1)  # so that many of one class are rivals in NMS
    deltas = torch.from_numpy(noise("box deltas", (count, 4 * CLASSES), SEED))
    boxes, scores, labels = network.roi_heads.postprocess_detections(logits, deltas, few, batch.image_sizes)
    return {
        "proposals": torch.cat(proposals),
        "boxes": torch.cat(boxes),
        "scores": torch.cat(scores),
        "labels": torch.cat(labels),
    }


def worst_difference(name: str, was: Output, now: Output) -> Difference:
    """The element of an output that differs most, or its standard deviation; a NaN is the worst of all."""
    scale = was.std or 1.0
    places = spaced(int(np.prod(was.shape)), len(was.values))
    pairs = [(f"{name}.std", was.std, now.std)]
    for place, old, new in zip(places, was.values, now.values, strict=True):
        index = ", ".join(str(each) for each in np.unravel_index(place, was.shape))
        pairs.append((f"{name}[{index}]", old, new))
    differences = [Difference(abs(new - old) / scale, where, old, new) for where, old, new in pairs]
    return max(differences, key=lambda each: (not np.isfinite(each.relative), each.relative))


def spaced(elements: int, kept: int) -> list[int]:
    """So many places of a flat tensor, from its first to its last."""
    count = min(elements, kept)
    return cast(list[int], np.linspace(0, elements - 1, count).round().astype(int).tolist())
