"""Cache of decoded images that processes share: pixels equal Pillow's, and errors are not hidden."""

import errno
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from sdabench.cache import entry_path
from sdabench.data.coco_images import DetectionImages
from sdabench.data.decoded import KIND, MAX_BYTES, decoded_images
from sdabench.data.description import Preprocessing, Resizing
from sdabench.data.images import EvaluationImages, TrainingImages, decode
from sdabench.data.source import DataSource
from sdabench.data.synthetic.detection import DetectionPlan, write_detection
from sdabench.errors import DataError
from sdabench.hashing import sha256_of_file
from sdabench.registry.recipe_parts import Augmentation

SMALL = Preprocessing.at(32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def split(textures, tmp_path):
    """Read a copy of a dataset that a test may damage."""
    return DataSource("synthetic", shutil.copytree(textures, tmp_path / "own")).read("train")


def pillow(path):
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def mode(path):
    with Image.open(path) as image:
        return image.mode


def paths(split):
    return [split.root / item.path for item in split.items]


def cached_file(split):
    return entry_path(KIND, decoded_images(split).key)


def load(split):
    """Read the images as a new process does."""
    decoded = decoded_images(split)
    return [decode(path, decoded=decoded) for path in paths(split)]


def forbid_decoding(monkeypatch):
    def refuse(data, size=None):
        raise AssertionError("decoded")

    monkeypatch.setattr("sdabench.data.images.decode_bytes", refuse)


def same_as_pillow(split):
    return all(
        np.array_equal(np.asarray(image), pillow(path)) and digest == sha256_of_file(path)
        for path, (image, digest) in zip(paths(split), load(split), strict=True)
    )


def test_pixels_equal_pillow_and_are_decoded_once(split, monkeypatch):
    forbid_decoding(monkeypatch)
    assert same_as_pillow(split)
    path = cached_file(split)
    before = path.stat()
    monkeypatch.setattr("sdabench.data.decoded.decode_bytes", None)
    assert same_as_pillow(split)
    assert path.stat() == before


def test_inputs_are_the_same_without_the_cache(split, cache):
    def inputs():
        subset = split.subset(3)
        training = TrainingImages(subset, Augmentation(crop=32), seed=3)
        return [EvaluationImages(subset, SMALL)[1], training[2, 1]]

    cache.write_text("no folder")
    plain = inputs()
    cache.unlink()
    mapped = inputs()
    assert len(list((cache / KIND).iterdir())) == 1
    for one, other in zip(plain, mapped, strict=True):
        assert one.image.equal(other.image)
        assert (one.label, one.sha256) == (other.label, other.sha256)


def test_detection_and_gray_images_are_cached(tmp_path, monkeypatch):
    write_detection(tmp_path / "shapes", DetectionPlan(categories=2, train=1, val=6, image_size=128))
    split = DataSource("synthetic", tmp_path / "shapes").read("val", "detection")
    assert "L" in map(mode, paths(split))
    forbid_decoding(monkeypatch)
    assert same_as_pillow(split)
    item = split.items[0]
    sample = DetectionImages(split, Resizing(short=min(item.height, item.width), long=1000))[0]
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), pillow(paths(split)[0]))


def test_size_that_contradicts_annotations_is_an_error(split):
    [path, *_] = paths(split)
    height, width, _ = pillow(path).shape
    decoded = decoded_images(split)
    assert not isinstance(decode(path, (width, height), decoded), DataError)
    assert "its annotations say 7x5" in str(decode(path, (7, 5), decoded))


def test_image_changed_or_broken_later_is_noticed(split):
    load(split)
    changed, broken, gone, *_ = paths(split)
    Image.new("RGB", (20, 30), "red").save(changed)
    broken.write_bytes(b"\xff\xd8 cut short")
    gone.unlink()
    first, second, third, *others = load(split)
    assert first[0].size == (20, 30)
    assert str(second) == str(decode(broken))
    assert "restore it from the original archive" in str(second)
    assert "cannot be read" in str(third)
    assert not any(isinstance(one, DataError) for one in others)


def test_broken_image_does_not_affect_the_other_images(split, monkeypatch):
    broken, *_ = paths(split)
    broken.write_bytes(b"\xff\xd8 cut short")
    assert isinstance(load(split)[0], DataError)
    broken.unlink()
    forbid_decoding(monkeypatch)
    assert [isinstance(one, DataError) for one in load(split)] == [True] + [False] * (len(split.items) - 1)


@pytest.mark.parametrize("position", [0.0, 0.3, 0.6, -1, -32, -40, -60])
def test_damaged_cache_never_changes_pixels(split, position):
    load(split)
    path = cached_file(split)
    data = bytearray(path.read_bytes())
    data[int(position * len(data)) if isinstance(position, float) else position] ^= 4
    path.write_bytes(data)
    assert same_as_pillow(split)


@pytest.mark.parametrize("length", [0, 3, 31, 32, 40, 1000, -1])
def test_truncated_cache_is_rebuilt(split, length):
    load(split)
    path = cached_file(split)
    content = path.read_bytes()
    path.write_bytes(content[:length])
    assert same_as_pillow(split)
    assert path.read_bytes() == content


def test_images_are_decoded_if_the_cache_is_unwritable(split, cache, monkeypatch):
    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", full)
        assert same_as_pillow(split)
    assert not list((cache / "decoded").iterdir())
    (cache / "decoded").rmdir()
    (cache / "decoded").write_text("no folder")
    assert same_as_pillow(split)


def test_cache_key_depends_on_images_and_decoder(split, monkeypatch):
    paths = {cached_file(split), cached_file(split.subset(3))}
    monkeypatch.setattr("PIL.__version__", "1.1.7")
    paths.add(cached_file(split))
    monkeypatch.setattr("PIL.features.version", lambda name: "6b")
    paths.add(cached_file(split))
    assert len(paths) == 4


def test_workers_receive_the_path_not_the_pixels(split):
    images = EvaluationImages(split, SMALL)
    first = images[0]
    assert cached_file(split).stat().st_size > 20_000
    assert len(pickle.dumps(images)) < 5000
    assert pickle.loads(pickle.dumps(images))[0].image.equal(first.image)


def test_only_small_generated_datasets_are_cached(split, imagenet, monkeypatch):
    assert decoded_images(DataSource("imagenet", imagenet).read("val")) is None
    total = sum(path.stat().st_size for path in paths(split))
    assert total < MAX_BYTES
    monkeypatch.setattr("sdabench.data.decoded.MAX_BYTES", total)
    assert decoded_images(split) is not None
    monkeypatch.setattr("sdabench.data.decoded.MAX_BYTES", total - 1)
    assert decoded_images(split) is None
