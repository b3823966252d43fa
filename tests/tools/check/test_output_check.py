"""Changed outputs are regressions, whatever the cause."""

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
from tests.helpers.records import json_lines, write_json_lines

pytestmark = pytest.mark.usefixtures("tiny")


def test_outputs_do_not_depend_on_torch_seed(golden_folder):
    torch.manual_seed(99)
    check("outputs", *tiny_in(golden_folder), rc=0)


@pytest.mark.parametrize("swap", ["mean and std", "norms", "interpolation"])
def test_swapped_normalization_is_a_regression(golden_folder, monkeypatch, swap):
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


def test_swapped_detector_channels_are_a_regression(monkeypatch):
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
def test_changed_box_selection_is_a_regression(monkeypatch, part, setting, value):
    fill = seeded_inputs.fill

    def changed(network, seed):
        assert hasattr(getattr(network, part), setting)
        setattr(getattr(fill(network, seed), part), setting, value)
        return network

    monkeypatch.setattr(seeded_inputs, "fill", changed)
    check("outputs", "--models", "faster_rcnn_resnet50", rc=3)


def test_wrong_number_of_values_exits_4(golden_folder):
    path = golden_folder / "outputs.jsonl"
    [stored] = json_lines(path)
    del stored["outputs"]["logits"]["values"][5:]
    write_json_lines(path, stored)
    assert "have another number of values" in check("outputs", *tiny_in(golden_folder), rc=4)


def test_changed_weight_names_the_worst_element(golden_folder, monkeypatch):
    fill = seeded_inputs.fill

    def perturbed(network, seed):
        fill(network, seed).fc.bias.data[3] += 0.1
        return network

    monkeypatch.setattr(seeded_inputs, "fill", perturbed)
    [stored] = read_lines(golden_folder / "outputs.jsonl", GoldenOutputs)
    output = check("outputs", *tiny_in(golden_folder), "--json", rc=3)
    [finding] = json.loads(output)["findings"]
    logits = stored.outputs["logits"]
    candidates = {f"logits[{image}, 3]": logits.values[10 * image + 3] for image in (0, 1)}
    position, old_value = next(
        (position, old_value) for position, old_value in candidates.items() if position in finding["message"]
    )
    assert f"{position} {old_value:.7g} -> {old_value + 0.1:.5g}"[:-1] in finding["message"]
    assert f"{0.1 / logits.std:.2g} standard deviations" in finding["message"]


def test_nan_is_a_regression_and_never_golden(golden_folder, monkeypatch):
    fill, before = seeded_inputs.fill, (golden_folder / "outputs.jsonl").read_bytes()

    def broken(network, seed):
        fill(network, seed).fc.weight.data[3] = float("nan")
        return network

    monkeypatch.setattr(seeded_inputs, "fill", broken)
    assert "outputs tiny: logits: not finite" in check("outputs", *tiny_in(golden_folder), rc=3)
    assert "outputs tiny: logits: not finite" in check("outputs", *tiny_in(golden_folder), "--update", rc=3)
    assert (golden_folder / "outputs.jsonl").read_bytes() == before


def test_failing_network_does_not_hide_the_others(golden_folder, monkeypatch):
    models = load_registry().models
    monkeypatch.setitem(models, "twin", models["tiny"])
    check("outputs", "--models", "twin", "--baseline", golden_folder, "--update", rc=0)
    network = models["tiny"].network.model_copy(update={"options": {"groups": 3}})  # 8 channels
    monkeypatch.setitem(models, "tiny", models["tiny"].model_copy(update={"network": network}))
    output = check("outputs", "--models", "twin", *tiny_in(golden_folder), "--json", rc=3)
    statuses = {each["subject"]: each["status"] for each in json.loads(output)["findings"]}
    assert statuses == {"tiny": "regression", "twin": "ok"}


def test_seeded_noise_has_unit_variance_and_depends_on_name():
    sample = seeded_inputs.noise("layer1.0.conv1.weight", (64, 1000), 0)
    assert sample.mean() == pytest.approx(0, abs=0.02)
    assert sample.std() == pytest.approx(1, abs=0.02)
    assert np.array_equal(sample.ravel()[:7], seeded_inputs.noise("layer1.0.conv1.weight", (7,), 0))
    others = [
        seeded_inputs.noise("layer1.0.conv2.weight", (64, 1000), 0),
        seeded_inputs.noise("layer1.0.conv1.weight", (64, 1000), 1),
    ]
    assert all(abs((sample * other).mean()) < 0.02 for other in others)


def test_constant_buffers_are_not_overwritten():
    """The DCT basis of FcaNet is in no state dict, so filling the weights must keep it."""
    network = seeded_inputs.seeded_network("fcanet50", 0, num_classes=2)
    built = dict(create_model("fcanet50", num_classes=2).named_buffers())
    constants = [name for name, _ in network.named_buffers() if name.endswith("basis")]
    assert constants
    assert all(torch.equal(network.get_buffer(name), built[name]) for name in constants)
