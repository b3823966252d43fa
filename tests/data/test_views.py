"""The evaluation view and the normalization are bit-identical to torchvision."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision import transforms
from torchvision.transforms.functional import pil_to_tensor

from sdabench.data import views
from sdabench.data.description import INTERPOLATIONS, Preprocessing, Resizing
from sdabench.data.folders import ImageSplit, Item
from sdabench.data.images import Batch, EvaluationImages, Sample
from sdabench.data.views import Normalization, resize_and_crop, resize_window
from sdabench.weights.fetch import from_timm, from_torchvision

DEFAULT = Preprocessing()
SIZES = [
    (500, 375),
    (375, 500),
    (333, 500),
    (640, 427),
    (256, 256),
    (300, 256),
    (256, 300),
    (90, 60),
    (60, 90),
]
EXTREME = [(900, 40), (40, 900), (120, 257), (257, 120), (224, 224), (3, 2), (2, 3), (600, 601)]


def noise(width, height):
    pixels = np.random.default_rng([width, height]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def torchvision_crop(image, preprocessing):
    interpolation = transforms.InterpolationMode(preprocessing.interpolation)
    resized = transforms.Resize(preprocessing.resize, interpolation)(image)
    return transforms.CenterCrop(preprocessing.crop)(resized)


@pytest.mark.parametrize("size", SIZES + EXTREME, ids=str)
@pytest.mark.parametrize(
    "preprocessing",
    [
        DEFAULT,
        Preprocessing.at(160),
        Preprocessing(resize=64, crop=55),
        Preprocessing(resize=32, crop=32),
        Preprocessing(resize=256, crop=288),
        Preprocessing(interpolation="bicubic"),
    ],
    ids=lambda each: f"{each.resize}-{each.crop}-{each.interpolation}",
)
def test_center_crop_is_bit_identical_to_torchvision(size, preprocessing):
    image = noise(*size)
    assert resize_and_crop(image, preprocessing).tobytes() == torchvision_crop(image, preprocessing).tobytes()


def test_crop_is_computed_by_rows():
    """Otherwise the test above would compare torchvision with itself."""
    assert views._rows_are_first()
    image = noise(500, 375)
    assert views._crop_by_rows(image, 256, 224).tobytes() == torchvision_crop(image, DEFAULT).tobytes()


def test_crop_is_unchanged_if_pillow_resizes_differently(monkeypatch):
    monkeypatch.setattr(views, "_crop_by_rows", lambda image, resize, crop: Image.new("RGB", (crop, crop)))
    views._rows_are_first.cache_clear()
    try:
        image = noise(500, 375)
        assert resize_and_crop(image, DEFAULT).tobytes() == torchvision_crop(image, DEFAULT).tobytes()
    finally:
        views._rows_are_first.cache_clear()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("mean", "std"), [((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5, 0.4, 0.3), (0.5, 0.6, 0.7))]
)
def test_normalized_batch_is_bit_identical_to_torchvision(mean, std, memory_format):
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)  # every pixel value in each channel
    images = [Image.fromarray(ramp), noise(16, 16)]
    reference = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    samples = [
        Sample(pil_to_tensor(each), 7, n, "", Normalization(mean, std)) for n, each in enumerate(images)
    ]
    batch = Batch.of(samples, [])
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    for micro_batch in (batch, *batch.micro_batches(2)):
        moved = micro_batch.to(torch.device("cpu"), memory_format)
        assert moved.images.is_contiguous(memory_format=memory_format)
        assert torch.equal(moved.images, torch.stack([reference(images[n]) for n in micro_batch.indices]))
        assert micro_batch.images.dtype == torch.uint8, "it can be moved once more, in smaller parts"


@pytest.mark.parametrize("window", [(0, 0, 375, 500), (10, 20, 300, 200), (100, 3, 40, 37), (374, 499, 1, 1)])
def test_resized_window_equals_pillow_within_one(window):
    """Weights have 16 bits in torch and 22 in Pillow, so a value between two integers can be rounded either way."""
    top, left, height, width = window
    image = Image.linear_gradient("L").resize((500, 375))
    image = Image.merge("RGB", (image, image.rotate(90), noise(500, 375).getchannel(0)))
    cut = image.crop((left, top, left + width, top + height))
    expected = pil_to_tensor(cut.resize((224, 224), Image.Resampling.BILINEAR)).int()
    difference = (resize_window(pil_to_tensor(image), window, 224).int() - expected).abs()
    assert difference.max() <= 1
    assert difference.float().mean() < 0.1


def evaluated(path, preprocessing):
    """Return the input of a network for one file, as an evaluation computes it."""
    split = ImageSplit("imagenet", "val", path.parent.parent, (Item(f"a/{path.name}", 1, 0),), 1)
    batch = Batch.of([EvaluationImages(split, preprocessing)[0]], [])
    return batch.to(torch.device("cpu"), torch.contiguous_format).images[0]


@pytest.fixture
def photographs(tmp_path):
    (tmp_path / "a").mkdir()
    paths = []
    for size in [(500, 375), (333, 500), (90, 201), (300, 120)]:
        paths.append(tmp_path / f"a/{size[0]}.png")
        noise(*size).save(paths[-1])
    return paths


def presets():
    """Return weights of torchvision's classifiers, one for each different preprocessing."""
    members = {name: torchvision.models.get_weight(name) for name in from_torchvision._names()}
    distinct = {repr(member.transforms()): name for name, member in members.items()}
    return sorted(distinct.values())


@pytest.mark.parametrize("name", presets())
def test_protocol_of_torchvision_is_bit_identical(name, photographs):
    transform = torchvision.models.get_weight(name).transforms()
    preprocessing = from_torchvision.locate_file(name).published.preprocessing
    for path in photographs:
        with Image.open(path) as image:
            assert torch.equal(evaluated(path, preprocessing), transform(image))


@pytest.mark.parametrize(
    "name", ["resnet50.a1_in1k", "resnet50.tv2_in1k", "resnet50.fb_swsl_ig1b_ft_in1k", "seresnet50.ra2_in1k"]
)
def test_protocol_of_timm_is_bit_identical(name, photographs):
    timm = pytest.importorskip("timm")
    config = timm.models.get_pretrained_cfg(name).to_dict()
    settings = timm.data.resolve_data_config(pretrained_cfg=config, use_test_size=True)
    transform = timm.data.create_transform(**settings)
    preprocessing = from_timm.locate_file(name).published.preprocessing
    for path in photographs:
        with Image.open(path) as image:
            assert torch.equal(evaluated(path, preprocessing), transform(image))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_interpolation_is_that_of_pillow(interpolation):
    image, own = noise(120, 90), Preprocessing(resize=60, crop=56, interpolation=interpolation)
    resized = image.resize((80, 60), Image.Resampling[interpolation.upper()]).crop((12, 2, 68, 58))
    assert resize_and_crop(image, own).tobytes() == resized.tobytes()


@pytest.mark.parametrize(
    ("preprocessing", "resolution", "resize"),
    [(Preprocessing(), 160, 183), (Preprocessing(resize=232), 112, 116), (Preprocessing(resize=224), 96, 96)],
)
def test_another_resolution_keeps_the_proportion(preprocessing, resolution, resize):
    resized = preprocessing.resized(resolution)
    assert (resized.crop, resized.resize) == (resolution, resize)
    assert Resizing(short=400, long=800).resized(600).long == 1200
