"""Inspect networks: measure their depth weights and effective receptive fields on the same images."""

import json
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import closing
from dataclasses import dataclass, replace
from math import ceil, isnan
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torchvision.transforms.functional import center_crop

from sdabench.analysis.depth_weights import stage_depths
from sdabench.analysis.inspection import SHARES, BlockWeights, FieldSize, InspectedNetwork
from sdabench.analysis.receptive_fields import ReceptiveField, places_of, receptive_fields
from sdabench.analysis.subjects import Subject
from sdabench.data.coco_images import DetectionBatch
from sdabench.data.object_sizes import has_object_sizes, object_sizes
from sdabench.errors import DataError, UsageError
from sdabench.hashing import sha256_of_lines
from sdabench.models.build import create_model
from sdabench.models.depth_attention import depth_weights_modules, recorded_depth_weights
from sdabench.models.detection.detector import Detector
from sdabench.models.skeleton import Trunk
from sdabench.records.environment import environment
from sdabench.registry import load_registry
from sdabench.registry.sources import identity
from sdabench.training.evaluation import prepare_network
from sdabench.training.job import AnyJob
from sdabench.training.precision import strict_fp32
from sdabench.training.soundness import trunk_of
from sdabench.training.tasks import load_batches, task_of

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
VERSION = 2  # increment when the same networks and images give other numbers
CALIBRATION = 128  # images for the batch-norm statistics of an untrained network
BATCH, DETECTION_BATCH = 16, 4  # images
FIELD_BATCH = 2  # images whose maps are stored for gradients
NOISE_SIDE = 224


@dataclass(frozen=True)
class Settings:
    """What to measure: ``fields`` of ``blocks`` and stages, of ``stages`` alone, or none.

    ``images`` are those of depth weights, ``field_images`` those of receptive fields. ``side`` is that of
    noise images in pixels. ``boxes`` is a folder of ImageNet's boxes.
    """

    images: int = 200
    fields: str = "blocks"
    field_images: int = 4
    side: int = NOISE_SIDE
    boxes: Path | None = None


def inspect_network(
    subject: Subject,
    settings: Settings,
    device: str = "cpu",
    advance: Callable[[int], None] = lambda images: None,
) -> InspectedNetwork:
    """Inspect one network; see :func:`work` for the number of images that ``advance`` is called with.

    Raises:
        UsageError: the network has no stages of sdabench, or too few images are given.
        DataError: an image cannot be decoded.
        WeightsError: the weights do not fit.
    """
    here = torch.device(device)
    with strict_fp32(here):
        _, trunk, images, sha256 = prepared(subject, settings, here, advance)
        weights = _depth_weights(trunk, images, advance) if subject.job else {}
        fields = tuple(_fields(trunk, images, settings, advance))
        environ = environment(here, subject.model)
    return InspectedNetwork(
        model=subject.model,
        state=subject.state,
        run=subject.run,
        seed=subject.seed,
        weights=subject.weights,
        weights_sha256=sha256,
        digest=digest_of(subject, settings),
        data=subject.data,
        dataset=subject.job and subject.job.split.describe(),
        side=images.side,
        blocks=tuple(block for stage, each in weights.items() for block in distribution(stage, each)),
        sizes=_sizes(subject.job, settings) if weights else (),
        depths={stage: _short(depth.tolist()) for stage, depth in stage_depths(weights).items()},
        fields=fields,
        field_images=min(settings.field_images, images.number) if fields else 0,
        environment=environ,
    )


def prepared(
    subject: Subject, settings: Settings, device: torch.device, advance: Callable[[int], None]
) -> tuple[nn.Module, Trunk, "Images", str | None]:
    """Build a network in evaluation mode; return it, its trunk, its images, and the digest of its weights.

    The batch norms of an untrained network get the statistics of the images: with their initial ones, the
    activations grow with depth.
    """
    network, sha256 = _network(subject)
    trunk = trunk_of(network)
    if trunk is None:
        raise UsageError(
            f"'{subject.model}' has no stages that sdabench knows; inspect a network of the registry "
            "('sdabench list' shows all)"
        )
    network = network.to(device).eval()
    images = Images(subject, settings, network, device)
    if subject.state == "untrained":
        size = DETECTION_BATCH if isinstance(network, Detector) else BATCH
        first = images.batches(min(CALIBRATION, images.number), size)
        update_bn(_advancing(first, advance), trunk)
        network.eval()
    return network, trunk, images, sha256


def work(subject: Subject, settings: Settings) -> int:
    """Return the number of images that an inspection processes."""
    images = settings.images if subject.job is None else len(subject.job.split.items)
    fused = bool(load_registry().model(subject.model).depth_attention)
    calibration = min(CALIBRATION, images) if subject.state == "untrained" else 0
    kinds = 0 if settings.fields == "off" else 1 + fused
    return calibration + (images if fused and subject.job else 0) + kinds * min(settings.field_images, images)


def digest_of(subject: Subject, settings: Settings) -> str:
    """Return the identity of an inspection: the same network, weights, images and settings."""
    spec = subject.job and subject.job.spec
    determined = [
        VERSION,
        identity(subject.model),
        load_registry().model(subject.model).network_sha256,
        subject.state,
        subject.seed,
        spec and spec.weights.identity,
        spec and spec.protocol.model_dump(mode="json"),
        spec and spec.dataset.listing_sha256,
        settings.images if spec is None else None,
        settings.fields,
        settings.field_images,
        settings.side if spec is None else None,
        settings.boxes and str(settings.boxes),
    ]
    return sha256_of_lines([json.dumps(determined)])


def _network(subject: Subject) -> tuple[nn.Module, str | None]:
    if subject.job is not None:
        network, weights = prepare_network(subject.job)
        return network, weights.sha256
    torch.manual_seed(subject.seed or 0)
    return create_model(subject.model), None


class Images:
    """The images of an inspection: normalized tensors (N, 3, H, W), of a dataset or of noise."""

    def __init__(
        self, subject: Subject, settings: Settings, network: nn.Module, device: torch.device
    ) -> None:
        self.job, self.network, self.device = subject.job, network, device
        self.number = settings.images if self.job is None else len(self.job.split.items)
        self.side = settings.side if self.job is None else self.job.spec.resolution
        if self.number < 2:
            raise UsageError(f"an inspection needs two images or more, not {self.number}; use more --images")

    def batches(self, number: int, size: int, square: bool = False) -> Iterator[Tensor]:
        """Yield the first images of the dataset, of each class equally many, in batches of two or more.

        With ``square``, a detector's images are cropped to squares, so that all have one size.
        """
        sizes = _batch_sizes(number, size)
        if self.job is None:
            generator = torch.Generator().manual_seed(0)
            for size in sizes:
                noise = torch.randn(size, 3, self.side, self.side, generator=generator)
                yield noise.to(self.device)
            return
        split = self.job.split.subset(number)
        task = task_of(self.job.spec.task)
        indices = iter(range(number))
        loaded = load_batches(
            task.evaluation_images(replace(self.job, split=split)),
            task.batch_of,
            0,
            False,
            batch_sampler=[[next(indices) for _ in range(size)] for size in sizes],
        )
        with closing(loaded):
            for batch in loaded:
                if isinstance(batch, DataError):
                    raise batch
                assert not isinstance(batch, KeyboardInterrupt)
                yield self._tensor(batch.to(self.device, torch.contiguous_format), square)

    def _tensor(self, batch: object, square: bool) -> Tensor:
        if not isinstance(batch, DetectionBatch):
            images: Tensor = batch.images  # type: ignore[attr-defined]
            return images
        assert isinstance(self.network, Detector)
        if square:
            crops = [center_crop(image, [self.side, self.side]) for image in batch.images]
            return torch.stack([self.network.transform.normalize(crop) for crop in crops])
        padded, _ = self.network.transform(batch.images)
        tensors: Tensor = padded.tensors
        return tensors


def _batch_sizes(number: int, size: int) -> list[int]:
    """Divide images into batches of nearly equal size, at most ``size``."""
    return [len(part) for part in np.array_split(np.arange(number), ceil(number / size))]


def _advancing(batches: Iterator[Tensor], advance: Callable[[int], None]) -> Iterator[Tensor]:
    for batch in batches:
        yield batch
        advance(len(batch))


@torch.inference_mode()
def _depth_weights(trunk: Trunk, images: Images, advance: Callable[[int], None]) -> dict[str, Tensor]:
    """Return the weights (N, blocks, C) of the fused stages on the CPU; of detectors, image by image."""
    if not depth_weights_modules(trunk):
        return {}
    found: dict[str, list[Tensor]] = {}
    size = 1 if isinstance(images.network, Detector) else BATCH
    for batch in _advancing(images.batches(images.number, size), advance):
        for stage, weights in trunk.depth_attention_weights(batch).items():
            found.setdefault(stage, []).append(weights.float().cpu())
    return {stage: torch.cat(each) for stage, each in found.items()}


def distribution(stage: str, weights: Tensor) -> list[BlockWeights]:
    """Summarize weights (N, blocks, C) over images and channels, for each block."""
    values = weights.double().numpy()
    largest = values >= values.max(axis=1, keepdims=True) * (1 - 1e-6)
    found = []
    for block in range(values.shape[1]):
        own = values[:, block]
        found.append(
            BlockWeights(
                stage=stage,
                block=block,
                blocks=values.shape[1],
                mean=_rounded(own.mean()),
                sd=_rounded(own.mean(axis=1).std(ddof=1)) if len(own) > 1 else None,
                quantiles=_short(np.quantile(own, QUANTILES)),
                largest=_rounded(largest[:, block].mean()),
            )
        )
    return found


def _fields(
    trunk: Trunk, images: Images, settings: Settings, advance: Callable[[int], None]
) -> Iterator[FieldSize]:
    """Yield the sizes of receptive fields; with depth attention, also those of constant weights."""
    if settings.fields == "off":
        return
    stages = [info["module"] for info in trunk.feature_info]
    places = places_of(trunk, blocks=settings.fields == "blocks")
    for constant in (False, True) if depth_weights_modules(trunk) else (False,):
        batches = images.batches(min(settings.field_images, images.number), FIELD_BATCH, square=True)
        depths: dict[str, list[float]] = {}
        recorded = _recording(trunk, batches, depths if constant else {})
        found = receptive_fields(trunk, places, recorded, constant_weights=constant, advance=advance)
        for name, field in found.items():
            stage = next(each for each in stages if name == each or name.startswith(f"{each}."))
            size = _size(stage, name.removeprefix(stage).lstrip(".") or None, constant, field)
            if name in depths:
                radii = tuple(None if isnan(radius) else _rounded(radius) for radius in field.radii)
                size = size.model_copy(update={"radii": radii, "depths": _short(depths[name])})
            yield size


def _recording(
    trunk: Trunk, batches: Iterable[Tensor], depths: MutableMapping[str, list[float]]
) -> Iterator[Tensor]:
    """Pass on batches; after each forward pass, append the attention depths of its images by stage."""
    for batch in batches:
        with recorded_depth_weights(trunk) as recorded:
            yield batch
        for stage, found in stage_depths(recorded).items():
            depths.setdefault(stage, []).extend(found.tolist())


def _size(stage: str, block: str | None, constant: bool, field: ReceptiveField) -> FieldSize:
    known = bool(field.gradient.any())
    return FieldSize(
        stage=stage,
        block=block,
        constant_weights=constant,
        radius=_rounded(field.radius) if known else None,
        areas=_short(field.area(share) for share in SHARES) if known else None,
    )


def _sizes(job: AnyJob | None, settings: Settings) -> tuple[float | None, ...]:
    """Return the sizes of the objects in the images, or none if they are unknown."""
    if job is None or not (settings.boxes or has_object_sizes(job.split)):
        return ()
    return tuple(size and _rounded(size) for size in object_sizes(job.split, settings.boxes))


def _short(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(map(_rounded, values))


def _rounded(value: float) -> float:
    """Round to the 7 digits that float32 has, for a short file."""
    return float(f"{value:.7g}")
