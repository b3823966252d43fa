"""Changes of predictions, of metrics, and of what they depend on."""

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

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(4)
    path = tmp_path / "tiny.safetensors"
    save_file(create_model("tiny", num_classes=2).state_dict(), path)
    return path


@pytest.fixture
def own(tmp_path, weights, textures):
    """Arguments of a check of these weights; their golden files are written."""
    arguments = (*tiny_in(tmp_path / "own"), "--data", f"synthetic={textures}", "--weights", weights)
    output = check(*arguments, "--subset", 3, "--resolution", 32, "--update", rc=0)
    assert f"image ids in {tmp_path / 'own/predictions/subset.txt'}" in output
    return arguments


class TestPredictions:
    def test_the_same_weights_predict_the_same(self, own):
        findings = json.loads(sdabench("check", *own, "--json").stdout)
        assert findings["passed"]
        assert {finding["check"] for finding in findings["findings"]} == {"predictions", "metrics"}

    def test_one_flipped_prediction_is_named(self, own, tmp_path):
        path = tmp_path / "own/predictions/tiny.csv.gz"
        stored = ClassPredictions.read(path)
        was, now = stored.top5[1, 1], stored.top5[1, 0]
        stored.top5[1, :2] = was, now
        stored.write(path)
        output = check("predictions", *own, rc=3)
        assert "predictions tiny: 1 of 3 predictions flipped" in output
        assert f"    {stored.paths[1]}: label {stored.labels[1]}, predicted class {was} -> {now}, " in output

    def test_a_probability_that_moves_is_seen_before_a_prediction_flips(self, own, tmp_path):
        path = tmp_path / "own/predictions/tiny.csv.gz"
        stored = ClassPredictions.read(path)
        stored.label_probability[2] += 0.002
        stored.write(path)
        output = check("predictions", *own, rc=3)
        assert "no prediction flipped" in output
        assert stored.paths[2] in output

    def test_a_label_that_leaves_the_five_best_is_named(self):
        said = [
            ClassPredictions(["a/1.JPEG"], np.array([4]), np.float32([0.05]), np.array([[9, 1, 2, 3, last]]))
            for last in (4, 5)
        ]
        [problem] = flips(*said)
        assert (problem.status, len(problem.details)) == ("regression", 1)
        assert "label in top 5: yes -> no, " in problem.details[0]

    @pytest.mark.parametrize("change", ["fewer", "one", "labels", "paths"])
    def test_predictions_that_are_not_those_of_their_record_are_told(self, own, tmp_path, change):
        path = tmp_path / "own/predictions/tiny.csv.gz"
        header, *lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        if change == "labels":
            lines = [",".join([name, "7", *rest]) for name, _, *rest in (line.split(",") for line in lines)]
        elif change == "paths":
            lines = [f"other/{line}" for line in lines]
        else:
            del lines[-1 if change == "fewer" else 1 :]
        path.write_bytes(gzip.compress("\n".join([header, *lines, ""]).encode()))
        assert "do not belong to their record" in check("predictions", *own, rc=4)
        check("predictions", *own, "--update", rc=0)
        check("predictions", *own, rc=0)

    def test_a_metric_may_differ_by_its_tolerance(self, own, tmp_path):
        path = tmp_path / "own/predictions/records.jsonl"
        record = json.loads(path.read_text())
        top1 = record["metrics"]["top1_pct"]
        record["metrics"]["top1_pct"] = top1 - 1 if top1 > 50 else top1 + 1
        path.write_text(json.dumps(record))
        assert "metrics tiny: classification top1_pct " in check("metrics", *own, rc=3)
        check("metrics", *own, "--tolerance", 1.5, rc=0)

    def test_one_changed_parameter_makes_them_other_weights(self, own, weights):
        tensors = load_file(weights)
        tensors["layer1.0.conv1.weight"][0, 0, 0, 0] += 1e-3
        save_file(tensors, weights)
        output = check(*own, rc=4)
        assert "the weights are not the golden ones: sha256 " in output
        assert "Changed  predictions tiny: the weights are not" in check(*own, "--update", rc=0)
        check(*own, rc=0)

    def test_a_nan_in_the_weights_is_a_regression(self, own, weights):
        tensors = load_file(weights)
        tensors["fc.bias"][0] = float("nan")
        save_file(tensors, weights)
        assert "predictions tiny: measurement failed: " in check(*own, rc=3)

    def test_other_images_are_told_apart_from_a_regression(self, own, textures, tmp_path):
        every = [f"{path.parent.name}/{path.name}" for path in (textures / "val").glob("*/*")]
        (tmp_path / "ids.txt").write_text("# all of them\n" + "\n".join(every))
        output = check(*own, "--subset", tmp_path / "ids.txt", rc=4)
        assert "the images are not the golden ones: 3 of synthetic -> 4 of synthetic" in output

    def test_an_image_that_is_not_there_and_an_empty_subset_are_not_green(self, own, tmp_path):
        (tmp_path / "ids.txt").write_text("crosses/none.JPEG\n")
        assert "no image 'crosses/none.JPEG'" in check(*own, "--subset", tmp_path / "ids.txt", rc=4)
        (tmp_path / "ids.txt").write_text("\n")
        assert "the subset is empty" in check(*own, "--subset", tmp_path / "ids.txt", rc=5)

    def test_one_folder_has_one_subset(self, own, monkeypatch):
        models = load_registry().models
        monkeypatch.setitem(models, "twin", models["tiny"])
        again = ("--models", "twin", *own[2:], "--update")
        assert "has golden files of tiny for other images" in check(*again, "--subset", 2, rc=2)
        check(*again, rc=0)

    def test_another_protocol_is_named(self, own):
        assert "the protocol changed: preprocessing.resize 37 -> 55; preprocessing.crop 32 -> 48" in check(
            *own, "--resolution", 48, rc=3
        )

    def test_weights_want_data_and_a_place(self, weights, tmp_path):
        assert "--data" in check("--models", "tiny", "--weights", weights, rc=2)
        wanting = ("--weights", weights, "--data", "synthetic", "--baseline", tmp_path)
        assert "those of one network" in check("--models", "resnet*", *wanting, rc=2)
        assert "counts does not depend on --weights" in check("counts", "--models", "tiny", *wanting, rc=2)

    def test_seeded_classifiers_tell_the_images_apart(self, textures):
        split = DataSource("synthetic", textures).read("val")
        job = evaluation_job("tiny", DataSource(), split, protocol=protocol_at(32, "classification"))
        engine = task_of("classification")
        images = engine.evaluation_images(job)
        batch = engine.batch_of([images[place] for place in range(4)], [])
        with torch.inference_mode():
            logits = evaluations.seeded_classifier(job)(
                batch.to(torch.device("cpu"), torch.contiguous_format).images
            )
        assert logits.mean(dim=0).tolist() == pytest.approx([0, 0], abs=1e-4)
        assert logits.std().item() == pytest.approx(evaluations.SPREAD, rel=1e-3)


class TestDetections:
    @pytest.fixture
    def own(self, tmp_path, shapes, tiny, monkeypatch):
        models = load_registry().models
        small = models["mask_rcnn_resnet50"].model_copy(update={"backbone": tiny})
        monkeypatch.setitem(models, "mask_rcnn_tiny", small)
        torch.manual_seed(1)
        save_file(create_model("mask_rcnn_tiny", num_classes=3).state_dict(), tmp_path / "w.safetensors")
        arguments = ("--models", "mask_rcnn_tiny", "--data", f"synthetic={shapes}")
        arguments += ("--weights", tmp_path / "w.safetensors", "--baseline", tmp_path / "own")
        check(*arguments, "--subset", 2, "--resolution", 64, "--update", rc=0)
        return arguments

    def test_a_changed_detection_and_a_changed_ap_are_named(self, own, tmp_path):
        folder = tmp_path / "own/predictions"
        path, records = folder / "mask_rcnn_tiny.json.gz", folder / "records.jsonl"
        results = json.loads(gzip.decompress(path.read_bytes()))
        image = results[-1]["image_id"]
        detections = sum(each["image_id"] == image for each in results)
        path.write_bytes(gzip.compress(json.dumps(results[:-1]).encode()))
        lines = [json.loads(line) for line in records.read_text().splitlines()]
        assert [line["task"] for line in lines] == ["detection", "segmentation"]
        lines[1]["metrics"]["ap_pct"] = 50.0
        records.write_text("\n".join(map(json.dumps, lines)))
        output = check(*own, rc=3)
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
def test_a_detection_that_moved_or_has_another_score_is_named(change, words):
    problems = changed_detections([BOX, OTHER], [OTHER, BOX | change])
    assert [words in line for problem in problems for line in problem.details] == [True] * bool(words)


def test_another_mask_in_the_same_box_is_named():
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
