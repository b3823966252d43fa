"""Train, evaluate, tabulate and rescore detectors from the command line."""

import json

import pytest

from sdabench import create_model
from sdabench.data.synthetic.detection import DetectionPlan, write_detection
from sdabench.records.json_lines import read_lines
from sdabench.records.record import Record
from tests.helpers.datasets import make_imagenet
from tests.helpers.program import sdabench

RECIPE = """
title: One step on two small images
train_images: 2
val_images: 3
epochs: 1
batch_size: 2
optimizer: {name: adamw, learning_rate: 3.0e-4}
short_side: 64
anchor_samples: 16
box_samples: 8
proposals: 20
validation: {every_epochs: 0}
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Write a small dataset and a recipe for it."""
    folder = tmp_path_factory.mktemp("detection")
    write_detection(folder / "shapes", DetectionPlan(categories=3, train=3, val=3, image_size=128))
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def trained(workspace):
    """Run the suite segmentation with one network; return the output folder and the result."""
    result = run(workspace, "--suite", "segmentation", "--models", "mask_rcnn_resnet50")
    assert result.returncode == 0, result.stderr
    return workspace / "out", result


def run(workspace, *arguments):
    data = ["--data", f"synthetic={workspace / 'shapes'}", "--recipe", workspace / "tiny.yaml"]
    return sdabench("run", *data, "--output", workspace / "out", "--jobs", 1, *arguments)


def test_suite_trains_once_and_scores_boxes_and_masks(workspace, trained):
    output, first = trained
    records = list(read_lines(output / "records.jsonl", Record))
    assert [(record.model, record.task) for record in records] == [
        ("mask_rcnn_resnet50", "detection"),
        ("mask_rcnn_resnet50", "segmentation"),
    ]
    assert records[0].training == records[1].training
    assert records[0].training.frozen is False
    assert "Training and mask AP" in first.stdout
    stdout = " ".join(first.stdout.split())
    assert "The detectors were trained from random weights, so no layer was frozen." in stdout
    again = run(workspace, "--suite", "detection", "--models", "mask_rcnn_resnet50", "--json")
    assert again.returncode == 0, again.stderr
    assert "1 of 1 are completed." in again.stderr
    assert [record["task"] for record in json.loads(again.stdout)] == ["detection", "segmentation"]
    assert len(list(read_lines(output / "records.jsonl", Record))) == 2


def test_rescore_reproduces_recorded_metrics(workspace, trained):
    output, _ = trained
    annotations = workspace / "shapes/annotations/instances_val2017.json"
    for record, iou_type in zip(read_lines(output / "records.jsonl", Record), ("bbox", "segm"), strict=True):
        options = ["--annotations", annotations, "--iou-type", iou_type, "--json"]
        again = json.loads(sdabench("rescore", output / record.predictions, *options).stdout)
        assert again["metrics"] == record.metrics
        assert again["standard_errors"] == record.standard_errors
        assert set(record.standard_errors) == set(record.metrics)
        assert again["samples"] == record.samples == 3


def test_train_with_backbone_weights_and_eval_per_class(workspace, tmp_path):
    from safetensors.torch import save_file

    save_file(create_model("resnet50").state_dict(), tmp_path / "resnet50.safetensors")
    output = tmp_path / "one"
    data = ["--data", f"synthetic={workspace / 'shapes'}", "--recipe", workspace / "tiny.yaml"]
    weights = ["--backbone-weights", tmp_path / "resnet50.safetensors"]
    train = sdabench("train", "faster_rcnn_resnet50", *data, *weights, "--output", output)
    assert train.returncode == 0, train.stderr
    assert "backbone frozen as in the paper" in train.stdout
    [record] = read_lines(output / "records.jsonl", Record)
    assert record.backbone.source.endswith("resnet50.safetensors")
    assert record.training.frozen
    evaluated = sdabench(
        "eval", "faster_rcnn_resnet50", "--weights", output, "--per-class", "--output", tmp_path / "eval"
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert "AP per category, scored by boxes" in evaluated.stdout
    [again] = read_lines(tmp_path / "eval" / "records.jsonl", Record)
    assert again.metrics == record.metrics
    wrong = sdabench("train", "faster_rcnn_resnet86_g8", *data, *weights, "--output", output)
    assert wrong.returncode == 4
    assert "does not fit 'resnet86_g8'" in wrong.stderr


def test_incompatible_options_are_usage_errors(workspace, tmp_path):
    shapes, imagenet = f"synthetic={workspace / 'shapes'}", f"imagenet={make_imagenet(tmp_path / 'in')}"
    coco = f"coco={workspace / 'shapes'}"
    cases = {
        ("train", "faster_rcnn_resnet50", "--data", imagenet): "imagenet has no boxes",
        ("train", "resnet50", "--data", coco): "coco's images have no single class",
        ("train", "resnet50", "--data", shapes): "is a dataset for detection",
        ("train", "resnet50", "--backbone-weights", workspace / "tiny.yaml"): "'resnet50' is not one",
        ("eval", "resnet50", "--data", imagenet, "--per-class"): "--per-class needs a detector",
        (
            "train",
            "faster_rcnn_resnet50",
            "--recipe",
            "paper",
        ): "the recipe 'paper' is for classification; choose from coco-1x",
        ("run", "--suite", "detection", "--eval-only", "--backbone-weights", tmp_path): "is for training",
        ("run", "--suite", "segmentation", "--with", "faster_rcnn_resnet50"): "is not in the networks for",
    }
    for arguments, words in cases.items():
        result = sdabench(*arguments)
        assert words in result.stderr, (arguments, result.stderr)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
