"""Changes of outputs are found, whatever their cause."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import transforms

from sdabench import create_model
from sdabench.data.views import Normalization
from sdabench.models.detection import detector
from sdabench.records.json_lines import read_lines
from sdabench.registry import load_registry
from sdabench.tools.check import output_check, seeded_inputs
from sdabench.tools.check.output_check import GoldenOutputs
from tests.helpers.gate import check, tiny_in

pytestmark = pytest.mark.usefixtures("tiny")


def test_they_do_not_depend_on_torchs_random_numbers(golden_folder):
    torch.manual_seed(99)
    check("outputs", *tiny_in(golden_folder), rc=0)


@pytest.mark.parametrize("swap", ["mean and std", "norms", "interpolation"])
def test_a_swapped_normalization_is_seen(golden_folder, monkeypatch, swap):
    if swap == "mean and std":
        monkeypatch.setattr(output_check, "Normalization", lambda mean, std: Normalization(std, mean))
    elif swap == "norms":
        one_group = lambda norm, x: F.group_norm(x, 1, norm.weight, norm.bias)  # noqa: E731
        monkeypatch.setattr(nn.BatchNorm2d, "forward", one_group)
    else:
        monkeypatch.setattr(
            transforms, "InterpolationMode", lambda name: transforms.functional.InterpolationMode.NEAREST
        )
    output = check("outputs", *tiny_in(golden_folder), rc=3)
    assert "Regression  outputs tiny: logits[" in output
    assert "standard deviations (tolerance 0.0003)" in output


def test_a_detectors_swapped_channels_are_seen(monkeypatch):
    monkeypatch.setattr(detector, "MEAN", detector.MEAN[::-1])
    output = check("outputs", "--models", "faster_rcnn_resnet50", rc=3)
    assert "outputs faster_rcnn_resnet50: " in output


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
def test_what_chooses_among_a_detectors_boxes_is_seen(monkeypatch, part, setting, value):
    filled = seeded_inputs.fill

    def other(network, seed):
        assert hasattr(getattr(network, part), setting)
        setattr(getattr(filled(network, seed), part), setting, value)
        return network

    monkeypatch.setattr(seeded_inputs, "fill", other)
    check("outputs", "--models", "faster_rcnn_resnet50", rc=3)


def test_another_number_of_values_is_named(golden_folder):
    path = golden_folder / "outputs.jsonl"
    stored = json.loads(path.read_text())
    del stored["outputs"]["logits"]["values"][5:]
    path.write_text(json.dumps(stored))
    assert "have another number of values" in check("outputs", *tiny_in(golden_folder), rc=4)


def test_one_changed_weight_is_seen_and_the_worst_element_named(golden_folder, monkeypatch):
    filled = seeded_inputs.fill

    def perturbed(network, seed):
        filled(network, seed).fc.bias.data[3] += 0.1
        return network

    monkeypatch.setattr(seeded_inputs, "fill", perturbed)
    [stored] = read_lines(golden_folder / "outputs.jsonl", GoldenOutputs)
    output = check("outputs", *tiny_in(golden_folder), "--json", rc=3)
    [finding] = json.loads(output)["findings"]
    logits = stored.outputs["logits"]
    places = {f"logits[{image}, 3]": logits.values[10 * image + 3] for image in (0, 1)}
    where, was = next((where, was) for where, was in places.items() if where in finding["message"])
    assert f"{where} {was:.7g} -> {was + 0.1:.5g}"[:-1] in finding["message"]
    assert f"{0.1 / logits.std:.2g} standard deviations" in finding["message"]


def test_a_nan_is_a_regression_and_never_golden(golden_folder, monkeypatch):
    filled, before = seeded_inputs.fill, (golden_folder / "outputs.jsonl").read_bytes()

    def broken(network, seed):
        filled(network, seed).fc.weight.data[3] = float("nan")
        return network

    monkeypatch.setattr(seeded_inputs, "fill", broken)
    assert "outputs tiny: logits: not finite" in check("outputs", *tiny_in(golden_folder), rc=3)
    assert "outputs tiny: logits: not finite" in check("outputs", *tiny_in(golden_folder), "--update", rc=3)
    assert (golden_folder / "outputs.jsonl").read_bytes() == before


def test_a_network_that_cannot_be_computed_does_not_hide_the_others(golden_folder, monkeypatch):
    models = load_registry().models
    monkeypatch.setitem(models, "twin", models["tiny"])
    check("outputs", "--models", "twin", "--baseline", golden_folder, "--update", rc=0)
    network = models["tiny"].network.model_copy(update={"options": {"groups": 3}})  # of 8 channels
    monkeypatch.setitem(models, "tiny", models["tiny"].model_copy(update={"network": network}))
    output = check("outputs", "--models", "twin", *tiny_in(golden_folder), "--json", rc=3)
    statuses = {each["subject"]: each["status"] for each in json.loads(output)["findings"]}
    assert statuses == {"tiny": "regression", "twin": "ok"}


def test_seeded_numbers_are_of_variance_one_and_belong_to_their_name():
    drawn = seeded_inputs.noise("layer1.0.conv1.weight", (64, 1000), 0)
    assert drawn.mean() == pytest.approx(0, abs=0.02)
    assert drawn.std() == pytest.approx(1, abs=0.02)
    assert np.array_equal(drawn.ravel()[:7], seeded_inputs.noise("layer1.0.conv1.weight", (7,), 0))
    others = [
        seeded_inputs.noise("layer1.0.conv2.weight", (64, 1000), 0),
        seeded_inputs.noise("layer1.0.conv1.weight", (64, 1000), 1),
    ]
    assert all(abs((drawn * other).mean()) < 0.02 for other in others)


def test_constants_of_the_architecture_are_as_they_are_built():
    """FcaNet's basis is in no state dict; without memory for weights it would have no values."""
    network = seeded_inputs.seeded_network("fcanet50", 0, num_classes=2)
    built = dict(create_model("fcanet50", num_classes=2).named_buffers())
    constants = [name for name, _ in network.named_buffers() if name.endswith("basis")]
    assert constants
    assert all(torch.equal(network.get_buffer(name), built[name]) for name in constants)
