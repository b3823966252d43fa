"""A regression of every kind is planted, and the gate fails and names it."""

import gzip
import json
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import transforms

from sdabench import create_model
from sdabench.data.source import DataSource
from sdabench.data.views import Normalization
from sdabench.models.detection import detector
from sdabench.paths import registry_dir, results_dir
from sdabench.records.class_predictions import ClassPredictions
from sdabench.records.counts import stored_counts
from sdabench.records.json_lines import read_lines
from sdabench.records.record import Record
from sdabench.records.spec import protocol_at
from sdabench.registry import load_registry
from sdabench.tools.check import Finding, evaluation_checks, output_check, seeded_inputs
from sdabench.tools.check.evaluations import NETWORKS, RECORDS
from sdabench.tools.check.output_check import Golden
from sdabench.tools.check.prediction_check import prediction_changes
from sdabench.tools.check.view import to_github, to_junit
from sdabench.training.job import evaluation_job
from sdabench.training.tasks import task_of
from tests.helpers.program import sdabench

pytestmark = pytest.mark.usefixtures("tiny")

GROUPS = "{depths: [5, 6, 12, 5], depth_attention: true, options: {groups: 8}}"


def check(*arguments, rc):
    result = sdabench("check", *arguments)
    assert result.returncode == rc, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout + result.stderr


@pytest.fixture
def baseline(tmp_path):
    """Counts and outputs of two small networks."""
    folder = tmp_path / "baseline"
    check("counts", "outputs", "--models", "tiny", "--baseline", folder, "--update", rc=0)
    return folder


def small(folder, *more):
    return ("--models", "tiny", "--baseline", folder, *more)


class TestCounts:
    def test_the_committed_ones_hold(self):
        said = check("counts", "outputs", "--models", "resnet50", "--models", "mask_rcnn_sda_resnet86", rc=0)
        assert "failed" in said

    def test_a_changed_group_count_is_named(self, tmp_path, monkeypatch):
        registry = tmp_path / "registry"
        shutil.copytree(registry_dir(), registry)
        path = registry / "models/resnet.yaml"
        entry = path.read_text()
        assert GROUPS in entry
        path.write_text(entry.replace(GROUPS, GROUPS.replace("8", "4")))
        monkeypatch.setenv("SDABENCH_REGISTRY", str(registry))
        said = check("counts", "outputs", "--models", "sda_resnet86", rc=3)
        stored = stored_counts()["sda_resnet86"]
        assert f"Regression  counts sda_resnet86: params {stored.params:,} -> " in said
        assert f"    macs {stored.macs:,} -> " in said
        assert "outputs sda_resnet86: logits[" in said
        assert "its tensors have other names or shapes" in said

    def test_one_parameter_more_is_named(self, baseline):
        path = baseline / "counts.jsonl"
        [line] = path.read_text().splitlines()
        count = json.loads(line)
        path.write_text(json.dumps(count | {"params": count["params"] + 1}) + "\n")
        said = check("counts", *small(baseline), rc=3)
        assert f"counts tiny: params {count['params'] + 1:,} -> {count['params']:,}\n" in said


class TestOutputs:
    def test_they_do_not_depend_on_torchs_random_numbers(self, baseline):
        torch.manual_seed(99)
        check("outputs", *small(baseline), rc=0)

    @pytest.mark.parametrize("swap", ["mean and std", "norms", "interpolation"])
    def test_a_swapped_normalisation_is_seen(self, baseline, monkeypatch, swap):
        if swap == "mean and std":
            monkeypatch.setattr(output_check, "Normalization", lambda mean, std: Normalization(std, mean))
        elif swap == "norms":
            one_group = lambda norm, x: F.group_norm(x, 1, norm.weight, norm.bias)  # noqa: E731
            monkeypatch.setattr(nn.BatchNorm2d, "forward", one_group)
        else:
            monkeypatch.setattr(
                transforms, "InterpolationMode", lambda name: transforms.functional.InterpolationMode.NEAREST
            )
        said = check("outputs", *small(baseline), rc=3)
        assert "Regression  outputs tiny: logits[" in said
        assert "standard deviations (tolerance 0.0003)" in said

    def test_a_detectors_swapped_channels_are_seen(self, monkeypatch):
        monkeypatch.setattr(detector, "MEAN", detector.MEAN[::-1])
        said = check("outputs", "--models", "faster_rcnn_resnet50", rc=3)
        assert "outputs faster_rcnn_resnet50: " in said

    @pytest.mark.parametrize(
        ("part", "setting", "value"),
        [
            ("roi_heads", "nms_thresh", 0.52),
            ("roi_heads", "score_thresh", 0.06),
            ("roi_heads", "detections_per_img", 99),
            ("rpn", "nms_thresh", 0.69),
            ("rpn", "_pre_nms_top_n", {"training": 2000, "testing": 500}),
            ("rpn", "min_size", 16.0),
        ],
    )
    def test_what_chooses_among_a_detectors_boxes_is_seen(self, monkeypatch, part, setting, value):
        filled = seeded_inputs.fill

        def other(network, seed):
            assert hasattr(getattr(network, part), setting)
            setattr(getattr(filled(network, seed), part), setting, value)
            return network

        monkeypatch.setattr(seeded_inputs, "fill", other)
        check("outputs", "--models", "faster_rcnn_resnet50", rc=3)

    def test_a_baseline_of_another_number_of_elements_is_named(self, baseline):
        path = baseline / "outputs.jsonl"
        stored = json.loads(path.read_text())
        del stored["outputs"]["logits"]["values"][5:]
        path.write_text(json.dumps(stored))
        assert "keeps another number of elements" in check("outputs", *small(baseline), rc=4)

    def test_one_changed_weight_is_seen_and_the_worst_element_named(self, baseline, monkeypatch):
        filled = seeded_inputs.fill

        def perturbed(network, seed):
            filled(network, seed).fc.bias.data[3] += 0.1
            return network

        monkeypatch.setattr(seeded_inputs, "fill", perturbed)
        [stored] = read_lines(baseline / "outputs.jsonl", Golden)
        said = check("outputs", *small(baseline), "--json", rc=3)
        [finding] = json.loads(said)["findings"]
        logits = stored.outputs["logits"]
        places = {f"logits[{image}, 3]": logits.values[10 * image + 3] for image in (0, 1)}
        where, was = next((where, was) for where, was in places.items() if where in finding["message"])
        assert f"{where} {was:.7g} -> {was + 0.1:.5g}"[:-1] in finding["message"]
        assert f"{0.1 / logits.std:.2g} standard deviations" in finding["message"]

    def test_a_nan_is_a_regression_and_no_baseline(self, baseline, monkeypatch):
        filled, before = seeded_inputs.fill, (baseline / "outputs.jsonl").read_bytes()

        def broken(network, seed):
            filled(network, seed).fc.weight.data[3] = float("nan")
            return network

        monkeypatch.setattr(seeded_inputs, "fill", broken)
        assert "outputs tiny: logits: not finite" in check("outputs", *small(baseline), rc=3)
        assert "outputs tiny: logits: not finite" in check("outputs", *small(baseline), "--update", rc=3)
        assert (baseline / "outputs.jsonl").read_bytes() == before

    def test_a_network_that_cannot_be_computed_does_not_hide_the_others(self, baseline, monkeypatch):
        models = load_registry().models
        monkeypatch.setitem(models, "twin", models["tiny"])
        check("outputs", "--models", "twin", "--baseline", baseline, "--update", rc=0)
        network = models["tiny"].network.model_copy(update={"options": {"groups": 3}})  # of 8 channels
        monkeypatch.setitem(models, "tiny", models["tiny"].model_copy(update={"network": network}))
        said = check("outputs", "--models", "twin", *small(baseline), "--json", rc=3)
        statuses = {each["subject"]: each["status"] for each in json.loads(said)["findings"]}
        assert statuses == {"tiny": "regression", "twin": "ok"}

    def test_seeded_numbers_are_of_variance_one_and_belong_to_their_name(self):
        drawn = seeded_inputs.noise("layer1.0.conv1.weight", (64, 1000), 0)
        assert drawn.mean() == pytest.approx(0, abs=0.02)
        assert drawn.std() == pytest.approx(1, abs=0.02)
        assert np.array_equal(drawn.ravel()[:7], seeded_inputs.noise("layer1.0.conv1.weight", (7,), 0))
        others = [
            seeded_inputs.noise("layer1.0.conv2.weight", (64, 1000), 0),
            seeded_inputs.noise("layer1.0.conv1.weight", (64, 1000), 1),
        ]
        assert all(abs((drawn * other).mean()) < 0.02 for other in others)

    def test_constants_of_the_architecture_are_as_they_are_built(self):
        """FcaNet's basis is in no state dict; without memory for weights it would have no values."""
        network = seeded_inputs.seeded_network("fcanet50", 0, num_classes=2)
        built = dict(create_model("fcanet50", num_classes=2).named_buffers())
        constants = [name for name, _ in network.named_buffers() if name.endswith("basis")]
        assert constants
        assert all(torch.equal(network.get_buffer(name), built[name]) for name in constants)


class TestBaselines:
    def test_one_that_is_missing_is_not_green(self, baseline):
        (baseline / "outputs.jsonl").unlink()
        said = check("counts", "outputs", *small(baseline), rc=5)
        assert f"No baseline  outputs tiny: no baseline in {baseline / 'outputs.jsonl'}" in said

    def test_a_regression_counts_more_than_a_missing_one(self, baseline):
        (baseline / "outputs.jsonl").unlink()
        count = json.loads((baseline / "counts.jsonl").read_text())
        (baseline / "counts.jsonl").write_text(json.dumps(count | {"macs": 1}))
        check("counts", "outputs", *small(baseline), rc=3)

    def test_a_renamed_network_is_named_with_both_names(self, baseline, monkeypatch):
        models = load_registry().models
        monkeypatch.setitem(models, "little", models["tiny"])
        monkeypatch.delitem(models, "tiny")
        said = check("outputs", "--models", "tiny", "--models", "little", "--baseline", baseline, rc=5)
        assert "outputs little: no baseline" in said
        assert "outputs tiny: " in said
        assert "it is no network any more" in said
        said = check("outputs", "--models", "tiny", "--baseline", baseline, "--update", rc=0)
        assert "Dropped  outputs: tiny" in said
        assert list(read_lines(baseline / "outputs.jsonl", Golden)) == []

    def test_nothing_selected_is_not_green(self):
        said = check("predictions", "--models", "bam50", rc=5)
        assert "nothing was compared: predictions have no part in bam50" in said
        check("counts", "predictions", "--models", "bam50", rc=5)
        assert "did you mean" in check("--models", "resnet5", rc=2)

    def test_an_update_rewrites_what_differs_and_nothing_else(self, baseline):
        path = baseline / "counts.jsonl"
        check(
            "counts", "--models", "senet50", "--models", "resnet50", "--baseline", baseline, "--update", rc=0
        )
        before = {json.loads(line)["model"]: line for line in path.read_text().splitlines()}
        assert list(before) == [name for name in load_registry().models if name in before]
        wrong = {name: json.loads(line) | {"macs": 1} for name, line in before.items()}
        path.write_text("".join(json.dumps(each) + "\n" for each in wrong.values()))
        macs = json.loads(before["tiny"])["macs"]
        said = check("counts", *small(baseline), "--update", rc=0)
        assert f"Changed  counts tiny: macs 1 -> {macs:,}\n" in said
        after = {json.loads(line)["model"]: json.loads(line) for line in path.read_text().splitlines()}
        assert after == wrong | {"tiny": json.loads(before["tiny"])}

    def test_one_that_holds_stays_to_the_byte(self, baseline):
        path = baseline / "outputs.jsonl"
        stored = json.loads(path.read_text())
        stored["outputs"]["logits"]["values"][0] *= 1 + 1e-6
        path.write_text(json.dumps(stored))
        before = path.read_bytes()
        check("outputs", *small(baseline), "--update", rc=0)
        assert path.read_bytes() == before

    def test_those_of_an_installed_package_are_not_written(self, monkeypatch):
        monkeypatch.setattr("sdabench.tools.check.command.results_are_shipped", lambda: True)
        said = check("counts", "--models", "resnet50", "--update", rc=2)
        assert "--baseline DIR" in said

    def test_every_network_has_one(self):
        stored = [golden.model for golden in read_lines(results_dir() / "outputs.jsonl", Golden)]
        known = [name for name in load_registry().models if name != "tiny"]
        assert stored == known, "run: sdabench check outputs --update"
        records = read_lines(results_dir() / RECORDS, Record)
        assert {record.model for record in records} == set(NETWORKS)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(4)
    path = tmp_path / "tiny.safetensors"
    save_file(create_model("tiny", num_classes=2).state_dict(), path)
    return path


@pytest.fixture
def own(tmp_path, weights, textures):
    """Arguments of a check of these weights, whose baseline is written."""
    arguments = (*small(tmp_path / "own"), "--data", f"synthetic={textures}", "--weights", weights)
    said = check(*arguments, "--subset", 3, "--resolution", 32, "--update", rc=0)
    assert f"the images in {tmp_path / 'own/predictions/subset.txt'}" in said
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
        said = check("predictions", *own, rc=3)
        assert "predictions tiny: 1 of 3 predictions flipped" in said
        assert f"    {stored.paths[1]}: label {stored.labels[1]}, was {was}, is {now}; " in said

    def test_a_probability_that_moves_is_seen_before_a_prediction_flips(self, own, tmp_path):
        path = tmp_path / "own/predictions/tiny.csv.gz"
        stored = ClassPredictions.read(path)
        stored.label_probability[2] += 0.002
        stored.write(path)
        said = check("predictions", *own, rc=3)
        assert "no prediction flipped" in said
        assert stored.paths[2] in said

    def test_a_label_that_leaves_the_five_best_is_named(self):
        said = [
            ClassPredictions(["a/1.JPEG"], np.array([4]), np.float32([0.05]), np.array([[9, 1, 2, 3, last]]))
            for last in (4, 5)
        ]
        [problem] = prediction_changes(*said)
        assert (problem.status, len(problem.details)) == ("regression", 1)
        assert "the label was among the best five, is not among; " in problem.details[0]

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
        assert "are of other images or labels than its record" in check("predictions", *own, rc=4)
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
        said = check(*own, rc=4)
        assert "the weights are not the baseline's: sha256 " in said
        assert "Changed  predictions tiny: the weights are not" in check(*own, "--update", rc=0)
        check(*own, rc=0)

    def test_a_nan_in_the_weights_is_a_regression(self, own, weights):
        tensors = load_file(weights)
        tensors["fc.bias"][0] = float("nan")
        save_file(tensors, weights)
        assert "predictions tiny: cannot be measured: " in check(*own, rc=3)

    def test_other_images_are_told_apart_from_a_regression(self, own, textures, tmp_path):
        every = [f"{path.parent.name}/{path.name}" for path in (textures / "val").glob("*/*")]
        (tmp_path / "ids.txt").write_text("# all of them\n" + "\n".join(every))
        said = check(*own, "--subset", tmp_path / "ids.txt", rc=4)
        assert "the images are not the baseline's: 3 of synthetic -> 4 of synthetic" in said

    def test_an_image_that_is_not_there_and_an_empty_subset_are_not_green(self, own, tmp_path):
        (tmp_path / "ids.txt").write_text("crosses/none.JPEG\n")
        assert "no image 'crosses/none.JPEG'" in check(*own, "--subset", tmp_path / "ids.txt", rc=4)
        (tmp_path / "ids.txt").write_text("\n")
        assert "the subset is empty" in check(*own, "--subset", tmp_path / "ids.txt", rc=5)

    def test_one_folder_has_one_subset(self, own, monkeypatch):
        models = load_registry().models
        monkeypatch.setitem(models, "twin", models["tiny"])
        again = ("--models", "twin", *own[2:], "--update")
        assert "has baselines of tiny of other images" in check(*again, "--subset", 2, rc=2)
        check(*again, rc=0)

    def test_another_protocol_is_named(self, own):
        assert "the protocol changed: resize 37 -> 55; crop 32 -> 48" in check(*own, "--resolution", 48, rc=3)

    def test_weights_want_data_and_a_place(self, weights, tmp_path):
        assert "--data" in check("--models", "tiny", "--weights", weights, rc=2)
        wanting = ("--weights", weights, "--data", "synthetic", "--baseline", tmp_path)
        assert "of one network" in check("--models", "resnet*", *wanting, rc=2)
        assert "counts takes no --weights" in check("counts", "--models", "tiny", *wanting, rc=2)

    def test_seeded_classifiers_tell_the_images_apart(self, textures):
        split = DataSource("synthetic", textures).read("val")
        job = evaluation_job("tiny", DataSource(), split, protocol=protocol_at(32, "classification"))
        engine = task_of("classification")
        images = engine.evaluation_images(job)
        batch = engine.batch_of([images[place] for place in range(4)], [])
        with torch.inference_mode():
            logits = evaluation_checks.seeded(job)(
                batch.to(torch.device("cpu"), torch.contiguous_format).images
            )
        assert logits.mean(dim=0).tolist() == pytest.approx([0, 0], abs=1e-4)
        assert logits.std().item() == pytest.approx(evaluation_checks.SPREAD, rel=1e-3)


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
        said = check(*own, rc=3)
        assert "predictions mask_rcnn_tiny: the detections in 1 images changed" in said
        assert f"    image {image}: {detections - 1} -> {detections} detections" in said
        assert "metrics mask_rcnn_tiny: segmentation ap_pct 50.00 -> " in said


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
    problems = prediction_changes([BOX, OTHER], [OTHER, BOX | change])
    assert [words in line for problem in problems for line in problem.details] == [True] * bool(words)


def test_another_mask_in_the_same_box_is_named():
    def entry(first, last):
        mask = np.zeros((60, 80), dtype=np.uint8, order="F")
        mask[10:30, first:last] = 1
        rle = coco_mask.encode(mask)
        return BOX | {"segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}}

    assert prediction_changes([entry(10, 30)], [entry(11, 30)]) == []
    assert prediction_changes([entry(10, 10)], [entry(10, 10)]) == []
    for other in (entry(30, 50), entry(10, 10), BOX):
        [problem] = prediction_changes([entry(10, 30)], [other])
        assert "category 3 at [10.0, 10.0, 40.0, 20.0] has another mask" in problem.details[0]


class TestReports:
    @pytest.fixture
    def broken(self, baseline):
        count = json.loads((baseline / "counts.jsonl").read_text())
        (baseline / "counts.jsonl").write_text(json.dumps(count | {"macs": 1, "params": 2}))
        (baseline / "outputs.jsonl").unlink()
        return ("counts", "outputs", *small(baseline))

    @pytest.mark.parametrize("place", ["stdout", "file"])
    def test_junit_has_a_suite_for_each_check_and_a_case_for_each_network(self, broken, tmp_path, place):
        if place == "file":
            check(*broken, "--junit", tmp_path / "check.xml", rc=3)
            text = (tmp_path / "check.xml").read_text()
        else:
            text = sdabench("check", *broken, "--format", "junit").stdout
        counts, outputs = ElementTree.fromstring(text)
        assert (counts.get("name"), counts.get("tests"), counts.get("failures")) == ("counts", "1", "1")
        assert (outputs.get("name"), outputs.get("errors")) == ("outputs", "1")
        [case] = counts
        assert case.get("name") == "tiny"
        assert case.find("failure").get("message").startswith("params 2 -> ")
        assert "macs 1 -> " in case.find("failure").text

    def test_github_gets_an_annotation_for_each_failure_and_a_summary(self, broken, tmp_path, monkeypatch):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
        lines = check(*broken, "--format", "github", rc=3).splitlines()
        errors = [line for line in lines if line.startswith("::error ")]
        assert len(errors) == 2
        assert errors[0].startswith("::error title=counts%3A tiny::Regression: params 2 -> ")
        assert "%0Amacs 1 -> " in errors[0]
        assert errors[1].startswith("::error title=outputs%3A tiny::No baseline: ")
        assert "sdabench check: 2 comparisons, 2 failures" in lines
        summary = (tmp_path / "summary.md").read_text()
        assert "| counts" in summary
        assert "Regression: params 2" in summary

    def test_github_gets_a_notice_of_what_an_update_wrote(self, broken):
        said = check(*broken, "--update", "--format", "github", rc=0)
        assert "::notice title=counts%3A tiny::Changed: params 2 -> " in said
        assert "::notice title=outputs%3A tiny::New baselines\n" in said

    def test_a_page_or_a_file_that_cannot_be_written_is_one_line(self, broken, tmp_path, monkeypatch):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "none/summary.md"))
        assert "cannot write GITHUB_STEP_SUMMARY, " in check(*broken, "--format", "github", rc=1)
        (tmp_path / "file").write_text("")
        assert "name another --junit" in check(*broken, "--junit", tmp_path / "file/check.xml", rc=1)
        elsewhere = (*broken[:4], "--baseline", tmp_path / "file/deeper", "--update")
        assert "name another --baseline" in check(*elsewhere, rc=1)


def test_what_markup_and_xml_cannot_hold_is_escaped():
    finding = Finding("counts", "a<b", "regression", "50% & \x00\x1b[1m", ("two\nlines, <x>",))
    [suite] = ElementTree.fromstring(to_junit({"counts": [finding]}))
    assert suite[0].get("name") == "a<b"
    assert "two\nlines, <x>" in suite[0][0].text
    assert next(iter(to_github({"counts": [finding]}))).startswith(
        "::error title=counts%3A a<b::Regression: 50%25 & "
    )
