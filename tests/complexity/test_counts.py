"""Counts compared with integers measured on the original code, with a second counter, and by hand."""

import csv
from math import prod

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import sdabench
from sdabench.complexity.counters import Dense, FlopCountAnalysis, count_modules
from sdabench.errors import UsageError
from sdabench.records.counts import stored_counts
from sdabench.registry import load_registry
from tests.helpers.counts import DETECTORS, NETWORKS, count
from tests.helpers.paths import FACTS

ROWS = {
    row.label.replace("$^2$", "2"): row.model
    for table in ("classification-multiscale", "classification-attention")
    for row in load_registry().table(table).rows
} | {"PyConv-101 [true pyconvresnet101, not in README]": "pyconv101"}
GOLDEN = {}
with (FACTS / "classification-counts.csv").open() as lines:
    for line in csv.DictReader(lines):
        GOLDEN[ROWS[line["row label"]]] = line

# Differences where sdabench computes the same with other operations than the original code. fvcore counts
# only adaptive pooling: these originals pool with fixed windows or means where sdabench pools adaptively, or
# vice versa. The old total counts modules but not functions, as in the bias-free CBAM.
BLOCKS_86 = 5 * 256 * 56**2 + 6 * 512 * 28**2 + 12 * 1024 * 14**2 + 5 * 2048 * 7**2
BLOCKS_50 = 3 * 256 * 56**2 + 4 * 512 * 28**2 + 6 * 1024 * 14**2 + 3 * 2048 * 7**2
BLOCKS_101 = BLOCKS_50 + 17 * 1024 * 14**2
STAGES = 256 * 56**2 + 512 * 28**2 + 1024 * 14**2 + 2048 * 7**2
HEAD = 2048 * 7**2
FVCORE_DIFFERENCES = {
    "senet50": BLOCKS_50 + HEAD,
    "senet86": BLOCKS_86 + HEAD,
    "senet101": BLOCKS_101 + HEAD,
    "cbam50": HEAD,
    "cbam86": -BLOCKS_86,
    "cbam101": -BLOCKS_101,
    "sda_cbam86": -BLOCKS_86 - STAGES,
    "sda_senet86": BLOCKS_86 - STAGES + HEAD,
    "sda_resnet86": -STAGES + HEAD,
    "sda_epsanet86": -STAGES,
    "sda_pyconv86": -STAGES,
    "sda_res2net86": -STAGES,
    "ecanet50": HEAD,
    # the original multiplies by a centering matrix, HW x HW; sdabench subtracts the mean
    "gsop50": 2048 * 14**2 - 128 * (28**4 + 2 * 14**4),
    "bam50": STAGES,
    # fvcore parses the cost of an einsum, twice the product, from text with four digits; sdabench has no einsum
    "aanet50": 20 * (196 * 160 * 27 - 1_693_000 // 2) + 6 * (49 * 160 * 13 - 203_800 // 2),
}
# The original ScaleNet uses only functions: stem, pooling before a stage and after the last, and the three
# ReLUs of each block.
SCALE_RELUS = (
    (64 + 88) * 3 * 56**2 + (128 + 175) * 4 * 28**2 + (256 + 349) * 6 * 14**2 + (512 + 697) * 3 * 7**2
)
TOTAL_DIFFERENCES = {
    "cbam86": -BLOCKS_86,
    "cbam101": -BLOCKS_101,
    "scalenet50": 2 * 64 * 112**2 + STAGES + SCALE_RELUS + BLOCKS_50,
    "bam50": STAGES - HEAD + 2 * (16 + 32 + 64),  # and its BatchNorm1d, which the old counter missed
    "sanet50": BLOCKS_50 // 2 * 63 // 64,  # its 64 groups form a batch, of which one sample was counted
}
# AA-Net's queries times its position tables: a matrix product outside any layer.
POSITIONS = 20 * 196 * 160 * 27 + 6 * 49 * 160 * 13
OTHER_PRODUCTS = {"aanet50": POSITIONS, "sda_aanet50": POSITIONS}
DCT = BLOCKS_50  # FcaNet's buffer, which the authors' counter adds to the total, not to the trainable parameters


def test_all_golden_rows_are_used():
    assert len(GOLDEN) == 33


@pytest.mark.parametrize("name", GOLDEN)
def test_counts_equal_the_golden_integers(name):
    golden, counted = GOLDEN[name], count(name)
    assert counted.params == counted.trainable == int(golden["exact params"])
    assert counted.macs == int(golden["conv+linear MACs"])
    assert counted.per_call == int(golden["authors-counter params"]) - (DCT if name == "fcanet50" else 0)
    assert counted.fvcore == int(golden["fvcore total"]) + FVCORE_DIFFERENCES.get(name, 0)
    total = golden["old-ptflops-style total (conv+fc+2/elem BN+ReLU+pool)"]
    assert counted.value("total") == int(total) + TOTAL_DIFFERENCES.get(name, 0)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("resnet86", 41_886_248),
        ("resnet86_g8", 24_435_752),
        ("resnet101", 44_549_160),
        ("pyconvhg50", 25_234_728),
    ],
)
def test_params_of_networks_outside_the_paper(name, params):
    assert count(name).params == params


def depth_attention_params(depths):
    """Apply the paper's formula: C to d without bias, batch norm, n times d to C with bias; norm of the head."""
    return 2 * 2048 + learned_params(depths, (256, 512, 1024, 2048), (64, 64, 64, 128))


def learned_params(depths, channels, hidden):
    return sum(c * d + 2 * d + n * (d * c + c) for n, c, d in zip(depths, channels, hidden, strict=True))


NARROW = {  # all have the norm of the head
    "sda_resnet_narrow": learned_params((3, 3, 3, 3), (32, 64, 128, 256), (16, 16, 16, 16)),
    "sda_resnet_narrow_static": 3 * (32 + 64 + 128 + 256),
    "sda_resnet_narrow_uniform": 0,
    "sda_resnet_narrow_random": 0,
    "sda_resnet_narrow_matched": learned_params((5, 5, 3, 3), (32, 64, 128, 256), (64, 64, 64, 64)),
}


def test_formula_gives_the_known_depth_attention_params():
    assert depth_attention_params((5, 6, 12, 5)) == 2_784_128


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("sda_")])
def test_depth_attention_adds_only_its_own_params(name):
    model = load_registry().model(name)
    depths = list(model.network.depths)
    if model.family == "bl_resnet":  # one block of each of the first stages merges the branches
        depths[:3] = [depth - 1 for depth in depths[:3]]
    added = NARROW.get(name, depth_attention_params(depths))
    assert count(name).params == count(model.like_for_like).params + added


@pytest.mark.parametrize("name", ["sda_resnet_narrow", "sda_resnet_narrow_uniform"])
def test_narrow_detectors_differ_by_depth_attention_alone(name):
    control = count("faster_rcnn_resnet_narrow")
    assert count(f"faster_rcnn_{name}").params == control.params + NARROW[name]


def test_matched_control_is_deeper_and_has_the_parameters_of_depth_attention():
    counts = {name: count(name).params for name in ("resnet_narrow_matched", "sda_resnet_narrow")}
    classifier = 257 * 1000
    matched, learned = (params - classifier for params in counts.values())
    assert matched == pytest.approx(learned, rel=0.02)
    assert count("resnet_narrow_matched").macs > count("sda_resnet_narrow").macs


@pytest.mark.parametrize("name", NETWORKS)
def test_three_counters_agree(name):
    counted = count(name)
    assert counted.operations["conv"] + counted.operations["linear"] == counted.macs
    with torch.device("meta"):
        network = sdabench.create_model(name).eval()
        with FlopCounterMode(display=False) as torch_counter:
            network(torch.zeros(1, 3, 224, 224))
    layers = {torch.ops.aten.convolution, torch.ops.aten.addmm, torch.ops.aten.mm}  # no batched products
    flops = {op: n for op, n in torch_counter.get_flop_counts()["Global"].items() if op in layers}
    assert sum(flops.values()) == 2 * (counted.macs + OTHER_PRODUCTS.get(name, 0))


@pytest.mark.parametrize("name", NETWORKS + DETECTORS)
def test_committed_counts_are_current(name):
    assert stored_counts()[name] == count(name), "run: sdabench flops '*' --save results/counts.jsonl"


def test_committed_counts_cover_all_networks():
    assert sorted(stored_counts()) == sorted(NETWORKS + DETECTORS)


DETECTOR_ROWS = {}  # by the two parts of the paper's label
for row in load_registry().table("detection").rows:
    detector, backbone = row.label.removesuffix(" (ours)").lower().split("-rcnn ")
    DETECTOR_ROWS[detector, backbone] = row.model
with (FACTS / "detection-counts.csv").open() as lines:
    GOLDEN_DETECTORS = {
        DETECTOR_ROWS[line["detector"], line["model"].lower()]: line for line in csv.DictReader(lines)
    }


def test_all_detectors_of_the_paper_have_golden_counts():
    assert len(GOLDEN_DETECTORS) == 22


@pytest.mark.parametrize("name", GOLDEN_DETECTORS)
def test_detector_counts_equal_the_golden_integers(name):
    golden, counted = GOLDEN_DETECTORS[name], count(name)
    assert counted.trainable == int(golden["params"])
    assert counted.params == int(golden["params_total_incl_frozen"])
    assert counted.value("mmcv") == int(golden["flops_A"])
    assert counted.fvcore is None


@pytest.mark.parametrize("side", [(800, 1330), (608, 1003)])
def test_detector_count_follows_the_closed_form(side):
    """Cost of ResNet-50 per position of each pyramid level, from detection-counts.md."""
    height, width = side
    positions = []
    for _ in range(6):
        height, width = (height + 1) // 2, (width + 1) // 2
        positions.append(height * width)
    weights = (9_664, 1_499_919, 2_636_687, 8_947_983, 16_156_687, 593_935)
    expected = 14_306_304_000 + sum(w * p for w, p in zip(weights, positions, strict=True))
    assert sdabench.count("faster_rcnn_resnet50", (3, *side)).value("mmcv") == expected


def test_count_without_named_modules():
    total = count("mask_rcnn_resnet50").operations
    headless = sdabench.count("mask_rcnn_resnet50", without=["roi_heads.mask_head"]).operations
    assert total["conv"] - headless["conv"] == 4 * 100 * 14**2 * 256 * 256 * 9
    with pytest.raises(UsageError, match="did you mean roi_heads.mask_head"):
        sdabench.count("mask_rcnn_resnet50", without=["roi_heads.mask_haed"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["mask_rcnn_resnet50", "faster_rcnn_ecanet50", "mask_rcnn_sda_senet86", "mask_rcnn_sda_res2net86"]
)
def test_fvcore_by_leaf_module_agrees_on_a_detector(name):
    """Trace with fvcore, count as mmcv does, and only inside leaf modules."""
    from fvcore.nn.jit_handles import get_shape

    def elements(inputs, outputs):
        return prod(get_shape(inputs[0]))

    def convolution(inputs, outputs):
        output_shape, transposed = get_shape(outputs[0]), inputs[6].toIValue()
        weight, x = get_shape(inputs[1]), get_shape(inputs[0])
        bias = 0 if get_shape(inputs[2]) is None else prod(output_shape)
        per_position = prod(weight[1:])
        return prod(x if transposed else output_shape) * per_position + bias

    handles = {
        "aten::_convolution": convolution,
        "aten::batch_norm": lambda i, o: 2 * elements(i, o),
        "aten::linear": lambda i, o: elements(i, o) * get_shape(i[1])[0],
        "aten::upsample_nearest2d": None,
    } | {
        f"aten::{op}": elements for op in ("relu", "relu_", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d")
    }
    torch.manual_seed(0)
    network = sdabench.create_model(name).eval()
    analysis = FlopCountAnalysis(Dense(network), torch.zeros(1, 3, 800, 1280)).set_op_handle(**handles)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    leaves = {  # of torch.nn: the last pooling of the pyramid is a function in a torchvision module
        path
        for path, module in network.named_modules()
        if type(module).__module__.startswith("torch.nn") and not any(module.children())
    }
    leaf_flops = [
        sum(operators.values())
        for path, operators in analysis.by_module_and_operator().items()
        if path.removeprefix("detector.") in leaves
    ]
    pooled = 256 * 200 * 320 + 512 * 100 * 160 + 1024 * 50 * 80 + 2048 * 25 * 40
    pooled_by_modules = pooled if "sda_" in name else 0  # sdabench pools with a function
    assert sum(leaf_flops) + pooled_by_modules == count(name).value("mmcv")


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.bn = nn.BatchNorm2d(6)
        self.relu = nn.ReLU()
        self.gate = nn.Linear(6, 6)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        x = self.relu(self.bn(self.conv(x)))
        pooled = self.pool(x).flatten(1)
        return self.gate(self.gate(pooled))


def test_small_network_by_hand():
    module = Shared().train()
    module.gate.bias.requires_grad = False
    counted = sdabench.count(module, (4, 8, 8))
    assert counted.params == 6 * 2 * 9 + 6 + 12 + 36 + 6
    assert counted.trainable == counted.params - 6
    assert counted.per_call == 6 * 2 * 9 + 6 + 12 + 36 + 36  # the gate's weight at each of its two calls
    positions = 4 * 4
    assert counted.macs == 6 * positions * 2 * 9 + 2 * 36
    assert counted.value("total") == counted.macs + 2 * 6 * positions + 6 * positions + 6 * positions
    assert counted.value("mmcv") == counted.value("total") + 6 * positions
    assert counted.fvcore == counted.macs + 2 * 6 * positions + 6 * positions
    assert module.training
    assert module.bn.training
    assert module.bn.num_batches_tracked == 0


def test_module_counts_add_up_to_the_total():
    size, modules = count_modules("sda_resnet86", (3, 64, 64))
    assert size == (3, 64, 64)
    total = modules[""]
    assert total[0] == 27_219_880
    top_level = [numbers for path, numbers in modules.items() if path and "." not in path]
    assert tuple(map(sum, zip(*top_level, strict=True))) == total[:3]
    assert modules["layer1.attention.reduce"][:2] == (256 * 64, 256 * 64)


def test_convolution_macs_scale_with_resolution():
    small, default = sdabench.count("resnet50", (3, 96, 96)), count("resnet50")
    assert 7**2 * small.operations["conv"] == 3**2 * default.operations["conv"]
    assert small.macs == small.operations["conv"] + 2048 * 1000
    assert small.params == default.params


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.endswith("50") and name[:4] != "sda_"])
def test_every_family_can_be_counted_at_other_sizes(name):
    assert 0 < sdabench.count(name, (3, 64, 96)).macs < count(name).macs / 5


def test_unsupported_input_is_a_usage_error():
    with pytest.raises(UsageError, match="cannot take an input of"):
        sdabench.count("resnet50", (4, 64, 64))
