"""Decoded images that processes share: the same pixels as Pillow's, and nothing hidden by them."""

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
from sdabench.registry.recipes import Augmentation

SMALL = Preprocessing.at(32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def split(textures, tmp_path):
    """Of a dataset that a test may damage."""
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


def shared(split):
    """Read the images as a new process does."""
    decoded = decoded_images(split)
    return [decode(path, decoded=decoded) for path in paths(split)]


def no_decoding(monkeypatch):
    def refuse(data, size=None):
        raise AssertionError("decoded")

    monkeypatch.setattr("sdabench.data.images.decode_bytes", refuse)


def same_as_pillow(split):
    return all(
        np.array_equal(np.asarray(image), pillow(path)) and digest == sha256_of_file(path)
        for path, (image, digest) in zip(paths(split), shared(split), strict=True)
    )


def test_the_pixels_are_pillows_and_are_decoded_once(split, monkeypatch):
    no_decoding(monkeypatch)
    assert same_as_pillow(split)
    path = cached_file(split)
    before = path.stat()
    monkeypatch.setattr("sdabench.data.decoded.decode_bytes", None)
    assert same_as_pillow(split)
    assert path.stat() == before


def test_inputs_of_evaluation_and_training_are_the_same_without(split, cache):
    def inputs():
        few = split.subset(3)
        training = TrainingImages(few, Augmentation(crop=32), seed=3)
        return [EvaluationImages(few, SMALL)[1], training[2, 1]]

    cache.write_text("no folder")
    plain = inputs()
    cache.unlink()
    mapped = inputs()
    assert len(list((cache / KIND).iterdir())) == 1
    for one, other in zip(plain, mapped, strict=True):
        assert one.image.equal(other.image)
        assert (one.label, one.sha256) == (other.label, other.sha256)


def test_detection_has_them_too_and_grey_ones(tmp_path, monkeypatch):
    write_detection(tmp_path / "shapes", DetectionPlan(categories=2, train=1, val=6, image_size=128))
    split = DataSource("synthetic", tmp_path / "shapes").read("val", "detection")
    assert "L" in map(mode, paths(split))
    no_decoding(monkeypatch)
    assert same_as_pillow(split)
    item = split.items[0]
    sample = DetectionImages(split, Resizing(short=min(item.height, item.width), long=1000))[0]
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), pillow(paths(split)[0]))


def test_a_size_that_the_annotations_do_not_say_is_an_error(split):
    [path, *_] = paths(split)
    height, width, _ = pillow(path).shape
    decoded = decoded_images(split)
    assert not isinstance(decode(path, (width, height), decoded), DataError)
    assert "its annotations say 7x5" in str(decode(path, (7, 5), decoded))


def test_an_image_that_is_changed_or_broken_later_is_seen_as_it_is(split):
    shared(split)
    changed, broken, gone, *_ = paths(split)
    Image.new("RGB", (20, 30), "red").save(changed)
    broken.write_bytes(b"\xff\xd8 cut short")
    gone.unlink()
    first, second, third, *others = shared(split)
    assert first[0].size == (20, 30)
    assert str(second) == str(decode(broken))
    assert "restore it from the original archive" in str(second)
    assert "cannot be read" in str(third)
    assert not any(isinstance(one, DataError) for one in others)


def test_an_image_that_is_broken_when_they_are_made_is_an_error_and_the_others_are_there(split, monkeypatch):
    broken, *_ = paths(split)
    broken.write_bytes(b"\xff\xd8 cut short")
    assert isinstance(shared(split)[0], DataError)
    broken.unlink()
    no_decoding(monkeypatch)
    assert [isinstance(one, DataError) for one in shared(split)] == [True] + [False] * (len(split.items) - 1)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, -1, -32, -40, -60])
def test_a_damaged_file_of_them_gives_no_other_pixels(split, place):
    shared(split)
    path = cached_file(split)
    data = bytearray(path.read_bytes())
    data[int(place * len(data)) if isinstance(place, float) else place] ^= 4
    path.write_bytes(data)
    assert same_as_pillow(split)


@pytest.mark.parametrize("kept", [0, 3, 31, 32, 40, 1000, -1])
def test_a_file_that_is_cut_off_is_made_anew(split, kept):
    shared(split)
    path = cached_file(split)
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    assert same_as_pillow(split)
    assert path.read_bytes() == whole


def test_where_they_cannot_be_written_images_are_decoded(split, cache, monkeypatch):
    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", full)
        assert same_as_pillow(split)
    assert not list((cache / "decoded").iterdir())
    (cache / "decoded").rmdir()
    (cache / "decoded").write_text("no folder")
    assert same_as_pillow(split)


def test_other_images_or_another_decoder_have_another_file(split, monkeypatch):
    paths = {cached_file(split), cached_file(split.subset(3))}
    monkeypatch.setattr("PIL.__version__", "1.1.7")
    paths.add(cached_file(split))
    monkeypatch.setattr("PIL.features.version", lambda name: "6b")
    paths.add(cached_file(split))
    assert len(paths) == 4


def test_a_loaders_process_gets_the_path_and_not_the_pixels(split):
    images = EvaluationImages(split, SMALL)
    first = images[0]
    assert cached_file(split).stat().st_size > 20_000
    assert len(pickle.dumps(images)) < 5000
    assert pickle.loads(pickle.dumps(images))[0].image.equal(first.image)


def test_only_generated_datasets_that_are_small_have_them(split, imagenet, monkeypatch):
    assert decoded_images(DataSource("imagenet", imagenet).read("val")) is None
    total = sum(path.stat().st_size for path in paths(split))
    assert total < MAX_BYTES
    monkeypatch.setattr("sdabench.data.decoded.MAX_BYTES", total)
    assert decoded_images(split) is not None
    monkeypatch.setattr("sdabench.data.decoded.MAX_BYTES", total - 1)
    assert decoded_images(split) is None
