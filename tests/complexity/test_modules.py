"""Counts of modules that are not in the registry. Expected values are closed forms of their shapes."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import library, nn
from torch.nn.utils import parametrizations, rnn

import sdabench
from sdabench.complexity.operators import RULES, operator_rule
from sdabench.errors import UsageError

IMAGE = (64, 8, 8)  # the input of most of these modules
TOKENS = 64  # its pixels


class Call(nn.Module):
    """A module that calls a function with itself and its input."""

    def __init__(self, forward, **members):
        super().__init__()
        self._forward = forward
        for name, member in members.items():
            setattr(self, name, member)

    def forward(self, *inputs, **named):
        return self._forward(self, *inputs, **named)


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def weight(*shape):
    return nn.Parameter(torch.zeros(shape))


def on_tokens(module, call=lambda module, x: module(x)):
    return Call(lambda self, x: call(self.module, tokens(x)), module=module)


def attend(module, x):
    return module(x, x, x)[0]


def packed(module, x):
    return module(rnn.pack_padded_sequence(x, [TOKENS], batch_first=True))[1]


class Own(nn.Conv2d):
    pass


CONVOLUTION = 6 * 6 * 8 * 64 * 9  # of 3x3 to 8 channels, without padding
LSTM = 2 * (4 * 32 * 64 + 4 * 32 * 16 + 16 * 32) + 2 * (4 * 32 * 32 + 4 * 32 * 16 + 16 * 32)  # weights


@pytest.mark.parametrize(
    ("module", "macs"),
    [
        (nn.Conv2d(64, 8, 3), CONVOLUTION),
        (nn.Conv2d(64, 8, 3, padding="same"), TOKENS * 8 * 64 * 9),
        (nn.Conv2d(64, 8, 3, padding=1, padding_mode="circular"), TOKENS * 8 * 64 * 9),
        (Own(64, 8, 3), CONVOLUTION),
        (nn.ConvTranspose2d(64, 8, 3, stride=2, groups=2), TOKENS * 64 * 4 * 9),
        (nn.Conv2d(64, 8, 3).half(), CONVOLUTION),
        (nn.Sequential(nn.Conv2d(64, 8, 3), nn.BatchNorm2d(8)).bfloat16(), CONVOLUTION),
        (Call(lambda self, x: F.conv2d(x, self.w), w=weight(8, 64, 3, 3)), CONVOLUTION),
        (parametrizations.weight_norm(nn.Conv2d(64, 8, 3)), CONVOLUTION),
        (on_tokens(parametrizations.spectral_norm(nn.Linear(64, 8))), TOKENS * 64 * 8),
        (on_tokens(parametrizations.orthogonal(nn.Linear(64, 64))), TOKENS * 64 * 64),
        (torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(64, 8, 3), nn.ReLU())), CONVOLUTION),
        (Call(lambda self, x: self.conv(input=x), conv=nn.Conv2d(64, 8, 3)), CONVOLUTION),
        (
            Call(
                lambda self, x: self.deformed(x, self.offsets(x)),
                deformed=torchvision.ops.DeformConv2d(64, 8, 3, padding=1),
                offsets=nn.Conv2d(64, 18, 3, padding=1),
            ),
            TOKENS * 64 * 9 * (8 + 18),
        ),
        (on_tokens(nn.MultiheadAttention(64, 4, batch_first=True), attend), 4 * TOKENS * 64 * 64),
        (
            on_tokens(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)),
            TOKENS * (4 * 64 * 64 + 2 * 64 * 128),
        ),
        (on_tokens(nn.LSTM(64, 32, 2, batch_first=True, bidirectional=True, proj_size=16)), TOKENS * LSTM),
        (on_tokens(nn.GRU(64, 32, batch_first=True), packed), TOKENS * 3 * 32 * (64 + 32)),
        (on_tokens(nn.RNN(64, 32, batch_first=True)), TOKENS * 32 * (64 + 32)),
        (on_tokens(nn.GRUCell(64, 32), lambda cell, x: cell(x[:, 0])), 3 * 32 * (64 + 32)),
        (on_tokens(nn.Bilinear(64, 64, 5), lambda bilinear, x: bilinear(x, x)), TOKENS * 5 * 64 * 64),
    ],
)  # fmt: skip
def test_macs_are_the_multiply_adds_of_weights_whoever_calls_them(module, macs):
    with_fvcore = sdabench.count(module, IMAGE)
    assert with_fvcore.macs == sdabench.count(module, IMAGE, fvcore=False).macs == macs
    agrees = with_fvcore.fvcore is not None and with_fvcore.fvcore >= macs + with_fvcore.products
    assert agrees or "fvcore" in with_fvcore.notes[-1]


@pytest.mark.parametrize(
    ("call", "shape", "of_weights", "of_activations"),
    [
        (lambda self, x: tokens(x) @ self.w, (64, 10), TOKENS * 64 * 10, 0),
        (lambda self, x: torch.einsum("nchw,co->nohw", x, self.w), (64, 10), TOKENS * 64 * 10, 0),
        (lambda self, x: torch.tensordot(x, self.w, ([1], [0])), (64, 10), TOKENS * 64 * 10, 0),
        (lambda self, x: tokens(x) @ (self.w @ self.w), (64, 64), 64**3 + TOKENS * 64 * 64, 0),
        (lambda self, x: tokens(x) @ x.flatten(2), (1,), 0, TOKENS * TOKENS * 64),
        (
            lambda self, x: F.scaled_dot_product_attention(tokens(x), tokens(x), tokens(x)[..., :3]),
            (1,),
            0,
            TOKENS * TOKENS * (64 + 3),
        ),
    ],
)
def test_products_outside_layers_are_apart(call, shape, of_weights, of_activations):
    counted = sdabench.count(Call(call, w=weight(*shape)), IMAGE)
    assert counted.macs == 0
    assert counted.as_json()["weight_product"] == of_weights
    assert counted.as_json()["product"] == of_activations
    assert counted.products == of_weights + of_activations


def test_modules_are_left_out_of_every_number_alike():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.head = weight(8, 3, 3, 3), nn.Linear(8, 4)

        def forward(self, x):
            return self.head(F.conv2d(x, self.w, padding=1).mean((2, 3)))

    network = Functional()
    assert sdabench.count(network, (3, 32, 32)).macs == 32 * 32 * 8 * 27 + 32
    assert sdabench.count(network, (3, 32, 32), without=["head"]).macs == 32 * 32 * 8 * 27


def test_several_inputs_are_given_as_tensors():
    module = Call(lambda self, x, y: self.conv(x) + y, conv=nn.Conv2d(3, 8, 3, padding=1))
    inputs = [torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8, 8)]
    counted = sdabench.count(module, inputs=inputs)
    assert (counted.macs, counted.input) == (2 * 64 * 8 * 27, (3, 8, 8))


@pytest.mark.parametrize(
    "inputs",
    [
        [torch.zeros(2, 7, dtype=torch.long)],
        {"ids": torch.zeros(2, 7, dtype=torch.long)},
        {"ids": "2x7:int64"},
        ["ids=2x7:int64", "mask=2x7x1"],
        ["2x7:int64", "2x7x1:float32"],
    ],
)
def test_inputs_are_tensors_or_texts_by_position_or_by_name(inputs):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.project = nn.Embedding(10, 8), nn.Linear(8, 4)

        def forward(self, ids, mask=1):
            return self.project(self.embed(ids)) * mask

    counted = sdabench.count(Words(), inputs=inputs)
    assert counted.macs == counted.fvcore == 2 * 7 * 8 * 4
    assert counted.batch == 2
    assert counted.inputs[0] in ("2x7:int64", "ids=2x7:int64")


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (["3x"], "'3x' is not an input; use SHAPE"),
        (["3x0"], "'3x0' is not an input"),
        (["2x7:int65"], "unknown dtype 'int65'; choose from float16"),
        (["a=2x7", "3"], "some inputs have names"),
        (["a=2x7", "a=3"], "the same name"),
    ],
)
def test_wrong_texts_of_inputs_are_one_line(inputs, words):
    with pytest.raises(UsageError, match=words):
        sdabench.count(nn.ReLU(), inputs=inputs)


def test_a_batch_multiplies_the_operations():
    one, four = sdabench.count("resnet50"), sdabench.count("resnet50", batch=4)
    assert four.operations == {name: 4 * number for name, number in one.operations.items()}
    assert (four.fvcore, four.params) == (4 * one.fvcore, one.params)
    with pytest.raises(UsageError, match="leave out the input size and the batch"):
        sdabench.count("resnet50", inputs=["1x3x64x64"], batch=4)


def test_a_forward_pass_that_depends_on_data_is_counted_on_the_cpu_with_a_note():
    def forward(self, x):
        return self.conv(x) if x.sum() >= 0 else x

    module = Call(forward, conv=nn.Conv2d(64, 8, 3))
    counted = sdabench.count(module, IMAGE, fvcore=False)
    assert counted.macs == CONVOLUTION
    [note] = counted.notes
    assert "depends on data (aten::_local_scalar_dense)" in note
    with pytest.raises(UsageError, match="cannot run without data; count it on the CPU, with --device cpu"):
        sdabench.count(module.to("meta"), IMAGE)


def test_where_counters_disagree_a_note_names_the_operator(monkeypatch):
    attention = sdabench.count(Call(lambda self, x: F.scaled_dot_product_attention(x, x, x)), IMAGE)
    assert "because it has no rule for aten::scaled_dot_product_attention" in attention.notes[0]
    monkeypatch.setitem(RULES, "aten::linear", lambda arguments, output: {"linear": 1})
    counted = sdabench.count(on_tokens(nn.Linear(64, 64)), IMAGE)
    assert counted.notes[0] == f"torch counts {TOKENS * 64 * 64:,} multiply-adds of aten::linear, not 1"
    assert "fvcore" in counted.notes[1]


def test_masks_in_indices_depend_on_data_and_numbers_do_not():
    by_number = Call(lambda self, x: x[:, torch.arange(3)] * self.w, w=weight(1))
    assert sdabench.count(by_number, IMAGE).notes == ()
    by_mask = Call(lambda self, x: x[x > 0], w=weight(1))
    assert "aten::index" in sdabench.count(by_mask, IMAGE).notes[0]


@pytest.fixture
def unknown_operator():
    operators = library.Library("sdabench_test", "DEF")
    operators.define("multiply(Tensor x, Tensor w) -> Tensor")
    operators.impl("multiply", lambda x, w: tokens(x) @ w, "CompositeExplicitAutograd")
    yield Call(lambda self, x: torch.ops.sdabench_test.multiply(x, self.w), w=weight(64, 10))
    RULES.pop("sdabench_test::multiply", None)
    operators._destroy()


def test_an_operator_without_a_rule_is_named_and_can_get_one(unknown_operator):
    with pytest.raises(UsageError, match="no rule for the operator sdabench_test::multiply, .*'w'"):
        sdabench.count(unknown_operator, IMAGE)
    operator_rule("sdabench_test::multiply")(
        lambda arguments, output: {"linear": output.numel() * arguments["w"].shape[0]}
    )
    assert sdabench.count(unknown_operator, IMAGE, fvcore=False).macs == TOKENS * 64 * 10


def test_an_operator_on_activations_without_a_rule_is_named_in_a_note(unknown_operator):
    module = Call(lambda self, x: torch.ops.sdabench_test.multiply(x, torch.zeros(64, 10)), w=weight(1))
    [note] = sdabench.count(module, IMAGE, fvcore=False).notes
    assert "no rule for the operator sdabench_test::multiply, which counts as nothing" in note


def test_wrappers_and_profiled_modules_are_counted():
    def profiled(self, x):
        with torch.profiler.record_function("block"):
            return self.conv(x)

    assert sdabench.count(Call(profiled, conv=nn.Conv2d(64, 8, 3)), IMAGE, fvcore=False).macs == CONVOLUTION
    exported = torch.export.export(nn.Conv2d(64, 8, 3).eval(), (torch.zeros(1, *IMAGE),)).module()
    assert sdabench.count(exported, IMAGE, fvcore=False).macs == CONVOLUTION


@pytest.mark.filterwarnings("ignore")  # both are deprecated
def test_weights_that_are_not_tensors_are_not_counted_as_nothing():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(4096, 8))
    assert sdabench.count(torch.jit.script(linear), IMAGE).macs == 4096 * 8
    with pytest.raises(UsageError, match="quantized::linear_dynamic"):
        sdabench.count(torch.ao.quantization.quantize_dynamic(linear), IMAGE)


@pytest.mark.parametrize(
    ("module", "size", "words"),
    [
        (Call(lambda self, x, y: x), IMAGE, "TypeError: .* missing 1 required positional argument: 'y'"),
        (Call(lambda self, x: 1 / 0), IMAGE, "cannot take an input of .64, 8, 8.: ZeroDivisionError"),
        (nn.Conv2d(3, 8, 3), IMAGE, "cannot take an input of"),
        (nn.Conv2d(3, 8, 3), (0, 8, 8), "positive numbers"),
        (nn.Conv2d(3, 8, 3), (), r"input size is \(C, H, W\)"),
    ],
)
def test_what_goes_wrong_in_a_forward_pass_is_one_line(module, size, words):
    with pytest.raises(UsageError, match=words) as caught:
        sdabench.count(module, size)
    assert "\n" not in str(caught.value)


def test_counting_leaves_a_module_as_it_was():
    module = torchvision.models.vit_b_16().train()
    sdabench.count(module, fvcore=False)
    assert module.training
    assert torch.backends.mha.get_fastpath_enabled()
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())
    module(torch.zeros(2, 3, 224, 224)).sum().backward()


@pytest.mark.parametrize("name", ["regnet_y_400mf", "shufflenet_v2_x1_0", "swin_t", "vit_b_32"])
def test_counts_equal_the_numbers_that_torchvision_publishes(name):
    counted = sdabench.count(f"torchvision:{name}", fvcore=False)
    published = torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta
    assert counted.params == published["num_params"]
    assert round((counted.macs + counted.products) / 1e9, 3) == published["_ops"]
