"""Variants of depth attention: their declarations, counts, trainings and differences."""

import json

import pytest
import yaml
from scipy.stats import ttest_rel

from sdabench.models.build import changed_network
from sdabench.registry import Registry, load_registry
from sdabench.registry.plugins import plugin_at
from sdabench.tools.ablate.results import ablation_rows
from sdabench.tools.ablate.variants import Ablation
from sdabench.tools.ablate.view import ablation_sheet
from tests.helpers.program import assert_error, sdabench
from tests.helpers.records import trained
from tests.helpers.training import RECIPE_FILE

NARROW = "sda_resnet_narrow"
VARIED = {
    "stages": {"depth_attention", "head_norm"},
    "weights": {"depth_attention"},
    "bottleneck": {"depth_attention"},
    "head": {"head_norm"},
    "blocks": {"depths"},
}


def test_each_variant_changes_one_choice_of_the_declaration():
    base = load_registry().models["sda_resnet50"].network.model_dump()
    variants = Ablation.of("sda_resnet50").variants
    assert [each.name.removeprefix("sda_resnet50-") for each in variants] == [
        "none", "stage1", "stage2", "stage3", "stage4", "static", "uniform", "random",
        "hidden16", "hidden32", "hidden128", "hidden256", "no-head-norm",
        *(f"blocks{blocks}" for blocks in range(2, 13)),
    ]  # fmt: skip
    for each in variants:
        changed = changed_network("sda_resnet50", each.changes).model_dump()
        different = {field for field, value in changed.items() if value != base[field]}
        assert different
        assert different <= VARIED[each.group]


def test_network_without_depth_attention_keeps_its_norm_before_the_head():
    none = Ablation.of("sda_resnet50").variants[0]
    assert none.changes == {"depth_attention": False, "head_norm": True}


def test_variants_that_are_the_network_are_left_out():
    static = [each.name for each in Ablation.of("sda_resnet_narrow_static").variants]
    assert "sda_resnet_narrow_static-uniform" in static
    assert not [name for name in static if "hidden" in name or name.endswith(("-static", "-blocks3"))]


def test_counts_of_variants():
    """A learned stage has C*d + 2*d + n*(d*C + C) parameters, a block of width w 13*w*w + 8*w."""
    chosen = ["none", "uniform", "stage2", "static", "hidden32", "no-head-norm", "blocks5"]
    ablation = Ablation.of(NARROW).select([f"{NARROW}-{suffix}" for suffix in chosen])
    rows = {row.variant.name.removeprefix(f"{NARROW}-"): row for row in ablation_rows(ablation)}
    channels = (32, 64, 128, 256)
    learned = [c * 16 + 2 * 16 + 3 * (16 * c + c) for c in channels]
    assert rows[NARROW].added_params == 0
    assert rows["none"].added_params == rows["uniform"].added_params == -sum(learned)
    assert rows["stage2"].added_params == learned[1] - sum(learned)
    assert rows["static"].added_params == 3 * sum(channels) - sum(learned)
    assert rows["hidden32"].added_params == sum(c * 16 + 2 * 16 + 3 * 16 * c for c in channels)
    assert rows["no-head-norm"].added_params == -2 * 256
    block = sum(13 * w * w + 8 * w for w in (16, 32, 64, 128))
    assert rows["blocks5"].added_params == 2 * (block + sum(16 * c + c for c in channels))


def test_plugin_declares_the_variants_and_nothing_else(tmp_path):
    ablation = Ablation.of("sda_resnet50")
    registry = load_registry()
    extended = Registry(registry.folder, [*registry.plugins, plugin_at(str(ablation.write(tmp_path)))])
    assert set(extended.models) - set(registry.models) == set(ablation.names[1:])
    for each in ablation.variants:
        declared = extended.models[each.name]
        assert declared.network == changed_network("sda_resnet50", each.changes)
        assert declared.baseline == "sda_resnet50"
        assert (declared.like_for_like is None) == (
            each.group in ("head", "blocks") or each.name.endswith("none")
        )


def test_differences_are_paired_by_seed_and_corrected():
    accuracies = {
        NARROW: [70.0, 71.0, 72.5],
        f"{NARROW}-none": [69.0, 69.5, 71.7],
        f"{NARROW}-static": [70.0, 70.9],
    }
    records = [
        trained(name, top1, seed) for name, values in accuracies.items() for seed, top1 in enumerate(values)
    ]
    ablation = Ablation.of(NARROW).select(["*-none", "*-static"])
    rows = ablation_rows(ablation, records)
    expected = [
        ttest_rel(values, accuracies[NARROW][: len(values)]) for values in list(accuracies.values())[1:]
    ]
    assert [row.added_accuracy for row in rows[1:]] == pytest.approx([-1.1, -0.05])
    for row, test in zip(rows[1:], expected, strict=True):
        interval = test.confidence_interval()
        assert (row.difference.interval.low, row.difference.interval.high) == pytest.approx(interval)
    p_values = sorted(test.pvalue for test in expected)
    assert sorted(row.p for row in rows[1:]) == pytest.approx(
        [2 * p_values[0], max(2 * p_values[0], p_values[1])]
    )
    texts = [[cell.text for cell in cells] for cells in ablation_sheet(NARROW, rows).rows]
    assert texts[1][:6] == [
        "no depth attention",
        f"{NARROW}-none",
        "1,137,016",
        "−32,288",
        "165,435,392",
        "−30,720",
    ]
    assert texts[1][6:9] == ["70.07", "1.44", "−1.10"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet50"], ["'resnet50' has no depth attention to vary; name sda_resnet50"]),
        (["mask_rcnn_sda_resnet86"], ["is a detector; name its backbone, sda_resnet86"]),
        (["faster_rcnn_resnet50"], ["is a detector; name a network with depth attention, sda_resnet50"]),
        ([NARROW, "--tensorboard"], ["--tensorboard is for training; add --train"]),
        (["timm:resnet18"], ["is not declared in the registry"]),
        ([NARROW, "--epochs", 3], ["--epochs is for training; add --train"]),
        ([NARROW, "--dry-run"], ["--dry-run is for training; add --train"]),
        ([NARROW, "--models", "*-stage5"], ["*-stage5"]),
    ],
)
def test_wrong_use_is_refused(arguments, words):
    assert_error(sdabench("ablate", *arguments), 2, *words)


def test_trains_variants_as_networks_of_a_plugin(textures, tmp_path):
    (tmp_path / "quick.yaml").write_text(RECIPE_FILE)
    output = tmp_path / "out"
    command = [
        "ablate", NARROW, "--models", "*-none", "--train", "--data", f"synthetic={textures}", "--workers", 0,
        "--recipe", tmp_path / "quick.yaml", "--jobs", 1, "--output", output, "--json",
    ]  # fmt: skip
    first = sdabench(*command)
    assert first.returncode == 0, first.stderr
    rows = json.loads(first.stdout)
    assert [row["model"] for row in rows] == [NARROW, f"{NARROW}-none"]
    assert all(len(row["top1_pct"]) == 1 for row in rows)
    assert rows[1]["added_top1_pct"] == pytest.approx(rows[1]["top1_pct"][0] - rows[0]["top1_pct"][0])
    plugin = output / f"{NARROW}-variants"
    assert len(yaml.safe_load((plugin / "models" / f"{plugin.name}.yaml").read_text())["models"]) == 23
    again = sdabench(*command)
    assert "2 of 2 are completed." in again.stderr
    assert again.stdout == first.stdout
    shown = sdabench("show", f"{NARROW}-none", "--plugin", plugin)
    assert "baseline: sda_resnet_narrow" in shown.stdout
    second = sdabench(
        "ablate",
        f"{NARROW}-uniform",
        "--models",
        "*-none",
        "--plugin",
        plugin,
        "--output",
        tmp_path / "second",
    )
    assert f"add --plugin to other commands besides that of {plugin.name}" in second.stderr
