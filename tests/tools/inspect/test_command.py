"""``sdabench inspect``: networks, weights, images, files and errors."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import sdabench
from sdabench.analysis.inspection import read_inspection
from sdabench.analysis.subjects import find_weights
from sdabench.errors import UsageError
from sdabench.training.job import training_job
from sdabench.training.trainer import Trainer
from tests.helpers.datasets import make_imagenet
from tests.helpers.program import assert_error
from tests.helpers.program import sdabench as program
from tests.helpers.training import RECIPE_FILE

NARROW, UNIFORM, CONTROL = "sda_resnet_narrow", "sda_resnet_narrow_uniform", "resnet_narrow"


@pytest.fixture(scope="module")
def trainings(textures, tmp_path_factory):
    """Two trainings of a narrow network, with seeds 1 and 0."""
    folder = tmp_path_factory.mktemp("trainings")
    (folder / "recipe.yaml").write_text(RECIPE_FILE)
    for seed in (1, 0):
        trained = program(
            "train", NARROW, "--data", f"synthetic={textures}", "--recipe", folder / "recipe.yaml",
            "--seed", seed, "-o", folder / "run",
        )  # fmt: skip
        assert trained.returncode == 0, trained.stderr
    return folder / "run"


def test_uniform_depth_weights_are_1_over_n_of_every_image(textures):
    found = sdabench.inspect(UNIFORM, data=f"synthetic={textures}", resolution=32, fields="off")
    blocks = sdabench.depth_weights(found)
    assert len(blocks) == 4 * 3
    for name in ("mean", "q05", "median", "q95"):
        assert blocks[name].tolist() == pytest.approx([1 / 3] * 12, abs=1e-6)
    assert blocks.sd.tolist() == pytest.approx([0] * 12, abs=1e-7)
    assert blocks.largest_pct.tolist() == [100] * 12  # all are equal
    assert sdabench.depth_by_size(found).depth.tolist() == pytest.approx(
        [0.5] * len(sdabench.depth_by_size(found))
    )
    slopes = sdabench.depth_slopes(found)
    assert slopes.slope.tolist() == pytest.approx([0] * 5, abs=1e-8)
    assert slopes.correlation.isna().all()


def test_fields_of_fused_stages_have_the_attention_depth_of_each_image(textures):
    options = {"data": f"synthetic={textures}", "resolution": 32, "images": 4, "field_images": 4}
    [network] = sdabench.inspect(NARROW, fields="blocks", **options).networks
    fused = {each.stage: each for each in network.fields if each.depths}
    assert {stage: each.depths for stage, each in fused.items()} == {
        stage: pytest.approx(depths, rel=1e-5) for stage, depths in network.depths.items()
    }
    assert {(each.block, each.constant_weights) for each in fused.values()} == {(None, True)}
    for each in fused.values():
        assert len(set(each.radii)) == 4
        assert max(each.radii) > each.radius > min(each.radii)


def test_few_field_images_give_no_slope_and_say_why(textures):
    result = program(
        "inspect", NARROW, "--data", f"synthetic={textures}", "--resolution", 32, "--images", 4, "--field-images", 3,
        "--fields", "stages", "--table", "radius-slopes",
    )  # fmt: skip
    assert result.returncode == 5
    assert (
        "radius-slopes; it needs depth attention, and the --fields of --field-images 20 or more"
        in result.stderr
    )


def test_trainings_are_beside_their_untrained_networks(trainings):
    result = program("inspect", NARROW, "--controls", "--weights", trainings, "--fields", "stages", "--json")
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    rows = printed["receptive_fields"]
    networks = dict.fromkeys(
        (row["model"], row["state"], row["run"], row["seed"], row["data"]) for row in rows
    )
    assert list(networks) == [
        (NARROW, "untrained", 1, 0, "synthetic"),
        (NARROW, "trained", 1, 0, "synthetic"),
        (NARROW, "untrained", 2, 1, "synthetic"),
        (NARROW, "trained", 2, 1, "synthetic"),
        (CONTROL, "untrained", 1, 0, "synthetic"),
    ]
    assert {row["side"] for row in rows} == {32}  # of the recipe
    assert {row["over"] for row in printed["depth_slopes"]} == {"images", "runs"}
    assert {row["model"] for row in printed["depth_weights"]} == {NARROW}


def test_untrained_network_is_that_before_the_training(trainings, textures):
    """The weights of a training without a step are those of the untrained network beside it."""
    [given, _] = find_weights(str(trainings), [NARROW])
    assert given.run is not None
    spec = given.run.spec
    job = training_job(NARROW, sdabench_source(textures), spec.recipe, seed=spec.seed)
    before = Trainer(job).network.state_dict()
    from sdabench.analysis.measure import Settings, prepared
    from sdabench.analysis.subjects import make_subjects

    untrained, trained = make_subjects([NARROW], [given], images=4)
    network, *_ = prepared(untrained, Settings(), torch.device("cpu"), lambda images: None)
    parameters = dict(network.named_parameters())
    assert all(torch.equal(before[name], parameter) for name, parameter in parameters.items())
    own, *_ = prepared(trained, Settings(), torch.device("cpu"), lambda images: None)
    assert not all(torch.equal(before[name], parameter) for name, parameter in own.named_parameters())


def sdabench_source(folder: Path):
    from sdabench.data.source import DataSource

    return DataSource("synthetic", folder)


def test_output_has_figures_and_is_resumed(textures, tmp_path, monkeypatch):
    arguments = (
        "inspect", NARROW, "--data", f"synthetic={textures}", "--resolution", 32, "--fields", "stages",
        "--table", "receptive-fields", "-o", tmp_path,
    )  # fmt: skip
    first = program(*arguments)
    assert first.returncode == 0, first.stderr
    names = {"inspection.json", "depth-weights.svg", "depth-by-size.svg", "receptive-fields.svg"}
    assert {path.name for path in tmp_path.iterdir()} == names

    def fail(*arguments: object) -> None:
        raise AssertionError("inspected again")

    monkeypatch.setattr("sdabench.analysis.inspect.inspect_network", fail)
    again = program(*arguments)
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    other = program(*arguments, "--field-images", 1)
    assert "inspected again" in other.stderr
    assert len(read_inspection(tmp_path).networks) == 1


def test_fields_without_a_dataset_are_those_of_noise():
    found = sdabench.inspect([CONTROL, NARROW], fields="stages", images=4, field_images=1, resolution=64)
    fields = sdabench.receptive_fields(found)
    assert set(fields.data) == {"noise"}
    assert sdabench.depth_weights(found).empty
    assert fields.groupby("model").constant_weights.nunique().to_dict() == {CONTROL: 1, NARROW: 2}


def test_detectors_are_inspected_by_their_backbones(shapes):
    found = sdabench.inspect(
        "faster_rcnn_sda_resnet86", data=f"synthetic={shapes}", resolution=64, fields="off"
    )
    [network] = found.networks
    assert len(network.depths["layer4"]) == 3
    assert network.sizes[1] is None  # generated image 1 has no object
    assert network.sizes[0] is not None
    assert (network.fields, network.field_images) == ((), 0)


def test_weights_without_a_run_need_a_dataset(tmp_path):
    torch.manual_seed(0)
    network = sdabench.create_model(NARROW, num_classes=2)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    assert_error(program("inspect", NARROW, "--weights", tmp_path / "weights.safetensors"), 2, "--data")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sda_resnet_narow"], "did you mean sda_resnet_narrow"),
        ([NARROW, CONTROL, "--weights", "a.pth"], f"{NARROW}=a.pth"),
        ([NARROW, "--format", "csv"], "--table"),
        ([NARROW, "--images", "1"], "two images"),
        ([NARROW, "--grad-cam", "2"], "--output"),
        (["timm:resnet18", "--images", "2"], "no stages"),
    ],
)
def test_wrong_usage_names_the_next_step(arguments, words):
    assert_error(program("inspect", *arguments), 2, words)


def test_folder_without_a_training_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="empty folder"):
        find_weights(str(tmp_path), [NARROW])


def test_object_sizes_of_imagenet_are_optional(tmp_path):
    folder = make_imagenet(tmp_path / "imagenet", classes=2, images=1)
    found = sdabench.inspect(UNIFORM, data=f"imagenet={folder}", resolution=32, fields="off")
    assert sdabench.depth_slopes(found).empty
    assert len(sdabench.depth_weights(found)) == 12


def test_grad_cam_overlays_are_png_files(textures, tmp_path):
    pytest.importorskip("pytorch_grad_cam")
    from PIL import Image

    result = program(
        "inspect", NARROW, "--data", f"synthetic={textures}", "--resolution", 32, "--fields", "off",
        "--grad-cam", 2, "-o", tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    paths = sorted((tmp_path / "grad-cam").iterdir())
    assert [path.name for path in paths] == [f"{n:03d}-{NARROW}-untrained-1.png" for n in range(2)]
    with Image.open(paths[0]) as overlay:
        assert overlay.size == (32, 32)


def test_missing_grad_cam_is_named(textures, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pytorch_grad_cam", None)
    result = program("inspect", NARROW, "--data", f"synthetic={textures}", "--grad-cam", 1, "-o", tmp_path)
    assert_error(result, 2, "sdabench[insight]")
    assert list(tmp_path.iterdir()) == []


def test_nothing_measured_is_an_error(textures):
    data = f"synthetic={textures}"
    result = program("inspect", CONTROL, "--data", data, "--fields", "off", "--resolution", 32)
    assert_error(result, 5, "--data", "--fields")


def test_weights_without_seeds_have_untrained_networks_of_consecutive_seeds(textures, tmp_path):
    paths = [tmp_path / f"{seed}.safetensors" for seed in (5, 6)]
    for path in paths:
        torch.manual_seed(int(path.stem))
        save_file(sdabench.create_model(UNIFORM, num_classes=2).state_dict(), path)
    for _ in range(2):  # the second time, from the file
        found = sdabench.inspect(
            UNIFORM, paths, f"synthetic={textures}", fields="off", resolution=32, output=tmp_path / "out"
        )
        assert [(each.state, each.run, each.seed) for each in found.networks] == [
            ("untrained", 1, 0),
            ("trained", 1, None),
            ("untrained", 2, 1),
            ("trained", 2, None),
        ]
