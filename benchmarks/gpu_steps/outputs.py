"""Compare outputs on the device with those on the CPU; measure the ceilings of the device."""

import copy
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from gpu_steps.core import Measure, Outcome, Setting, Table
from sdabench.data.coco_images import DetectionBatch, DetectionSample, resize_image
from sdabench.data.description import Preprocessing, Resizing
from sdabench.data.views import Normalization, resize_and_crop
from sdabench.models.depth_attention import LearnedWeights, StageMaps, maps_of_stage
from sdabench.models.inputs import resized_shape
from sdabench.registry import load_registry
from sdabench.tools.bench.timing import interleave
from sdabench.tools.check.output_check import BOXES, CLASSES, SEED, SIZES, TOLERANCE
from sdabench.tools.check.seeded_inputs import seeded_image, seeded_network
from sdabench.training.memory import synchronize
from sdabench.training.precision import autocast, strict_fp32

ARITHMETICS = ("fp32", "tf32", "fp16", "bf16")
TINY_NETWORKS = ["resnet_narrow", "sda_resnet_narrow"]
Forward = Callable[[nn.Module, torch.device], dict[str, Tensor]]


@contextmanager
def arithmetic(name: str, device: torch.device) -> Iterator[None]:
    """Compute float32 without TF32, with TF32, or in an autocast data type."""
    with strict_fp32(device), autocast(device, name):
        if name == "tf32":
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        yield


def measured_arithmetics(setting: Setting) -> list[str]:
    """List the arithmetics of the device; a CPU has no TF32."""
    return [each for each in ARITHMETICS if each != "tf32" or setting.on_cuda]


def measure_card(setting: Setting) -> Outcome:
    """Measure the rates of copying memory and of multiplying matrices, which bound all other steps."""
    device = setting.torch_device
    elements, side = setting.pick((2**28, 8192), tiny=(2**16, 64))
    copied = _seconds_of_copy(elements, setting)
    measures = [Measure("copy, read and written", 2 * 4 * elements / copied / 1e9, "GB/s")]
    left, right = (torch.randn(side, side, device=device) for _ in range(2))
    for name in measured_arithmetics(setting):
        with arithmetic(name, device):
            for _ in range(3):
                left @ right
            synchronize(device)
            [taken] = interleave([lambda: left @ right], setting.pick(10, tiny=2), device)
        measures.append(Measure(f"matrix product, {name}", 2 * side**3 / taken.median / 1e12, "TFLOP/s"))
    return Outcome(measures)


def _seconds_of_copy(elements: int, setting: Setting) -> float:
    source = torch.randn(elements, device=setting.torch_device)
    target = torch.empty_like(source)
    target.copy_(source)
    [timing] = interleave([lambda: target.copy_(source)], setting.pick(20, tiny=2), setting.torch_device)
    return timing.median


def compare_logits(setting: Setting) -> Outcome:
    """Compare the logits of all classification networks."""
    names = load_registry().select_for("classification", ["*"])
    side = setting.pick(224, tiny=64)
    preprocessing = Preprocessing.at(side)
    images = [seeded_image(number, width, height, SEED) for number, (width, height) in enumerate(SIZES)]
    pixels = torch.stack([pil_to_tensor(resize_and_crop(each, preprocessing)) for each in images])
    normalization = Normalization(preprocessing.mean, preprocessing.std)

    def forward(network: nn.Module, device: torch.device) -> dict[str, Tensor]:
        return {"logits": network(normalization(pixels.to(device), torch.contiguous_format))}

    networks = setting.pick(names, tiny=TINY_NETWORKS)
    return compare_networks(networks, lambda name: seeded_network(name, SEED), forward, setting)


def compare_detectors(setting: Setting) -> Outcome:
    """Compare the raw outputs of all detectors for given boxes, which no selection can reorder."""
    names = load_registry().select_for("detection", ["*"])
    sizes = Resizing.at(setting.pick(256, tiny=64))

    def build(name: str) -> nn.Module:
        return seeded_network(name, SEED, num_classes=CLASSES, min_size=sizes.short, max_size=sizes.long)

    samples, boxes = [], []
    for number, (width, height) in enumerate(SIZES):
        image = seeded_image(number, width, height, SEED)
        height, width = resized_shape(height, width, sizes.short, sizes.long)
        samples.append(DetectionSample(resize_image(image, (height, width)), None, 0, ""))
        boxes.append(torch.tensor(BOXES) * torch.tensor([width, height] * 2))
    labels = torch.arange(len(samples) * len(BOXES)) % CLASSES + 1

    def forward(network: nn.Module, device: torch.device) -> dict[str, Tensor]:
        batch = DetectionBatch.of(samples, []).to(device, torch.contiguous_format)
        outputs: dict[str, Tensor] = network.forward_given(  # type: ignore[operator]
            batch.images, [each.to(device) for each in boxes], labels.to(device)
        )
        return {name: tensor for name, tensor in outputs.items() if name != "anchors"}

    return compare_networks(setting.pick(names, tiny=["faster_rcnn_resnet50"]), build, forward, setting)


def compare_networks(
    names: list[str], build: Callable[[str], nn.Module], forward: Forward, setting: Setting
) -> Outcome:
    """Compare outputs of networks in each arithmetic with those on the CPU in float32.

    A network that raises an error is reported, and the others go on.
    """
    found: dict[str, dict[str, float | None]] = {}
    errors: dict[str, str] = {}
    chosen = measured_arithmetics(setting)
    for name in names:
        try:
            found[name] = differences(build(name), forward, chosen, setting.torch_device)
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            print(f"{name}: {errors[name]}", flush=True)
    measures = [Measure("networks compared", len(found), target=len(names))]
    for each in chosen:
        measures += _measures(each, {name: row[each] for name, row in found.items()})
    rows = [[name, *(_shown(row[each]) for each in chosen)] for name, row in found.items()]
    rows += [[name, error, *[""] * (len(chosen) - 1)] for name, error in errors.items()]
    title = "Worst element beside the CPU in float32, in standard deviations of the output"
    details = {"differences": found, "errors": errors}
    return Outcome(measures, [Table(title, ["network", *chosen], rows)], details)


def _measures(name: str, by_network: dict[str, float | None]) -> list[Measure]:
    """Return the worst and the median network in an arithmetic, and the number that is not finite."""
    finite = {network: value for network, value in by_network.items() if value is not None}
    broken = len(by_network) - len(finite)
    measures = [Measure(f"networks not finite, {name}", broken, "", 0, at_most=True)] if broken else []
    if finite:
        worst = max(finite, key=lambda network: finite[network])
        limit = TOLERANCE if name == "fp32" else None
        unit = f"standard deviations ({worst})"
        median = statistics.median(finite.values())
        measures += [
            Measure(f"worst element, {name}", finite[worst], unit, limit, at_most=True),
            Measure(f"worst element of the median network, {name}", median, "standard deviations"),
        ]
    return measures


def _shown(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2g}"


@torch.inference_mode()
def differences(
    network: nn.Module, forward: Forward, arithmetics: list[str], device: torch.device
) -> dict[str, float | None]:
    """Return the largest difference of an element in each arithmetic, divided by the output's spread."""
    cpu = torch.device("cpu")
    with strict_fp32(cpu):
        expected = forward(network, cpu)
    network = network.to(device)
    found: dict[str, float | None] = {}
    for each in arithmetics:
        with arithmetic(each, device):
            actual = forward(network, device)
        worst = [worst_element(actual[key], tensor) for key, tensor in expected.items()]
        found[each] = max(worst) if all(map(math.isfinite, worst)) else None
    return found


def worst_element(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference in standard deviations of ``expected``; NaN if an element is NaN."""
    expected = expected.double()
    return ((actual.cpu().double() - expected).abs().max() / expected.std()).item()


def compare_depth_attention(setting: Setting) -> Outcome:
    """Compare the errors of a stage, relative to float64, with those of the PyTorch implementation."""
    measures = []
    for name in measured_arithmetics(setting):
        for layout in (torch.contiguous_format, torch.channels_last):
            own, plain = (
                _errors_of_stage(kind, name, layout, setting) for kind in (maps_of_stage, StageMaps)
            )
            worst = max(one / other for one, other in zip(own, plain, strict=True))
            words = "channels_last" if layout is torch.channels_last else "contiguous"
            measures.append(
                Measure(f"error, {name}, {words}", worst, "times that of PyTorch", 1.2, at_most=True)
            )
    return Outcome(measures)


def _errors_of_stage(
    kind: Callable[[Tensor, bool], StageMaps], name: str, layout: torch.memory_format, setting: Setting
) -> list[float]:
    """Return the relative error of the output, and of the gradients of the maps and of the weights.

    The weighted sum has no ReLU: one sum on the other side of zero would hide all other errors.
    """
    shape = setting.pick((128, 256, 28, 28), tiny=(2, 8, 5, 5))  # large enough for the kernels
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(name, torch.float32)
    torch.manual_seed(SEED)
    attention = LearnedWeights(shape[1], 6)
    maps = [torch.randn(shape).to(dtype) for _ in range(6)]
    gradients = [torch.randn(shape).to(dtype) for _ in range(6)]

    def results(
        kind: Callable[[Tensor, bool], StageMaps], arithmetic_name: str, **place: Any
    ) -> list[Tensor]:
        module = copy.deepcopy(attention).to(place["device"], place.get("dtype"))
        inputs = [each.to(**place).contiguous(memory_format=layout).requires_grad_() for each in maps]
        with arithmetic(arithmetic_name, place["device"]):
            stage = kind(inputs[0], True)
            activated = [stage.append(each, activate=True) for each in inputs]
            outputs = [stage.fuse(module(stage.pooled()), False), *activated[1:]]
        torch.autograd.backward(outputs, [each.to(**place) for each in gradients])
        of_maps, of_weights = (
            torch.cat([each.grad.flatten() for each in leaves if each.grad is not None])
            for leaves in (inputs, [*module.parameters()])
        )
        return [outputs[0], of_maps, of_weights]

    expected = results(StageMaps, "fp32", device=torch.device("cpu"), dtype=torch.float64)
    actual = results(kind, name, device=setting.torch_device)
    return [
        ((one.cpu().double() - other).norm() / other.norm()).item()
        for one, other in zip(actual, expected, strict=True)
    ]
