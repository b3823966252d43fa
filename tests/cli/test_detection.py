"""Detectors from the command line: trained, evaluated, tabled and scored again."""

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
def workplace(tmp_path_factory):
    """A small dataset, and a recipe for it."""
    folder = tmp_path_factory.mktemp("detection")
    write_detection(folder / "shapes", DetectionPlan(categories=3, train=3, val=3, image_size=128))
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def trained(workplace):
    """The output folder of the suite segmentation, of one network."""
    result = run(workplace, "--suite", "segmentation", "--models", "mask_rcnn_resnet50")
    assert result.returncode == 0, result.stderr
    return workplace / "out", result


def run(workplace, *arguments):
    data = ["--data", f"synthetic={workplace / 'shapes'}", "--recipe", workplace / "tiny.yaml"]
    return sdabench("run", *data, "--output", workplace / "out", "--jobs", 1, *arguments)


def test_a_suite_trains_a_mask_rcnn_once_and_scores_its_boxes_and_its_masks(workplace, trained):
    output, first = trained
    records = list(read_lines(output / "records.jsonl", Record))
    assert [(record.model, record.task) for record in records] == [
        ("mask_rcnn_resnet50", "detection"),
        ("mask_rcnn_resnet50", "segmentation"),
    ]
    assert records[0].training == records[1].training
    assert records[0].training.frozen is False
    assert "Training and mask AP" in first.stdout
    said = " ".join(first.stdout.split())
    assert "The detectors were trained from random weights, so no layer was frozen." in said
    again = run(workplace, "--suite", "detection", "--models", "mask_rcnn_resnet50", "--json")
    assert again.returncode == 0, again.stderr
    assert "1 of 1 have a record already." in again.stderr
    assert [record["task"] for record in json.loads(again.stdout)] == ["detection", "segmentation"]
    assert len(list(read_lines(output / "records.jsonl", Record))) == 2


def test_a_results_file_of_ours_is_scored_again_to_the_same_numbers(workplace, trained):
    output, _ = trained
    annotations = workplace / "shapes/annotations/instances_val2017.json"
    for record, iou_type in zip(read_lines(output / "records.jsonl", Record), ("bbox", "segm"), strict=True):
        options = ["--annotations", annotations, "--iou-type", iou_type, "--json"]
        again = json.loads(sdabench("rescore", output / record.predictions, *options).stdout)
        assert again["metrics"] == record.metrics
        assert again["standard_errors"] == record.standard_errors
        assert set(record.standard_errors) == set(record.metrics)
        assert again["samples"] == record.samples == 3


def test_a_training_begins_with_the_weights_of_its_backbone_and_is_evaluated_class_by_class(
    workplace, tmp_path
):
    from safetensors.torch import save_file

    save_file(create_model("resnet50").state_dict(), tmp_path / "resnet50.safetensors")
    output = tmp_path / "one"
    data = ["--data", f"synthetic={workplace / 'shapes'}", "--recipe", workplace / "tiny.yaml"]
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


def test_what_does_not_go_together_is_refused_at_once(workplace, tmp_path):
    shapes, imagenet = f"synthetic={workplace / 'shapes'}", f"imagenet={make_imagenet(tmp_path / 'in')}"
    coco = f"coco={workplace / 'shapes'}"
    cases = {
        ("train", "faster_rcnn_resnet50", "--data", imagenet): "imagenet has no boxes",
        ("train", "resnet50", "--data", coco): "coco's images have no single class",
        ("train", "resnet50", "--data", shapes): "is a dataset for detection",
        ("train", "resnet50", "--backbone-weights", workplace / "tiny.yaml"): "'resnet50' is not one",
        ("eval", "resnet50", "--data", imagenet, "--per-class"): "--per-class is for detectors",
        (
            "train",
            "faster_rcnn_resnet50",
            "--recipe",
            "paper",
        ): "unknown recipe 'paper'; choose from coco-1x",
        ("run", "--suite", "detection", "--eval-only", "--backbone-weights", tmp_path): "is for training",
        ("run", "--suite", "segmentation", "--with", "faster_rcnn_resnet50"): "is not in the networks for",
    }
    for arguments, words in cases.items():
        result = sdabench(*arguments)
        assert words in result.stderr, (arguments, result.stderr)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
