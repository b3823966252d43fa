"""Class folders of any name: layouts, labels by name, and error messages."""

import errno
import os
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from sdabench import create_model
from sdabench.cli import cli
from sdabench.data import sorting
from sdabench.data.class_folders import read_folder
from sdabench.data.classes import ClassList
from sdabench.data.imagenet import class_indices
from sdabench.data.listing import Listing
from sdabench.data.sorting import divide_images
from sdabench.data.source import DataSource
from sdabench.data.subset import divided
from sdabench.errors import DataError, OutputError, UsageError, WeightsError
from sdabench.records.spec import protocol_at
from sdabench.registry.recipes import ClassificationRecipe
from sdabench.tools.verify.reports import count_classes, find_other_categories
from sdabench.training.evaluation import prepare_network
from sdabench.training.job import evaluation_job, training_job
from sdabench.training.prediction import predict
from sdabench.weights.classes import describe_order, metadata_of
from sdabench.weights.local import LocalWeights
from tests.helpers.training import RECIPE


def write(root, *classes, images=2, name="{}.png"):
    for index, folder in enumerate(classes):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            hue = Image.linear_gradient("L").rotate(40 * index + 20 * number).resize((40, 36))
            Image.merge("RGB", (hue, hue, hue.transpose(Image.Transpose.ROTATE_180))).save(
                root / folder / name.format(number)
            )
    return root


def test_labels_are_those_of_all_splits_in_the_order_of_their_names(tmp_path):
    write(tmp_path / "train", "dog", "Emu", "cat")
    write(tmp_path / "valid", "dog", "Emu")
    split = read_folder(tmp_path)
    assert split.class_names == ("Emu", "cat", "dog")  # as torchvision's ImageFolder sorts
    assert {item.path: item.label for item in split.items} == {
        "Emu/0.png": 0, "Emu/1.png": 0, "dog/0.png": 2, "dog/1.png": 2,
    }  # fmt: skip
    assert split.describe().layout == "3 class folders in valid/"
    assert not split.describe().complete


def test_folders_within_a_class_belong_to_it_and_other_files_are_counted(tmp_path):
    write(tmp_path, "a", "b/deep", name="{}.WebP")
    (tmp_path / "a/notes.txt").touch()
    (tmp_path / "README").touch()
    (tmp_path / ".hidden").touch()
    split = read_folder(tmp_path)
    assert [item.path for item in split.items] == [
        "a/0.WebP", "a/1.WebP", "b/deep/0.WebP", "b/deep/1.WebP",
    ]  # fmt: skip
    assert "not divided into train/ and val/; 2 other files left out" in split.layout


def test_a_class_may_be_named_train(tmp_path):
    write(tmp_path, "plane", "train")
    assert read_folder(tmp_path).class_names == ("plane", "train")


@pytest.mark.parametrize(
    ("folders", "split", "message"),
    [
        ([], "val", "no dataset folder at .*CLASS"),
        (["a", "b"], "train", "has no train/ and val/; 'sdabench data split"),
        (["train/a", "train/b"], "val", "has no val/; 'sdabench data split .*train DEST"),
        (["flowers/train/a", "flowers/val/a"], "val", "use --data folder=.*flowers"),
    ],
)
def test_other_layouts_get_the_next_step(tmp_path, folders, split, message):
    root = tmp_path / "data"
    for folder in folders:
        write(root, folder)
    with pytest.raises(UsageError, match=message):
        read_folder(root, split)


def test_images_without_a_class_folder_are_refused(tmp_path):
    write(tmp_path, ".")
    with pytest.raises(DataError, match="outside of class folders"):
        read_folder(tmp_path)
    with pytest.raises(UsageError, match="folder has no boxes"):
        DataSource("folder", tmp_path).check("detection")


def test_names_of_splits_may_have_capitals(tmp_path):
    write(tmp_path, "Train/a", "Val/b")
    assert read_folder(tmp_path).class_names == ("a", "b")
    assert "in Val/" in read_folder(tmp_path).layout


def test_stray_images_beside_class_folders_are_reported(tmp_path):
    write(tmp_path, "train/a", "val/a", "val")
    with pytest.raises(DataError, match="val has images outside of class folders"):
        read_folder(tmp_path)


@pytest.mark.parametrize(("link", "target"), [("a/up", ".."), ("a/b", "../b")])
def test_links_to_folders_above_are_refused(tmp_path, link, target):
    write(tmp_path, "a", "b")
    (tmp_path / "b/a").symlink_to("../a")
    assert read_folder(tmp_path).class_names == ("a", "b")  # images of b are those of a too
    (tmp_path / link).symlink_to(target)
    with pytest.raises(DataError, match="which contains it; delete the link"):
        read_folder(tmp_path)


def test_names_match_in_composed_and_decomposed_form():
    composed, other = "Caf\u00e9 \u0915\u093f", "Caf\u0065\u0301 \u0915\u093f"
    assert ClassList(names=(composed,)).order_in(ClassList(names=(other,))) == (0,)
    assert ClassList(names=("\u0915\u093f",)).order_in(ClassList(names=("\u0915\u0940",))) is None


def test_listing_keeps_the_classes_that_a_subset_lacks(tmp_path):
    source = DataSource("folder", write(tmp_path / "d", "a", "b", "c"))
    split = source.read("val").subset(2)
    again = Listing.write(split, tmp_path).read(source, "val", "classification")
    assert again == split
    assert again.num_classes == 3


def test_records_of_other_class_lists_are_other_experiments(tmp_path):
    both = evaluation_job("resnet50", *_read(write(tmp_path / "two", "a", "b"), 2)).spec
    more = evaluation_job("resnet50", *_read(write(tmp_path / "three", "a", "b", "c"), 2)).spec
    assert both.dataset.listing_sha256 == more.dataset.listing_sha256
    assert both.spec_digest != more.spec_digest


def _read(root, images):
    source = DataSource("folder", root)
    split = source.read("val")
    return source, split.select([item for item in split.items if item.path[0] in "ab"])


def test_training_needs_images_of_each_validated_class(tmp_path):
    write(tmp_path / "train", "a", "b")
    write(tmp_path / "val", "a", "c")
    source = DataSource("folder", tmp_path)
    with pytest.raises(DataError, match=r"train has no training images of c, which .*val has for"):
        training_job("resnet50", source, ClassificationRecipe(**RECIPE))
    issue = find_other_categories({"train": source.read("train"), "val": source.read("val")})
    assert issue is not None
    assert issue.level == "error"
    assert count_classes(source.read("val")).missing == ("b",)


@pytest.fixture
def job_with(tiny, tmp_path):
    """Return a function that makes an evaluation job for a folder with weights of named classes."""

    def job_with(root, names, outputs=None):
        torch.manual_seed(1)
        path = tmp_path / "weights.safetensors"
        state = create_model(tiny, num_classes=outputs or len(names)).state_dict()
        state["fc.bias"] += torch.linspace(-1, 1, len(state["fc.bias"]))
        save_file(state, path, metadata=metadata_of(ClassList(names=tuple(names))))
        return job_of(tiny, root, path)

    return job_with


def job_of(model, root, weights):
    source, protocol = DataSource("folder", root), protocol_at(32, "classification")
    return evaluation_job(model, source, source.read("val"), LocalWeights.of_file(weights), protocol=protocol)


def test_a_subset_of_the_classes_is_mapped_by_name(job_with, tmp_path):
    """The best of all classes of the weights, however these are ordered, and labels of the own classes."""
    root = write(tmp_path / "d", "Dog", "cat")
    names = ["zebra", "dog", "ant", "cat"]
    job = job_with(root, names)
    assert job.split.class_names == ("ant", "cat", "dog", "zebra")
    assert [(item.path[:3], item.label) for item in job.split.items[::2]] == [("Dog", 2), ("cat", 1)]
    assert "among all classes of the weights" in describe_order(job.weights, job.split)
    network = prepare_network(job)[0]
    dogs = {"fc.bias": torch.tensor([-9.0, 9, 0, 0]), "fc.weight": torch.zeros_like(network.fc.weight)}
    save_file(network.state_dict() | dogs, job.weights, metadata=metadata_of(ClassList(names=tuple(names))))
    found = predict(prepare_network(job_of(job.model, root, job.weights))[0], job, torch.device("cpu"))
    assert {job.split.class_names[index] for index in found.classes.top5[:, 0]} == {"dog"}
    assert found.metrics()["classification"]["top1_pct"] == 50


def test_other_classes_are_refused(job_with, tmp_path):
    with pytest.raises(WeightsError, match="only the dataset has bird"):
        prepare_network(job_with(write(tmp_path / "d", "bird", "cat"), ["cat", "dog"]))


@pytest.mark.parametrize("names", [[], ["tench", "goldfish"]], ids=["unnamed", "in words"])
def test_imagenet_classifiers_are_mapped_by_wnid(job_with, tmp_path, names):
    root = write(tmp_path / "d", "n03000684", "n01440764")
    job = job_with(root, names, outputs=1000)
    assert [item.label for item in job.split.items] == [0, 0, 491, 491]
    assert job.split.class_names == tuple(class_indices())
    assert "ImageNet's" in describe_order(job.weights, job.split)
    assert not job.split.complete


def test_weights_for_own_wnids_are_evaluated_below_imagenet_too(job_with, tmp_path):
    write(tmp_path / "d/val", "n03000684", "n01440764")
    job = job_with(tmp_path / "d", ["n03000684", "n01440764"])
    source = DataSource("imagenet", tmp_path / "d")
    below = evaluation_job(job.model, source, source.read("val"), LocalWeights.of_file(job.weights))
    assert [item.label for item in below.split.items] == [0, 0, 1, 1]
    assert below.class_order == (1, 0)
    assert not below.spec.dataset.complete


def test_own_classes_are_trained_stored_and_evaluated(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "all", "cat", "dog", "Emu", images=4)
    recipe = tmp_path / "quick.yaml"
    recipe.write_text(
        "title: a quick one\nepochs: 1\nbatch_size: 6\noptimizer: {learning_rate: 0.01}\n"
        "augmentation: {crop: 32}\nvalidation: {crop: 32, every_epochs: 0}\n"
    )
    for command in (
        ["data", "split", "all", "parts", "--val", "0.25"],
        ["train", tiny, "--data", "folder=parts", "--recipe", "quick.yaml", "--output", "out"],
        ["eval", tiny, "--weights", "out", "--output", "again"],
        ["eval", tiny, "--weights", "out", "--data", "folder=all", "--limit", "5", "--output", "all-out"],
    ):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 0, result.output
    assert "on 5 of 12 images of 3 classes" in " ".join(result.output.split())
    assert "read as 3 class folders, not divided into train/ and val/" in result.stderr
    (tmp_path / "all/cat").rename(tmp_path / "all/lynx")
    result = CliRunner().invoke(cli, ["eval", tiny, "--weights", "out", "--data", "folder=all"])
    assert result.exit_code != 0
    assert "only the dataset has lynx" in f"{result.output}{result.exception}"


def test_division_takes_a_share_of_each_class(tmp_path):
    split = read_folder(write(write(tmp_path, "many", images=10), "few", images=2))
    train, val = divided(split, 0.3, seed=0)
    assert [sum(item.path.startswith(name) for item in val.items) for name in ("few", "many")] == [1, 3]
    assert {*train.items} | {*val.items} == {*split.items}
    assert divided(split, 0.3, seed=0)[1] == val
    with pytest.raises(DataError, match="class few has only one image"):
        divided(replace(split, items=split.items[1:]), 0.3, seed=0)


def test_stopped_division_leaves_no_part_of_a_dataset(tmp_path):
    images, folder = tmp_path / "all", tmp_path / "parts"
    split = read_folder(write(write(images, "many", images=4), "few", images=2))
    train, val = divided(split, 0.5, seed=0)
    parts, done = {"train": train, "val": val}, []

    def stop_at_fourth(images):
        done.append(images)
        if len(done) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        divide_images(parts, folder, stop_at_fourth)
    assert [*tmp_path.iterdir()] == [images]
    divide_images(parts, folder)
    again = [read_folder(folder, name) for name in parts]
    assert [[item.path for item in part.items] for part in again] == [
        [item.path for item in part.items] for part in (train, val)
    ]
    with pytest.raises(UsageError, match="exists and is not empty; choose another folder"):
        divide_images(parts, folder)
    with pytest.raises(UsageError, match="inside of"):
        divide_images(parts, images / "parts")


def test_division_that_cannot_be_written_names_the_file_in_its_folder(tmp_path, monkeypatch):
    split = read_folder(write(tmp_path / "all", "few", images=2))

    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sorting, "_link_or_copy", full)
    with pytest.raises(
        OutputError, match=f"cannot write {tmp_path}/parts/val/few/.*: No space .*; make room"
    ):
        divide_images({"val": split}, tmp_path / "parts")
