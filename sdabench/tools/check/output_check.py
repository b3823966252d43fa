"""Check the outputs of every network for seeded weights and images."""

from typing import Any, Literal, cast

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
from sdabench.registry import load_registry
from sdabench.tools.check.gate import Check, NotFiniteError, Problem
from sdabench.tools.check.golden_files import GoldenFolders, check_of_lines
from sdabench.tools.check.seeded_inputs import RECIPE, layout_digest, noise, seeded_image, seeded_network
from sdabench.training.precision import strict_fp32

SEED = 0
RESOLUTION = 64  # side of the crop, or short side for a detector, in pixels
CLASSES = 10
SIZES = ((90, 110), (120, 80))  # (width, height) of the images, in pixels
STORED_ELEMENTS = 12  # of each output of a detector, evenly spaced
# Share of an output's standard deviation. Rounding changes elements by at most 1.4e-5, as measured with torch
# 2.6 and 2.15, one and two threads, both memory formats, and processors without AVX.
TOLERANCE = 3e-4
# (left, top, right, bottom), relative to the width and height of the image.
BOXES = ((0.0, 0.0, 1.0, 1.0), (0.1, 0.2, 0.5, 0.9), (0.55, 0.05, 0.95, 0.35), (0.3, 0.6, 0.45, 0.75))


class Output(BaseModel):
    """An output: its ``shape``, ``std`` of all elements, and evenly spaced ``values``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: list[int]
    std: float
    values: list[float]

    @classmethod
    def of(cls, tensor: Tensor, stored: int) -> "Output":
        flat = tensor.detach().double().flatten()
        indices = evenly_spaced(flat.numel(), stored)
        values = [float(f"{value:.7g}") for value in flat[indices].tolist()]
        return cls(shape=list(tensor.shape), std=float(f"{flat.std(correction=0).item():.7g}"), values=values)


class GoldenOutputs(BaseModel):
    """The outputs of one network; ``tensors`` is a digest of the names and shapes of its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    outputs_schema: Literal["sdabench.outputs/1"] = Field("sdabench.outputs/1", alias="schema")
    model: str
    weights: str = RECIPE
    seed: int = SEED
    tensors: str
    outputs: dict[str, Output]


def output_check(folders: GoldenFolders) -> Check[GoldenOutputs]:
    return check_of_lines("outputs", folders, OUTPUTS, GoldenOutputs, compute_outputs, _problems)


def _problems(golden: GoldenOutputs, measured: GoldenOutputs) -> list[Problem]:
    """Return at most one problem, which names the worst element."""
    hint = "; names or shapes of the weights changed too" if golden.tensors != measured.tensors else ""
    if (golden.weights, golden.seed) != (measured.weights, measured.seed):
        recipes = f"{golden.weights}, seed {golden.seed} -> {measured.weights}, seed {measured.seed}"
        message = f"the golden outputs are those of other weights or images: {recipes}"
        return [Problem(message, status="integrity")]
    old, new = (
        {name: tuple(output.shape) for name, output in each.outputs.items()} for each in (golden, measured)
    )
    if old != new:
        names = [name for name in old | new if old.get(name) != new.get(name)]
        words = "; ".join(f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}" for name in names)
        return [Problem(f"the shapes of the outputs changed: {words}{hint}")]
    pairs = {name: (golden.outputs[name], measured.outputs[name]) for name in golden.outputs}
    if any(len(was.values) != len(now.values) for was, now in pairs.values()):
        message = "the golden outputs have another number of values; --update rewrites them"
        return [Problem(message, status="integrity")]
    worst = [worst_difference(name, was, now) for name, (was, now) in pairs.items()]
    beyond = sorted((each for each in worst if not each[0] <= TOLERANCE), reverse=True)
    lines = [text for _, text in beyond]
    return [Problem(f"{lines[0]} (tolerance {TOLERANCE:g}){hint}", tuple(lines[1:]))] if lines else []


def compute_outputs(name: str) -> GoldenOutputs:
    """Compute the outputs of a network on the CPU in float32.

    Raises:
        NotFiniteError: an output has NaN or infinite elements.
    """
    detector = load_registry().model(name).backbone is not None
    options: dict[str, Any] = {"num_classes": CLASSES}
    if detector:
        sizes = Resizing.at(RESOLUTION)
        options |= {"min_size": sizes.short, "max_size": sizes.long}
    network = seeded_network(name, SEED, **options)
    with torch.inference_mode(), strict_fp32(torch.device("cpu")):
        tensors = network_outputs(network)
    outputs = {key: Output.of(tensor, stored) for key, (tensor, stored) in tensors.items()}
    if broken := [key for key, each in outputs.items() if not np.isfinite([each.std, *each.values]).all()]:
        raise NotFiniteError(f"{', '.join(broken)}: not finite (NaN or infinite)")
    return GoldenOutputs(model=name, tensors=layout_digest(network), outputs=outputs)


def network_outputs(
    network: nn.Module, memory_format: torch.memory_format = torch.contiguous_format
) -> dict[str, tuple[Tensor, int]]:
    """Return each output for the seeded images, and the number of its elements to store."""
    images = [seeded_image(number, width, height, SEED) for number, (width, height) in enumerate(SIZES)]
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
    outputs = network.forward_given(batch.images, boxes, labels) | selection_outputs(network, batch.images)
    return {name: (tensor, STORED_ELEMENTS) for name, tensor in outputs.items()}


class SeededHead(nn.Module):
    """An RPN head whose objectness and box deltas are seeded noise."""

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return [_noise("objectness", each, 3, 3.0) for each in maps], [
            _noise("anchor deltas", each, 12, 0.3) for each in maps
        ]


def _noise(name: str, like: Tensor, channels: int, scale: float) -> Tensor:
    count, _, height, width = like.shape
    numbers = noise(f"{name} {height}", (count, channels, height, width), SEED)
    return scale * torch.from_numpy(numbers)


def selection_outputs(network: Detector, images: list[Tensor]) -> dict[str, Tensor]:
    """Return proposals and detections that thresholds, NMS and limits select from seeded outputs.

    The first image has so few proposals that the score threshold decides; in the second, the limit does.
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
    logits += torch.linspace(-3, 3, CLASSES + 1)  # so that NMS has many boxes of one class
    deltas = torch.from_numpy(noise("box deltas", (count, 4 * CLASSES), SEED))
    boxes, scores, labels = network.roi_heads.postprocess_detections(logits, deltas, few, batch.image_sizes)
    return {
        "proposals": torch.cat(proposals),
        "boxes": torch.cat(boxes),
        "scores": torch.cat(scores),
        "labels": torch.cat(labels),
    }


def worst_difference(name: str, golden: Output, measured: Output) -> tuple[float, str]:
    """Return the largest difference of an element or of the standard deviation, and describe it.

    It is divided by the standard deviation of the golden output; NaN counts as the largest.
    """
    indices = evenly_spaced(int(np.prod(golden.shape)), len(golden.values))
    pairs = [(f"{name}.std", golden.std, measured.std)]
    for flat_index, old, new in zip(indices, golden.values, measured.values, strict=True):
        index = ", ".join(str(each) for each in np.unravel_index(flat_index, golden.shape))
        pairs.append((f"{name}[{index}]", old, new))
    differences = [(abs(new - old) / (golden.std or 1.0), where, old, new) for where, old, new in pairs]
    worst, where, old, new = max(differences, key=lambda each: (not np.isfinite(each[0]), each[0]))
    return worst, f"{where} {old:.7g} -> {new:.7g}, {worst:.2g} standard deviations"


def evenly_spaced(elements: int, count: int) -> list[int]:
    """Return the indices of ``count`` elements of a flat tensor, from the first to the last."""
    return cast(list[int], np.linspace(0, elements - 1, min(elements, count)).round().astype(int).tolist())
