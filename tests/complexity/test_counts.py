"""Counts: against integers measured on the original code, against a second counter, and by hand."""

import csv
from math import prod

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import sdabench
from sdabench.complexity.counters import FlopCountAnalysis, _Dense, count_modules
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

# Where ours does the same by other means, and a counter sees it. fvcore counts adaptive pooling and no
# other: the originals of these pool with fixed windows or means where ours pools adaptively, or the other
# way round. A module is counted by the old total and a function is not: so in the bias-free CBAM.
BLOCKS_86 = 5 * 256 * 56**2 + 6 * 512 * 28**2 + 12 * 1024 * 14**2 + 5 * 2048 * 7**2
BLOCKS_50 = 3 * 256 * 56**2 + 4 * 512 * 28**2 + 6 * 1024 * 14**2 + 3 * 2048 * 7**2
BLOCKS_101 = BLOCKS_50 + 17 * 1024 * 14**2
STAGES = 256 * 56**2 + 512 * 28**2 + 1024 * 14**2 + 2048 * 7**2
HEAD = 2048 * 7**2
FVCORE_OTHERWISE = {
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
    # the original multiplies by a centring matrix, HW x HW; ours subtracts the mean
    "gsop50": 2048 * 14**2 - 128 * (28**4 + 2 * 14**4),
    "bam50": STAGES,
    # fvcore reads an einsum's cost, twice the product, from text with four digits; ours has no einsum
    "aanet50": 20 * (196 * 160 * 27 - 1_693_000 // 2) + 6 * (49 * 160 * 13 - 203_800 // 2),
}
# The whole of ScaleNet's original uses functions: stem, pools before a stage and after the last, the three
# ReLUs of each block.
SCALE_RELUS = (
    (64 + 88) * 3 * 56**2 + (128 + 175) * 4 * 28**2 + (256 + 349) * 6 * 14**2 + (512 + 697) * 3 * 7**2
)
TOTAL_MODULES = {
    "cbam86": -BLOCKS_86,
    "cbam101": -BLOCKS_101,
    "scalenet50": 2 * 64 * 112**2 + STAGES + SCALE_RELUS + BLOCKS_50,
    "bam50": STAGES - HEAD + 2 * (16 + 32 + 64),  # and its one-dimensional batch norms, which were not seen
    "sanet50": BLOCKS_50 // 2 * 63 // 64,  # its 64 groups are a batch, of which one sample was counted
}
# AA-Net's queries times its position tables: a matrix product, but no layer.
POSITIONS = 20 * 196 * 160 * 27 + 6 * 49 * 160 * 13
OTHER_PRODUCTS = {"aanet50": POSITIONS, "sda_aanet50": POSITIONS}
DCT = BLOCKS_50  # FcaNet's buffer, which the authors' counter adds to its total, not to its trainable line


def test_all_golden_rows_of_built_networks_are_used():
    assert len(GOLDEN) == 33


@pytest.mark.parametrize("name", GOLDEN)
def test_the_exact_integers(name):
    golden, own = GOLDEN[name], count(name)
    assert own.params == own.trainable == int(golden["exact params"])
    assert own.macs == int(golden["conv+linear MACs"])
    assert own.per_call == int(golden["authors-counter params"]) - (DCT if name == "fcanet50" else 0)
    assert own.fvcore == int(golden["fvcore total"]) + FVCORE_OTHERWISE.get(name, 0)
    total = golden["old-ptflops-style total (conv+fc+2/elem BN+ReLU+pool)"]
    assert own.value("total") == int(total) + TOTAL_MODULES.get(name, 0)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("resnet86", 41_886_248),
        ("resnet86_g8", 24_435_752),
        ("resnet101", 44_549_160),
        ("pyconvhg50", 25_234_728),
    ],
)
def test_networks_that_the_readme_lacks(name, params):
    assert count(name).params == params


def depth_attention_params(depths):
    """By the paper's formula: C to d without bias, batch norm, and n times d to C with bias; the head's norm."""
    stages = zip(depths, (256, 512, 1024, 2048), (64, 64, 64, 128), strict=True)
    return 2 * 2048 + sum(c * d + 2 * d + n * (d * c + c) for n, c, d in stages)


def test_the_formula_gives_the_facts():
    assert depth_attention_params((5, 6, 12, 5)) == 2_784_128


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("sda_")])
def test_depth_attention_adds_its_own_parameters_and_nothing_else(name):
    model = load_registry().model(name)
    depths = list(model.network.depths)
    if model.family == "bl_resnet":  # one block of each of the first stages merges the branches
        depths[:3] = [depth - 1 for depth in depths[:3]]
    assert count(name).params == count(model.like_for_like).params + depth_attention_params(depths)


@pytest.mark.parametrize("name", NETWORKS)
def test_three_counters_agree(name):
    own = count(name)
    assert own.operations["conv"] + own.operations["linear"] == own.macs
    with torch.device("meta"):
        network = sdabench.create_model(name).eval()
        with FlopCounterMode(display=False) as torch_counter:
            network(torch.zeros(1, 3, 224, 224))
    layers = {torch.ops.aten.convolution, torch.ops.aten.addmm, torch.ops.aten.mm}  # no batched products
    flops = {op: n for op, n in torch_counter.get_flop_counts()["Global"].items() if op in layers}
    assert sum(flops.values()) == 2 * (own.macs + OTHER_PRODUCTS.get(name, 0))


@pytest.mark.parametrize("name", NETWORKS + DETECTORS)
def test_the_committed_counts_are_todays(name):
    assert stored_counts()[name] == count(name), "run: sdabench flops '*' --save results/counts.jsonl"


def test_the_committed_counts_are_of_all_networks():
    assert sorted(stored_counts()) == sorted(NETWORKS + DETECTORS)


DETECTOR_ROWS = {}  # by the README's label, in two parts
for row in load_registry().table("detection").rows:
    detector, backbone = row.label.removesuffix(" (ours)").lower().split("-rcnn ")
    DETECTOR_ROWS[detector, backbone] = row.model
with (FACTS / "detection-counts.csv").open() as lines:
    GOLDEN_DETECTORS = {
        DETECTOR_ROWS[line["detector"], line["model"].lower()]: line for line in csv.DictReader(lines)
    }


def test_all_detectors_of_the_readme_have_golden_counts():
    assert len(GOLDEN_DETECTORS) == 22


@pytest.mark.parametrize("name", GOLDEN_DETECTORS)
def test_the_exact_integers_of_a_detector(name):
    golden, own = GOLDEN_DETECTORS[name], count(name)
    assert own.trainable == int(golden["params"])
    assert own.params == int(golden["params_total_incl_frozen"])
    assert own.value("mmcv") == int(golden["flops_A"])
    assert own.fvcore is None


@pytest.mark.parametrize("side", [(800, 1330), (608, 1003)])
def test_a_detectors_count_follows_the_closed_form_at_other_sizes(side):
    """ResNet-50's coefficients of the positions of each level, from detection-counts.md."""
    height, width = side
    positions = []
    for _ in range(6):
        height, width = (height + 1) // 2, (width + 1) // 2
        positions.append(height * width)
    weights = (9_664, 1_499_919, 2_636_687, 8_947_983, 16_156_687, 593_935)
    expected = 14_306_304_000 + sum(w * p for w, p in zip(weights, positions, strict=True))
    assert sdabench.count("faster_rcnn_resnet50", (3, *side)).value("mmcv") == expected


def test_modules_can_be_left_out_of_a_count():
    whole = count("mask_rcnn_resnet50").operations
    headless = sdabench.count("mask_rcnn_resnet50", without=["roi_heads.mask_head"]).operations
    assert whole["conv"] - headless["conv"] == 4 * 100 * 14**2 * 256 * 256 * 9
    with pytest.raises(UsageError, match="did you mean roi_heads.mask_head"):
        sdabench.count("mask_rcnn_resnet50", without=["roi_heads.mask_haed"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["mask_rcnn_resnet50", "faster_rcnn_ecanet50", "mask_rcnn_sda_senet86", "mask_rcnn_sda_res2net86"]
)
def test_fvcore_by_leaf_module_agrees_on_a_detector(name):
    """Fvcore's trace, told to count as mmcv does, and only what happens inside leaf modules."""
    from fvcore.nn.jit_handles import get_shape

    def elements(inputs, outputs):
        return prod(get_shape(inputs[0]))

    def convolution(inputs, outputs):
        own, transposed = get_shape(outputs[0]), inputs[6].toIValue()
        weight, x = get_shape(inputs[1]), get_shape(inputs[0])
        bias = 0 if get_shape(inputs[2]) is None else prod(own)
        per_position = prod(weight[1:])
        return prod(x if transposed else own) * per_position + bias

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
    analysis = FlopCountAnalysis(_Dense(network), torch.zeros(1, 3, 800, 1280)).set_op_handle(**handles)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    leaves = {  # of torch's own: the pyramid's last pool is a function in a module of torchvision's
        path
        for path, module in network.named_modules()
        if type(module).__module__.startswith("torch.nn") and not any(module.children())
    }
    own = [
        sum(operators.values())
        for path, operators in analysis.by_module_and_operator().items()
        if path.removeprefix("detector.") in leaves
    ]
    pooled = 256 * 200 * 320 + 512 * 100 * 160 + 1024 * 50 * 80 + 2048 * 25 * 40
    by_a_module_in_the_authors_code = pooled if "sda_" in name else 0  # ours pools by a function
    assert sum(own) + by_a_module_in_the_authors_code == count(name).value("mmcv")


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


def test_a_small_network_by_hand():
    module = Shared().train()
    module.gate.bias.requires_grad = False
    own = sdabench.count(module, (4, 8, 8))
    assert own.params == 6 * 2 * 9 + 6 + 12 + 36 + 6
    assert own.trainable == own.params - 6
    assert own.per_call == 6 * 2 * 9 + 6 + 12 + 36 + 36  # the gate's weight at each of its two calls
    positions = 4 * 4
    assert own.macs == 6 * positions * 2 * 9 + 2 * 36
    assert own.value("total") == own.macs + 2 * 6 * positions + 6 * positions + 6 * positions
    assert own.value("mmcv") == own.value("total") + 6 * positions
    assert own.fvcore == own.macs + 2 * 6 * positions + 6 * positions
    assert module.training
    assert module.bn.training
    assert module.bn.num_batches_tracked == 0


def test_per_module_numbers_add_up_to_the_whole():
    modules = count_modules("sda_resnet86", (3, 64, 64))
    whole = modules[""]
    assert whole[0] == 27_219_880
    top = [numbers for path, numbers in modules.items() if path and "." not in path]
    assert (sum(params for params, _ in top), sum(macs for _, macs in top)) == whole
    assert modules["layer1.attention.reduce"] == (256 * 64, 256 * 64)


def test_another_resolution_scales_the_convolutions():
    small, usual = sdabench.count("resnet50", (3, 96, 96)), count("resnet50")
    assert 7**2 * small.operations["conv"] == 3**2 * usual.operations["conv"]
    assert small.macs == small.operations["conv"] + 2048 * 1000
    assert small.params == usual.params


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.endswith("50") and name[:4] != "sda_"])
def test_every_family_is_counted_at_other_sizes(name):
    assert 0 < sdabench.count(name, (3, 64, 96)).macs < count(name).macs / 5


def test_an_input_that_a_module_cannot_take_is_an_error_of_the_user():
    with pytest.raises(UsageError, match="cannot take an input of"):
        sdabench.count("resnet50", (4, 64, 64))
