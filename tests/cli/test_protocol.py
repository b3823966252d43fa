"""Options for the protocol of an evaluation. Expected values follow from torchvision's and timm's rules."""

import json

import pytest
import torch

from sdabench import create_model
from sdabench.data.folders import ImageSplit, Item
from tests.helpers.program import sdabench
from tests.helpers.records import json_records, record

V2 = ["--weights", "torchvision:ResNet50_Weights.IMAGENET1K_V2"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def plan(imagenet, tmp_path):
    """Return a function that prints the plan of an evaluation, and its preprocessing."""

    def protocol(*options, model="resnet50", data=("--data", f"imagenet={imagenet}")):
        result = sdabench("eval", model, *data, "--output", tmp_path / "out", "--dry-run", "--json", *options)
        return result, json.loads(result.stdout)["parts"][0]["protocol"] if result.stdout else None

    return protocol


@pytest.fixture(autouse=True)
def without_timing(monkeypatch):
    """Plan without measuring the speed of a network."""
    monkeypatch.setattr("sdabench.runs.estimate._measure", lambda job, *_: _rates())


def _rates():
    from sdabench.runs.estimate import _Rates

    return _Rates(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"resize": 256, "crop": 224, "interpolation": "bilinear", "mean": MEAN, "std": STD}),
        (["--resize", 232], {"resize": 232, "crop": 224}),
        (["--crop-pct", 0.95], {"resize": 235, "crop": 224}),  # floor(224 / 0.95)
        (["--crop-pct", 1, "--resolution", 288], {"resize": 288, "crop": 288}),
        (["--resolution", 160], {"resize": 183, "crop": 160}),
        (["--interpolation", "bicubic"], {"interpolation": "bicubic", "resize": 256}),
        (["--mean", 0.5, 0.4, 0.3, "--std", 1, 1, 1], {"mean": (0.5, 0.4, 0.3), "std": (1, 1, 1)}),
        (
            [*V2, "--protocol", "source"],
            {"resize": 232, "crop": 224, "interpolation": "bilinear"},
        ),
        (
            V2,
            {"resize": 256, "crop": 224, "interpolation": "bilinear"},
        ),
        (
            [*V2, "--protocol", "source", "--interpolation", "bicubic", "--resolution", 112],
            {"resize": 116, "crop": 112, "interpolation": "bicubic"},
        ),
    ],
    ids=str,
)
def test_preprocessing_options(plan, options, expected):
    result, protocol = plan(*options)
    assert result.returncode == 0, result.stderr
    used = protocol["preprocessing"]
    assert {name: used[name] for name in expected} == {
        name: list(value) if isinstance(value, tuple) else value for name, value in expected.items()
    }


def test_protocol_of_timm(plan):
    pytest.importorskip("timm")
    weights = ["--weights", "timm:resnet50.a1_in1k", "--protocol", "source"]
    used = plan(*weights)[1]["preprocessing"]
    assert (used["resize"], used["crop"], used["interpolation"]) == (288, 288, "bicubic")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--resize", 200], "--resize 200 is smaller than the crop of 224"),
        (["--resize", 256, "--crop-pct", 0.9], "--resize and --crop-pct both set the short side"),
        (["--crop-pct", 1.1], "--crop-pct"),
        (
            ["--crop-pct", 0.1, "--resolution", 16384],
            "the short side before the crop of 16,384 pixels would be 163,840, more than 18,725; choose a larger "
            "--crop-pct or a smaller --resolution",
        ),
        (["--crop-pct", "nan"], "--crop-pct"),
        (["--crop-pct", 0], "--crop-pct"),
        (["--mean", 123.675, 116.28, 103.53], "--mean"),
        (["--std", 0, 1, 1], "--std"),
        (["--std", "nan", 1, 1], "--std"),
        (["--interpolation", "cubic"], "--interpolation"),
        (["--protocol", "source"], "--protocol source needs weights whose protocol is known"),
    ],
    ids=str,
)
def test_invalid_preprocessing_is_one_usage_line(plan, options, words):
    result, protocol = plan(*options)
    assert (result.returncode, protocol) == (2, None)
    assert words in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("options", [["--interpolation", "bicubic"], ["--crop-pct", 0.9]], ids=str)
def test_preprocessing_options_are_not_for_detectors(plan, coco, options):
    result, _ = plan(*options, model="faster_rcnn_resnet50", data=("--data", f"coco={coco}"))
    assert result.returncode == 2
    assert f"{options[0]} is for classifiers; for a detector, --resolution" in result.stderr


def test_plan_that_exceeds_the_memory_is_one_line(plan, monkeypatch):
    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr("sdabench.runs.estimate._measure", exhausted)
    result, _ = plan("--resolution", 16384)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Error: resnet50: out of memory; try a smaller --batch-size\n"


def test_standard_options_are_the_standard_protocol(plan):
    standard = plan()[1]
    assert (
        plan("--crop-pct", 0.875, "--mean", *MEAN, "--std", *STD, "--interpolation", "bilinear")[1]
        == standard
    )
    assert plan("--protocol", "standard")[1] == standard


def test_weights_of_a_training_run_use_its_protocol(plan, textures, tmp_path):
    train = ["--data", f"synthetic={textures}", "--recipe", "smoke", "--epochs", 1, "--channels-last"]
    trained = sdabench("train", "resnet50", *train, "--output", tmp_path / "run", "--workers", 0)
    assert trained.returncode in (0, 3), trained.stderr
    [made] = json_records(tmp_path / "run")
    weights = ["--weights", tmp_path / "run"]
    assert plan(*weights, data=())[1] == made["protocol"]
    assert plan(*weights, "--protocol", "source", data=())[1] == made["protocol"]
    assert plan(*weights, "--no-channels-last", data=())[1] == made["protocol"] | {"channels_last": False}
    standard = plan(*weights, "--protocol", "standard", data=())[1]
    assert (standard["preprocessing"]["crop"], standard["channels_last"]) == (224, False)


def test_other_protocol_is_recorded_and_not_compared_with_the_paper(imagenet, tmp_path):
    torch.save(create_model("resnet50").state_dict(), tmp_path / "w.pth")
    options = ["--data", f"imagenet={imagenet}", "--weights", tmp_path / "w.pth", "--resolution", 32]
    result = sdabench("eval", "resnet50", *options, "--crop-pct", 0.5, "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert (
        "Protocol: bilinear resize to 64, center crop of 32, fp32; only the standard one is" in result.stdout
    )
    [made] = json_records(tmp_path / "out")
    assert made["protocol"]["preprocessing"]["resize"] == 64


def test_limit_is_spread_over_classes_and_recorded(imagenet, tmp_path):
    evaluate = ["eval", "resnet50", "--data", f"imagenet={imagenet}", "--resolution", 32]
    evaluate += ["--output", tmp_path / "out"]
    whole, limited = sdabench(*evaluate), sdabench(*evaluate, "--limit", 3)
    assert limited.returncode == 0, limited.stderr
    assert "on 3 of 6 images of 3 ImageNet classes" in limited.stdout
    full, some = json_records(tmp_path / "out")
    assert (some["samples"], some["dataset"]["classes"], some["dataset"]["subset_of"]) == (3, 3, 6)
    assert full["dataset"]["subset_of"] is None
    assert not some["dataset"]["complete"]
    assert some["spec_digest"] != full["spec_digest"]
    assert "on 6 images of 3 ImageNet classes" in whole.stdout
    plan = sdabench(*evaluate, "--limit", 2, "--dry-run", "--json")
    [job], [part] = json.loads(plan.stdout)["jobs"], json.loads(plan.stdout)["parts"]
    assert (job["done"], part["dataset"]["samples"]) == (False, 2)
    assert json.loads(sdabench(*evaluate, "--limit", 6, "--dry-run", "--json").stdout)["jobs"][0]["done"]


def test_limited_official_images_are_not_comparable(tmp_path):
    """Even if all of the other conditions hold."""
    items = tuple(Item(f"a/ILSVRC2012_val_{number:08}.JPEG", 1, 0) for number in range(1, 9))
    whole = ImageSplit("imagenet", "val", tmp_path, items, 1000, complete=True)
    for images, comparable in ((None, True), (8, True), (4, False)):
        dataset = whole.subset(images).describe()
        assert record(dataset=dataset, samples=dataset.samples).comparable == comparable


def test_compare_prefers_the_record_of_all_images(imagenet, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        evaluate = ["eval", "resnet50", "--data", f"imagenet={imagenet}", "--resolution", 32]
        evaluate += ["--seed", seed, "--output", tmp_path / name]
        sdabench(*evaluate)
        sdabench(*evaluate, "--limit", 3)
    report = json.loads(sdabench("compare", tmp_path / "a", tmp_path / "b", "--json").stdout)
    assert (report["a"]["samples"], report["b"]["samples"]) == (6, 6)
    lines = (tmp_path / "b/records.jsonl").read_text().splitlines()
    (tmp_path / "b/records.jsonl").write_text(lines[1] + "\n")
    report = json.loads(sdabench("compare", tmp_path / "a", tmp_path / "b", "--json").stdout)
    assert (report["a"]["samples"], report["b"]["samples"]) == (3, 3)
    lines = (tmp_path / "a/records.jsonl").read_text().splitlines()
    (tmp_path / "a/records.jsonl").write_text(lines[0] + "\n")
    refused = sdabench("compare", tmp_path / "a", tmp_path / "b")
    assert refused.returncode == 4
    assert "not the same images: 6 in " in refused.stderr
    assert " and 3 of 6 in " in refused.stderr


def test_limit_of_a_detector(coco, tmp_path):
    """The stored detections of the subset give its AP again, also with a moved annotations file."""
    output = tmp_path / "out"
    options = ["--data", f"coco={coco}", "--resolution", 64, "--limit", 2, "--output", output]
    result = sdabench("eval", "faster_rcnn_resnet50", *options)
    assert result.returncode == 0, result.stderr
    [made] = json_records(output)
    assert (made["samples"], made["dataset"]["subset_of"]) == (2, 4)
    for options in ([], ["--annotations", coco / "annotations/instances_val2017.json"]):
        rescored = sdabench("rescore", output, *options)
        assert rescored.returncode == 0, rescored.stderr
