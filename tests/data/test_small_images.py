"""CIFAR and Fashion-MNIST from their original files: pixels, labels, protocol, and error messages."""

import gzip
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

from sdabench.cli import cli
from sdabench.data.augmentation import Augmenter
from sdabench.data.images import EvaluationImages, seeded
from sdabench.data.listing import Listing
from sdabench.data.small_images import KINDS, read_arrays
from sdabench.data.source import DataSource
from sdabench.errors import DataError, UsageError
from sdabench.registry.recipe_parts import Augmentation
from sdabench.registry.recipes import load_recipe
from sdabench.tools.verify.file_inspection import inspect_files
from sdabench.training.job import training_job

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
NAMES = ["airplane", "automobile", "bird"]


def write_cifar(root, kind="cifar10", images=6):
    rng = np.random.default_rng(0)
    dataset = KINDS[kind]
    folder = root / dataset.folders[0]
    folder.mkdir(parents=True)
    for name in {name for names in dataset.files.values() for name in names}:
        pixels = rng.integers(0, 256, (images, 3072), dtype=np.uint8)
        labels = [number % 3 for number in range(images)]
        content = {"data": pixels, f"{dataset.prefix}labels": labels}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = {f"{dataset.prefix}label_names": [name.encode() for name in NAMES]}
    (folder / dataset.meta).write_bytes(pickle.dumps(names, protocol=2))
    return folder


def write_fashion(root, suffix=".gz", first=9):
    root.mkdir(parents=True)
    write = gzip.compress if suffix else bytes
    for name, images in (("train", 12), ("t10k", 10)):
        pixels = np.random.default_rng(images).integers(0, 256, (images, 28, 28), dtype=np.uint8)
        labels = bytes([first, *range(1, images)][:images]).translate(bytes(n % 10 for n in range(256)))
        shape = b"".join(number.to_bytes(4) for number in (images, 28, 28))
        (root / f"{name}-images-idx3-ubyte{suffix}").write_bytes(
            write(b"\0\0\x08\x03" + shape + pixels.tobytes())
        )
        (root / f"{name}-labels-idx1-ubyte{suffix}").write_bytes(write(b"\0\0\x08\x01" + shape[:4] + labels))
    return root


def test_pixels_and_labels_are_those_of_torchvision(tmp_path, monkeypatch):
    for kind, theirs in (("cifar10", CIFAR10), ("cifar100", CIFAR100), ("fashion-mnist", FashionMNIST)):
        root = tmp_path / kind
        write_fashion(root / "FashionMNIST/raw", "") if kind == "fashion-mnist" else write_cifar(root, kind)
        monkeypatch.setattr(theirs, "_check_integrity", lambda self: True, raising=False)
        if kind != "fashion-mnist":
            monkeypatch.setattr(theirs, "_load_meta", lambda self: None)
        for name in ("train", "val"):
            expected = theirs(str(root), train=name == "train")
            split = read_arrays(kind, root, name)
            images = EvaluationImages(split, KINDS[kind].preprocessing.model_copy(update={"resize": 32}))
            assert len(split.items) == len(expected)
            for index, item in enumerate(split.items):
                image, label = expected[int(item.path[-9:-4])]
                own = torch.from_numpy(np.array(image.convert("RGB").resize((32, 32), 2)))
                assert (images[index].image == own.permute(2, 0, 1)).all()
                assert item.label == label


def test_archive_and_folders_are_the_same_dataset(tmp_path):
    folder = write_cifar(tmp_path / "data")
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    splits = [read_arrays("cifar10", path) for path in (folder, folder.parent, archive, tmp_path)]
    assert len({split.listing_sha256 for split in splits}) == 1
    assert len({file.sha256 for split in splits for file in inspect_files(split)}) == 6
    assert splits[0].class_names == tuple(NAMES)
    assert "CIFAR-10's test set in cifar-10-python.tar.gz (32 x 32 pixels)" in splits[2].layout
    assert not splits[0].complete
    again = Listing.write(splits[0].subset(2), tmp_path).read(
        DataSource("cifar10", folder), "val", "classification"
    )
    assert again == splits[0].subset(2)


@pytest.mark.parametrize(
    ("kind", "content", "error", "message"),
    [
        ("cifar10", None, UsageError, "no CIFAR-10 at .*cifar-10-python.tar.gz, or with test_batch"),
        ("fashion-mnist", None, UsageError, "no Fashion-MNIST at .*t10k-images-idx3-ubyte"),
        ("cifar10", {b"data": Path("x"), b"labels": [0]}, DataError, "is not CIFAR-10 .*it needs pathlib"),
        (
            "cifar10",
            {b"data": np.zeros((1, 3072), np.uint8), b"labels": [7]},
            DataError,
            "labels of 3 classes",
        ),
        ("cifar10", {b"data": np.zeros((1, 3), np.uint8), b"labels": [0]}, DataError, "is not CIFAR-10"),
        ("cifar10", {b"data": np.zeros((1, 3072), np.uint8), b"labels": [-1]}, DataError, "classes, 0 to 2"),
        ("cifar10", {b"data": np.zeros((1, 3072), np.uint8), b"labels": [0.7]}, DataError, "classes, 0 to 2"),
    ],
)
def test_other_files_are_refused(tmp_path, kind, content, error, message):
    if content is not None:
        (write_cifar(tmp_path) / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(error, match=message):
        read_arrays(kind, tmp_path)


def test_names_that_identify_no_class_are_refused(tmp_path):
    folder = write_cifar(tmp_path)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [b"cat"] * 3}, protocol=2))
    with pytest.raises(DataError, match="with different names"):
        read_arrays("cifar10", tmp_path)


def test_clothes_of_another_size_are_refused(tmp_path):
    images = write_fashion(tmp_path / "d", "") / "t10k-images-idx3-ubyte"
    content = images.read_bytes()
    images.write_bytes(content[:8] + (14).to_bytes(4) + (56).to_bytes(4) + content[16:])
    with pytest.raises(DataError, match=r"images of \(14, 56\)"):
        read_arrays("fashion-mnist", tmp_path / "d")


def test_other_archives_are_refused_in_one_line(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(b"text")
    with pytest.raises(DataError, match="^[^\n]*; download it again$"):
        read_arrays("cifar10", tmp_path / "x.tar.gz")


def test_digits_of_mnist_are_not_taken_for_clothes(tmp_path):
    root = write_fashion(tmp_path / "d", "")
    header = (root / "t10k-labels-idx1-ubyte").read_bytes()[:8]
    (root / "t10k-labels-idx1-ubyte").write_bytes(header + bytes([7, 2, 1, 0, 4, 1, 4, 9, 5, 9]))
    with pytest.raises(DataError, match="digits of MNIST"):
        read_arrays("fashion-mnist", root)


def test_images_are_trained_and_evaluated_at_their_own_size_and_normalization(tmp_path):
    write_cifar(tmp_path)
    job = training_job("resnet50", DataSource("cifar10", tmp_path), load_recipe("cifar"))
    images = job.spec.protocol.preprocessing
    assert (images.resize, images.crop, images.mean) == (32, 32, (0.4914, 0.4822, 0.4465))
    larger = load_recipe("cifar").override(resolution=96)
    resized = training_job("resnet50", DataSource("cifar10", tmp_path), larger).spec.protocol.preprocessing
    assert (resized.resize, resized.crop) == (96, 96)


def test_padding_is_smaller_than_the_crop():
    with pytest.raises(ValueError, match="padding 32 must be smaller than the crop of 32 pixels"):
        Augmentation(crop=32, padding=32)


def test_padding_moves_images_within_black_borders():
    pixels = torch.arange(3 * 32 * 32).reshape(3, 32, 32).remainder(255).to(torch.uint8) + 1
    augment, found = Augmenter(Augmentation(crop=32, padding=4, flip=0)), set()
    for number in range(200):
        with seeded(number):
            image = augment(pixels)
        top, left = ((image[0] != 0).any(dim).nonzero()[0].item() for dim in (1, 0))
        bottom, right = ((image[0] != 0).any(dim).nonzero()[-1].item() for dim in (1, 0))
        shift = top or bottom - 31, left or right - 31
        moved = torch.roll(pixels, shift, (1, 2))
        inside = (
            slice(max(shift[0], 0), 32 + min(shift[0], 0)),
            slice(max(shift[1], 0), 32 + min(shift[1], 0)),
        )
        assert (image[:, *inside] == moved[:, *inside]).all()
        assert int((image[0] != 0).sum()) == (32 - abs(shift[0])) * (32 - abs(shift[1]))
        found.add(shift)
    assert {abs(each) for shift in found for each in shift} == {0, 1, 2, 3, 4}
    assert "padding" not in Augmentation().model_dump()


def test_training_is_recorded_with_what_was_read(tiny, tmp_path):
    data = f"fashion-mnist={write_fashion(tmp_path / 'd')}"
    options = ["--recipe", "cifar", "--epochs", "1", "--batch-size", "6", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, ["train", tiny, "--data", data, *options])
    assert result.exit_code == 0, result.output
    assert "28 x 28 pixels, gray, repeated in three channels" in result.stderr
    assert '"layout": "Fashion-MNIST\'s test set' in (tmp_path / "out/records.jsonl").read_text()
    arguments = ["eval", tiny, "--weights", str(tmp_path / "out"), "--output", str(tmp_path / "again")]
    assert CliRunner().invoke(cli, arguments).exit_code == 0


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_real_clothes_have_the_mean_of_the_protocol():
    split = read_arrays("fashion-mnist", DEBIAN, "train")
    assert (len(split.items), split.classes) == (60_000, 10)
    from sdabench.data.small_images import _images

    pixels = _images("fashion-mnist", DEBIAN.resolve(), "train").pixels / 255
    own = KINDS["fashion-mnist"].preprocessing
    assert (round(pixels.mean(), 4), round(pixels.std(), 4)) == (own.mean[0], own.std[0])
