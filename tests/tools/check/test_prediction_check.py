"""Changed predictions and metrics, and changed weights, images or protocols."""

import gzip
import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from safetensors.torch import load_file, save_file

from sdabench import create_model
from sdabench.data.source import DataSource
from sdabench.records.class_predictions import ClassPredictions
from sdabench.records.spec import protocol_at
from sdabench.registry import load_registry
from sdabench.tools.check import evaluations
from sdabench.tools.check.prediction_check import changed_detections, flips
from sdabench.training.job import evaluation_job
from sdabench.training.tasks import task_of
from tests.helpers.gate import check, tiny_in
from tests.helpers.program import sdabench
from tests.helpers.records import json_lines, write_json_lines

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(4)
    path = tmp_path / "tiny.safetensors"
    save_file(create_model("tiny", num_classes=2).state_dict(), path)
    return path


@pytest.fixture
def check_arguments(tmp_path, weights, textures):
    """Write golden files for the weights and return the arguments that check them."""
    arguments = (*tiny_in(tmp_path / "own"), "--data", f"synthetic={textures}", "--weights", weights)
    output = check(*arguments, "--subset", 3, "--resolution", 32, "--update", rc=0)
    assert f"image ids in {tmp_path / 'own/predictions/subset.txt'}" in output
    return arguments


class TestPredictions:
    def test_same_weights_pass(self, check_arguments):
        findings = json.loads(sdabench("check", *check_arguments, "--json").stdout)
        assert findings["passed"]
        assert {finding["check"] for finding in findings["findings"]} == {"predictions", "metrics"}

    def test_flipped_prediction_is_a_regression(self, check_arguments, tmp_path):
        path = tmp_path / "own/predictions/tiny.csv.gz"
        stored = ClassPredictions.read(path)
        was, now = stored.top5[1, 1], stored.top5[1, 0]
        stored.top5[1, :2] = was, now
        stored.write(path)
        assert "do not belong to their record" in check("predictions", *check_arguments, rc=4)
        records = path.with_name("records.jsonl")
        [record] = json_lines(records)
        write_json_lines(records, record | {"predictions_sha256": None})  # as earlier versions did
        output = check("predictions", *check_arguments, rc=3)
        assert "predictions tiny: 1 of 3 predictions flipped" in output
        assert f"    {stored.paths[1]}: label {stored.labels[1]}, predicted class {was} -> {now}, " in output

    def test_changed_probability_is_a_regression_without_flips(self, check_arguments, tmp_path):
        path = tmp_path / "own/predictions/tiny.csv.gz"
        stored = ClassPredictions.read(path)
        stored.label_probability[2] += 0.002
        stored.write(path)
        assert "do not belong to their record" in check("predictions", *check_arguments, rc=4)
        records = path.with_name("records.jsonl")
        [record] = json_lines(records)
        write_json_lines(records, record | {"predictions_sha256": None})  # as earlier versions did
        output = check("predictions", *check_arguments, rc=3)
        assert "no prediction flipped" in output
        assert stored.paths[2] in output

    def test_label_that_leaves_top5_is_a_regression(self):
        versions = [
            ClassPredictions(
                ["a/1.JPEG"],
                np.array([4]),
                np.float32([0.05]),
                np.array([[9, 1, 2, 3, last]]),
                np.float32([0.2]),
                np.float32([0.1]),
            )
            for last in (4, 5)
        ]
        [problem] = flips(*versions)
        assert (problem.status, len(problem.details)) == ("regression", 1)
        assert "label in top 5: yes -> no, " in problem.details[0]

    @pytest.mark.parametrize("change", ["fewer", "one", "labels", "paths"])
    def test_predictions_of_another_record_are_rejected(self, check_arguments, tmp_path, change):
        path = tmp_path / "own/predictions/tiny.csv.gz"
        header, *lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        if change == "labels":
            lines = [",".join([name, "7", *rest]) for name, _, *rest in (line.split(",") for line in lines)]
        elif change == "paths":
            lines = [f"other/{line}" for line in lines]
        else:
            del lines[-1 if change == "fewer" else 1 :]
        path.write_bytes(gzip.compress("\n".join([header, *lines, ""]).encode()))
        assert "do not belong to their record" in check("predictions", *check_arguments, rc=4)
        check("predictions", *check_arguments, "--update", rc=0)
        check("predictions", *check_arguments, rc=0)

    def test_metric_tolerance(self, check_arguments, tmp_path):
        path = tmp_path / "own/predictions/records.jsonl"
        [record] = json_lines(path)
        top1 = record["metrics"]["top1_pct"]
        record["metrics"]["top1_pct"] = top1 - 1 if top1 > 50 else top1 + 1
        write_json_lines(path, record)
        assert "metrics tiny: classification top1_pct " in check("metrics", *check_arguments, rc=3)
        record["environment"]["packages"]["torch"] = "2.6.0"
        path.write_text(json.dumps(record))
        output = check("metrics", *check_arguments, rc=3)
        assert "measured under other conditions: environment.packages.torch (2.6.0, " in output
        check("metrics", *check_arguments, "--tolerance", 1.5, rc=0)

    def test_changed_weights_file_is_rejected(self, check_arguments, weights):
        tensors = load_file(weights)
        tensors["layer1.0.conv1.weight"][0, 0, 0, 0] += 1e-3
        save_file(tensors, weights)
        output = check(*check_arguments, rc=4)
        assert "the weights are not the golden ones: sha256 " in output
        assert "Changed  predictions tiny: the weights are not" in check(*check_arguments, "--update", rc=0)
        check(*check_arguments, rc=0)

    def test_infinite_outputs_are_a_regression(self, check_arguments, weights):
        tensors = load_file(weights)
        tensors["fc.weight"][:] = 3e38
        save_file(tensors, weights)
        assert "predictions tiny: measurement failed: " in check(*check_arguments, rc=3)

    def test_nan_in_weights_is_rejected(self, check_arguments, weights):
        tensors = load_file(weights)
        tensors["fc.bias"][0] = float("nan")
        save_file(tensors, weights)
        assert "not finite (fc.bias: 1 of 2 values)" in check(*check_arguments, rc=4)

    def test_changed_images_are_not_a_regression(self, check_arguments, textures, tmp_path):
        image_ids = [f"{path.parent.name}/{path.name}" for path in (textures / "val").glob("*/*")]
        (tmp_path / "ids.txt").write_text("# all of them\n" + "\n".join(image_ids))
        output = check(*check_arguments, "--subset", tmp_path / "ids.txt", rc=4)
        assert "the images are not the golden ones: 3 of synthetic -> 4 of synthetic" in output

    def test_missing_image_exits_4_and_empty_subset_5(self, check_arguments, tmp_path):
        (tmp_path / "ids.txt").write_text("crosses/none.JPEG\n")
        assert "no image 'crosses/none.JPEG'" in check(
            *check_arguments, "--subset", tmp_path / "ids.txt", rc=4
        )
        (tmp_path / "ids.txt").write_text("\n")
        assert "the subset is empty" in check(*check_arguments, "--subset", tmp_path / "ids.txt", rc=5)

    def test_golden_folder_holds_one_subset(self, check_arguments, monkeypatch):
        models = load_registry().models
        monkeypatch.setitem(models, "twin", models["tiny"])
        again = ("--models", "twin", *check_arguments[2:], "--update")
        assert "has golden files of tiny for other images" in check(*again, "--subset", 2, rc=2)
        check(*again, rc=0)

    def test_changed_protocol_is_a_regression(self, check_arguments):
        assert "the protocol changed: preprocessing.resize 37 -> 55; preprocessing.crop 32 -> 48" in check(
            *check_arguments, "--resolution", 48, rc=3
        )

    def test_weights_option_requirements(self, weights, tmp_path):
        assert "--data" in check("--models", "tiny", "--weights", weights, rc=2)
        weight_options = ("--weights", weights, "--data", "synthetic", "--baseline", tmp_path)
        assert "needs one network" in check("--models", "resnet*", *weight_options, rc=2)
        assert "counts does not depend on --weights" in check(
            "counts", "--models", "tiny", *weight_options, rc=2
        )

    def test_seeded_classifier_separates_images(self, textures):
        split = DataSource("synthetic", textures).read("val")
        job = evaluation_job("tiny", DataSource(), split, protocol=protocol_at(32, "classification"))
        engine = task_of("classification")
        images = engine.evaluation_images(job)
        batch = engine.batch_of([images[index] for index in range(4)], [])
        with torch.inference_mode():
            logits = evaluations.seeded_classifier(job)(
                batch.to(torch.device("cpu"), torch.contiguous_format).images
            )
        assert logits.mean(dim=0).tolist() == pytest.approx([0, 0], abs=1e-4)
        assert logits.std().item() == pytest.approx(evaluations.SPREAD, rel=1e-3)


class TestDetections:
    @pytest.fixture
    def check_arguments(self, tmp_path, shapes, tiny, monkeypatch):
        models = load_registry().models
        small = models["mask_rcnn_resnet50"].model_copy(update={"backbone": tiny})
        monkeypatch.setitem(models, "mask_rcnn_tiny", small)
        torch.manual_seed(1)
        save_file(create_model("mask_rcnn_tiny", num_classes=3).state_dict(), tmp_path / "w.safetensors")
        arguments = ("--models", "mask_rcnn_tiny", "--data", f"synthetic={shapes}")
        arguments += ("--weights", tmp_path / "w.safetensors", "--baseline", tmp_path / "own")
        check(*arguments, "--subset", 2, "--resolution", 64, "--update", rc=0)
        return arguments

    def test_changed_detections_and_ap_are_regressions(self, check_arguments, tmp_path):
        folder = tmp_path / "own/predictions"
        path, records = folder / "mask_rcnn_tiny.json.gz", folder / "records.jsonl"
        results = json.loads(gzip.decompress(path.read_bytes()))
        image = results[-1]["image_id"]
        detections = sum(each["image_id"] == image for each in results)
        path.write_bytes(gzip.compress(json.dumps(results[:-1]).encode()))
        lines = json_lines(records)
        assert [line["task"] for line in lines] == ["detection", "segmentation"]
        lines[1]["metrics"]["ap_pct"] = 50.0
        lines[0]["predictions_sha256"] = None
        write_json_lines(records, *lines)
        output = check(*check_arguments, rc=3)
        assert "predictions mask_rcnn_tiny: the detections in 1 image changed" in output
        assert f"    image {image}: {detections - 1} -> {detections} detections" in output
        assert "metrics mask_rcnn_tiny: segmentation ap_pct 50.00 -> " in output


BOX = {"image_id": 7, "category_id": 3, "bbox": [10.0, 10.0, 40.0, 20.0], "score": 0.9}
OTHER = BOX | {"bbox": [45.0, 10.0, 40.0, 20.0], "score": 0.5}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"score": 0.905, "bbox": [11.0, 10.0, 40.0, 20.0]}, ""),
        ({"score": 0.88}, "has score 0.900 -> 0.880"),
        ({"category_id": 4}, "category 3 at [10.0, 10.0, 40.0, 20.0] is gone"),
        ({"bbox": [40.0, 10.0, 40.0, 20.0]}, "is gone"),  # IoU 0.14
    ],
)
def test_moved_or_rescored_detection_is_reported(change, words):
    problems = changed_detections([BOX, OTHER], [OTHER, BOX | change])
    assert [words in line for problem in problems for line in problem.details] == [True] * bool(words)


def test_changed_mask_in_the_same_box_is_reported():
    def entry(first, last):
        mask = np.zeros((60, 80), dtype=np.uint8, order="F")
        mask[10:30, first:last] = 1
        rle = coco_mask.encode(mask)
        return BOX | {"segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}}

    assert changed_detections([entry(10, 30)], [entry(11, 30)]) == []
    assert changed_detections([entry(10, 10)], [entry(10, 10)]) == []
    for other in (entry(30, 50), entry(10, 10), BOX):
        [problem] = changed_detections([entry(10, 30)], [other])
        assert "category 3 at [10.0, 10.0, 40.0, 20.0] has another mask" in problem.details[0]
