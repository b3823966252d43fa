"""Loading weights: every tensor is used, or an error lists the tensors that do not fit."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sdabench import create_model, load_weights
from sdabench.errors import UsageError, WeightsError
from sdabench.models.skeleton import Trunk
from sdabench.weights.keys import match_tensors


def on_meta(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(1)
    return create_model("resnet50").state_dict()


@pytest.mark.parametrize("wrap", [dict, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
def test_sdabench_keys_load_bare_wrapped_or_data_parallel(tmp_path, state, wrap):
    path = tmp_path / "w.pth"
    torch.save(wrap({f"module.{key}": tensor for key, tensor in state.items()}), path)
    network = load_weights(create_model("resnet50"), path)
    assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())


def test_safetensors_load(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    assert torch.equal(
        load_weights(create_model("resnet50"), tmp_path / "w.safetensors").fc.bias, state["fc.bias"]
    )


def test_features_only_network_loads_classifier_weights(state):
    trunk = load_weights(create_model("resnet50", features_only=True), state)
    assert torch.equal(trunk.conv1.weight, state["conv1.weight"])


def test_two_tensors_for_one_key_are_refused(state):
    with pytest.raises(WeightsError, match="two tensors .* are renamed to 'layer1.0.conv1.weight'"):
        load_weights(on_meta("resnet50"), state | {"stage1.layers.0.conv1.weight": state["conv1.weight"]})


def test_missing_tensor_is_named(state):
    for key in ("conv1.weight", "layer4.2.bn3.running_var", "layer1.0.bn1.num_batches_tracked", "fc.bias"):
        without = {name: tensor for name, tensor in state.items() if name != key}
        with pytest.raises(WeightsError, match=rf"does not fit 'resnet50': 1 missing \({key}\)"):
            load_weights(on_meta("resnet50"), without)


def test_checkpoints_from_before_num_batches_tracked_load(state):
    old = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    load_weights(create_model("resnet50"), old)


def test_unexpected_or_misshaped_tensor_is_named(state):
    with pytest.raises(WeightsError, match=r"1 unexpected \(extra\)"):
        load_weights(on_meta("resnet50"), state | {"extra": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"1 of another shape \(fc.bias \(7,\) for \(1000,\)\)"):
        load_weights(on_meta("resnet50"), state | {"fc.bias": torch.zeros(7)})


def test_checkpoint_of_another_network_is_refused(state):
    with pytest.raises(WeightsError, match="does not fit 'sda_resnet86'.*missing"):
        load_weights(on_meta("sda_resnet86"), state)
    with pytest.raises(WeightsError, match="does not fit 'cbam86'"):
        load_weights(on_meta("cbam86"), on_meta("cbam50").state_dict())


def test_missing_damaged_and_foreign_files_are_refused(tmp_path, state):
    model = on_meta("resnet50")
    with pytest.raises(UsageError, match="no weights file"):
        load_weights(model, tmp_path / "none.pth")
    path = tmp_path / "w.pth"
    torch.save(state, path)
    (tmp_path / "cut.pth").write_bytes(path.read_bytes()[:100_000])
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({}, tmp_path / "nothing.pth")
    torch.save({1: torch.zeros(1)}, tmp_path / "numbered.pth")
    (tmp_path / "legacy.pth").write_bytes(b"\x80\x02\x8a\x0a")
    torch.save({"lr": 0.1}, tmp_path / "plain.pth")
    for name in (
        "nothing.pth",
        "numbered.pth",
        "legacy.pth",
        "cut.pth",
        "text.pth",
        "empty.pth",
        "cut.safetensors",
        "list.pth",
        "plain.pth",
    ):
        with pytest.raises(WeightsError, match=name) as caught:
            load_weights(model, tmp_path / name)
        assert "\n" not in str(caught.value)


class Bomb:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_pickle_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(WeightsError, match="print"):
        load_weights(on_meta("resnet50"), tmp_path / "bomb.pth")
    assert "must not run" not in capsys.readouterr().out


class WithConstant(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(2))
        self.register_buffer("basis", torch.arange(3.0), persistent=False)


def test_constants_are_optional_but_must_agree():
    given = {"scale": torch.ones(2)}
    assert match_tensors(WithConstant(), given)[1] == {}
    assert match_tensors(WithConstant(), given | {"basis": torch.arange(3.0)})[1] == {}
    assert match_tensors(WithConstant(), given | {"basis": torch.zeros(3)})[1] == {
        "another constant": ["basis"]
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_and_constants_of_any_floating_dtype_load(dtype):
    network = WithConstant()
    network.basis += 0.1  # not exact in 16-bit types
    given = {"scale": torch.ones(2, dtype=dtype), "basis": network.basis.to(dtype)}
    assert match_tensors(network, given)[1] == {}


def test_lossy_dtype_conversion_is_refused(state):
    for dtype in (torch.complex64, torch.int8):
        with pytest.raises(
            WeightsError, match=rf"1 of another type \(fc.bias {str(dtype)[6:]} for float32\)"
        ):
            load_weights(on_meta("resnet50"), state | {"fc.bias": torch.zeros(1000, dtype=dtype)})
    averaged = {key: tensor.float() for key, tensor in state.items()}
    assert load_weights(create_model("resnet50"), averaged).bn1.num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float8_e5m2])
def test_values_that_are_not_finite_are_refused(dtype):
    network = nn.BatchNorm1d(4)
    for key in ("weight", "running_var"):
        given = network.state_dict() | {key: torch.tensor([1, torch.nan, torch.inf, 2]).to(dtype)}
        with pytest.raises(WeightsError, match=rf"1 not finite \({key}: 2 of 4 values\)"):
            load_weights(network, given)


def test_value_that_overflows_in_the_type_of_the_network_is_refused():
    given = {"weight": torch.tensor([[1e300]], dtype=torch.float64), "bias": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"not finite \(weight: 1 of 1 values"):
        load_weights(nn.Linear(1, 1), given)


def layers(stride=1, dilation=1, pool=nn.MaxPool2d, eps=1e-5, act=nn.ReLU):
    conv = nn.Conv2d(3, 4, 3, stride, padding=dilation, dilation=dilation)
    return nn.Sequential(conv, nn.BatchNorm2d(4, eps), act(), pool(2), nn.Conv2d(4, 4, 1, dilation=dilation))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (layers(stride=2), r"1 of another setting \(0 stride 2 for 1\)"),
        (layers(dilation=2), r"2 of another setting \(0 padding 2 for 1, 0 dilation 2 for 1\)"),
        (layers(pool=nn.AvgPool2d), r"\(3 AvgPool2d for MaxPool2d\)"),
        (layers(pool=lambda size: nn.Identity()), r"\(3 Identity for MaxPool2d\)"),
        (layers(eps=1e-3), r"\(1 eps 0.001 for 1e-05\)"),
        (layers(act=nn.ReLU6), r"\(2 ReLU6 for ReLU\)"),
        (nn.DataParallel(layers(stride=(1, 2))), r"\(0 stride \(1, 2\) for 1\)"),
        (layers(), None),
        (layers(stride=(1, 1)), None),
    ],
)
def test_pickled_module_whose_layers_have_other_settings_is_refused(tmp_path, given, message):
    torch.save({"model": given}, tmp_path / "w.pth")
    if message is None:
        load_weights(layers(), tmp_path / "w.pth")
        return
    with pytest.raises(WeightsError, match=message):
        load_weights(layers(), tmp_path / "w.pth")


def test_unregistered_network_loads_by_sdabench_keys():
    trunk = Trunk(lambda spec: nn.Conv2d(spec.in_channels, spec.out_channels, 1, spec.stride), [1, 1, 1, 1])
    assert load_weights(trunk, trunk.state_dict()) is trunk
