"""``sdabench data sort``, and what ``eval`` says about labels in another order."""

import json

import torch
from PIL import Image

from sdabench import create_model
from tests.helpers.datasets import make_imagenet
from tests.helpers.program import assert_error, sdabench


def test_flat_images_are_sorted_into_class_folders(tmp_path):
    flat, folder = tmp_path / "flat", tmp_path / "val"
    flat.mkdir()
    for number in (1, 2):
        Image.new("L", (8, 8)).save(flat / f"ILSVRC2012_val_{number:08}.JPEG")
    for counts in ("2 linked, 0 copied, 0 already there", "0 linked, 0 copied, 2 already there"):
        result = sdabench("data", "sort", flat, folder)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == f"2 images in {folder}: {counts}; use them with --data imagenet={folder}\n"
    assert (folder / "n01751748/ILSVRC2012_val_00000001.JPEG").samefile(flat / "ILSVRC2012_val_00000001.JPEG")
    assert_error(sdabench("data", "sort", flat, flat / "sorted"), 2, "is inside of")
    assert_error(sdabench("data", "sort", tmp_path / "nowhere", folder), 2, "no dataset folder at")


def test_accuracy_near_chance_points_to_the_order_of_labels(tmp_path):
    network = create_model("resnet50")
    torch.nn.init.zeros_(network.fc.weight)
    network.fc.bias.data = torch.arange(1000.0).eq(5).float()  # no image is of class 5
    torch.save(network.state_dict(), tmp_path / "w.pth")
    data = f"imagenet={make_imagenet(tmp_path / 'd', images=34)}"
    result = sdabench(
        "eval", "resnet50", "--data", data, "--weights", tmp_path / "w.pth", "--resolution", 32,
        "--output", tmp_path / "o", "--json",
    )  # fmt: skip
    assert json.loads(result.stdout)["metrics"]["top1_pct"] == 0
    assert "The accuracy is near chance (0.1 %)" in result.stderr
    assert f"'sdabench data verify {data} --split val --probe resnet50" in result.stderr


def test_official_images_in_the_folder_of_another_class_are_reported(tmp_path):
    """Image 1 is of class n01751748, image 2 of class n09193705."""
    for wnid, number in (("n01751748", 1), ("n01440764", 2)):
        (tmp_path / "val" / wnid).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "val" / wnid / f"ILSVRC2012_val_{number:08}.JPEG")
    result = sdabench("eval", "resnet50", "--data", f"imagenet={tmp_path}", "--dry-run")
    assert f"1 image of 2 in {tmp_path / 'val'} is in another class folder than the official" in result.stderr
