"""Variants of ImageNet: what they are taken for, their labels, masked classes, and ReaL labels."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sdabench import create_model
from sdabench.cli import cli
from sdabench.data.imagenet import class_indices, read_imagenet, subsets
from sdabench.data.listing import Listing
from sdabench.data.official import val_labels
from sdabench.data.real_labels import read_real_labels, real_hits
from sdabench.data.source import DataSource
from sdabench.errors import DataError, UsageError
from sdabench.records.spec import protocol_at
from sdabench.training.job import evaluation_job
from sdabench.training.prediction import predict
from tests.helpers.datasets import make_imagenet

WNIDS = list(class_indices())
PROTOCOL = protocol_at(32, "classification")


@pytest.fixture
def picture(tmp_path):
    return next((make_imagenet(tmp_path / "one", 1, 1) / "val").rglob("*.JPEG"))


def write(root, folders, picture, name="art_0.jpg"):
    for folder in folders:
        (root / folder).mkdir(parents=True)
        shutil.copy(picture, root / folder / name)
    (root / "README.txt").touch()
    return root


def predictions(model, split, root):
    job = evaluation_job(model, DataSource("imagenet", root), split, protocol=PROTOCOL)
    torch.manual_seed(0)
    return job, predict(create_model(model).eval(), job, torch.device("cpu")).classes


def test_folders_named_by_index_have_the_labels_of_their_numbers(tmp_path, picture):
    """As in ImageNet-V2; sorted as text, 10 comes before 2."""
    root = write(tmp_path / "v2", map(str, range(1000)), picture)
    split = read_imagenet(root)
    assert all(str(item.label) == item.path.partition("/")[0] for item in split.items)
    assert split.classes == 1000
    assert "named by index" in split.describe().layout
    assert not split.complete
    listed = Listing.write(split.subset(3), tmp_path).read(
        DataSource("imagenet", root), "val", "classification"
    )
    assert listed == split.subset(3)
    shutil.rmtree(root / "7")
    with pytest.raises(DataError, match="999 folders that are named by numbers.*use --data folder="):
        read_imagenet(root)


@pytest.mark.parametrize("name", ["ImageNet-A", "ImageNet-R"])
def test_best_classes_of_a_and_r_are_among_their_own(tiny, tmp_path, picture, name):
    own = subsets()[name]
    assert len(own) == 200
    root = write(tmp_path / "d", [WNIDS[label] for label in own], picture)
    split = read_imagenet(root)
    assert f"the 200 classes of {name}" in split.layout
    job, masked = predictions(tiny, split, root)
    _, free = predictions(tiny, replace(split, candidates=None), root)
    assert set(masked.top5.flatten().tolist()) <= set(own)
    assert not set(free.top5.flatten().tolist()) <= set(own)
    assert (masked.label_probability > free.label_probability).all()
    assert job.spec.dataset.candidates == 200
    assert not job.spec.dataset.complete
    listed = Listing.write(split.subset(3), tmp_path).read(
        DataSource("imagenet", root), "val", "classification"
    )
    assert listed == split.subset(3)
    (root / WNIDS[next(label for label in range(1000) if label not in own)]).mkdir()
    shutil.rmtree(root / WNIDS[own[0]])
    assert read_imagenet(root).candidates is None


def test_known_classes_of_a_and_r():
    """ImageNet-A has the bald eagle and no goldfish, ImageNet-R the goldfish."""
    of_a, of_r = (set(subsets()[name]) for name in ("ImageNet-A", "ImageNet-R"))
    assert 22 in of_a & of_r
    assert 1 in of_r - of_a


def test_sketches_and_flat_folders_are_recognized(tmp_path, picture):
    assert (
        read_imagenet(write(tmp_path / "s", WNIDS[:2], picture, "sketch_4.JPEG")).layout == "ImageNet-Sketch"
    )
    flat = write(tmp_path / "flat", ["."], picture, "ILSVRC2012_val_00000001.JPEG")
    (flat / "ILSVRC2012_validation_ground_truth.txt").touch()
    assert "one flat folder" in read_imagenet(flat).layout


def real_labels(path, **known):
    labels = [[] for _ in range(50_000)]
    for number, classes in known.items():
        labels[int(number[1:]) - 1] = classes
    path.write_text(json.dumps(labels))
    return path


def test_real_accuracy_leaves_out_images_without_labels(tmp_path):
    labels = read_real_labels(real_labels(tmp_path / "real.json", n1=[3, 5], n2=[7], n4=[0]))
    paths = [f"n00000000/ILSVRC2012_val_{number:08}.JPEG" for number in (4, 2, 1, 3)]
    assert real_hits(paths, np.array([1, 7, 5, 9]), labels) == [False, True, True]
    with pytest.raises(UsageError, match="--labels has no label"):
        real_hits(paths[3:], np.array([9]), labels)


@pytest.mark.parametrize("content", ["[]", "{", "[[1]]", json.dumps([[1000]] * 50_000)])
def test_other_files_of_labels_are_refused(tmp_path, content):
    (tmp_path / "real.json").write_text(content)
    with pytest.raises(DataError, match="download real.json again"):
        read_real_labels(tmp_path / "real.json")


def test_real_accuracy_is_recorded(tiny, tmp_path, picture):
    root = tmp_path / "val"
    for number in (1, 2, 3):
        write(
            root / WNIDS[val_labels()[number - 1]], ["."], picture, f"ILSVRC2012_val_{number:08}.JPEG"
        ) and (root / WNIDS[val_labels()[number - 1]] / "README.txt").unlink()
    everything = real_labels(tmp_path / "real.json", n1=list(range(1000)), n3=list(range(1000)))
    arguments = ["eval", tiny, "--data", f"imagenet={tmp_path}", "--resolution", "32", "--output"]
    result = CliRunner().invoke(cli, [*arguments, str(tmp_path / "out"), "--labels", str(everything)])
    assert result.exit_code == 0, result.output
    assert "ReaL top-1 100.00 %" in " ".join(result.output.split())
    assert CliRunner().invoke(cli, [*arguments, str(tmp_path / "out")]).exit_code == 0
    records = [json.loads(line) for line in (tmp_path / "out/records.jsonl").read_text().splitlines()]
    assert [record["metrics"].get("real_pct") for record in records] == [100, None]
    assert len({record["spec_digest"] for record in records}) == 2
    other = make_imagenet(tmp_path / "other")
    arguments[3] = f"imagenet={other}"
    result = CliRunner().invoke(cli, [*arguments, str(tmp_path / "out"), "--labels", str(everything)])
    assert isinstance(result.exception, UsageError)
