import os
import shutil
import sys

import pytest

from sdabench.errors import DataError, RegistryError
from sdabench.models import create_model
from sdabench.registry import load_registry, load_shipped_registry, plugins_of
from sdabench.registry.catalogue import load_catalogue
from sdabench.registry.plugins import active_plugins, plugin_at, shipped_components
from sdabench.registry.recipes import load_recipe, recipe_names
from sdabench.tools.check.golden_files import GoldenFolders
from sdabench.tools.plugin.new import new_plugin
from sdabench.training.job_file import UsedPlugin
from tests.helpers.paths import CHECKOUT
from tests.helpers.plugins import write_plugin


@pytest.fixture
def use(monkeypatch):
    return lambda *folders: monkeypatch.setenv("SDABENCH_PLUGINS", os.pathsep.join(map(str, folders)))


@pytest.fixture
def plugin(tmp_path, use):
    folder = write_plugin(tmp_path / "gate plugin")
    use(folder)
    return folder


def test_plugin_adds_its_network_with_depth_attention_and_its_suite(plugin):
    registry = load_registry()
    assert registry.models["sda_gatenet14"].baseline == "gatenet14"
    assert registry.suite("gatenet") == ["resnet50", "gatenet14"]
    assert list(registry.suites) == ["classification", "detection", "segmentation", "gatenet"]
    assert registry.tables["gatenet"].paper.title == "Gates"
    assert [paper.title for paper in registry.papers_of("gatenet14")] == ["Gates"]
    assert registry.papers == [registry.paper, registry.tables["gatenet"].paper]
    assert load_catalogue().networks["gatenet14"].tables == ["gatenet"]
    assert list(load_registry().models)[: len(load_shipped_registry().models)] == list(
        load_shipped_registry().models
    )


def test_network_is_built_from_several_files_of_a_folder(plugin):
    gates = create_model("gatenet14").get_submodule("layer2.0.attention")
    assert [tuple(each.shape) for each in gates.parameters()] == [(512,)]


def test_listing_networks_runs_no_code(plugin):
    (plugin / "block.py").write_text((plugin / "block.py").read_text() + "\nraise SystemExit\n")
    assert "gatenet14" in load_registry().models
    assert load_registry().table("gatenet").rows
    assert create_model("resnet50") is not None


def test_editing_a_block_changes_its_networks_only(plugin, use):
    before = {name: model.network_sha256 for name, model in load_registry().models.items()}
    copy = shutil.copytree(plugin, plugin.parent / "copy" / plugin.name)
    (copy / "gate.py").write_text((copy / "gate.py").read_text().replace("sigmoid", "tanh"))
    use(copy)
    after = {name: model.network_sha256 for name, model in load_registry().models.items()}
    assert {name for name in after if after[name] != before[name]} == {"gatenet14", "sda_gatenet14"}


def test_network_of_shipped_blocks_has_the_digest_of_a_shipped_one(plugin):
    (plugin / "models" / "gatenet.yaml").write_text(
        "family: gatenet\nnetwork: {block: resnet}\nmodels:\n"
        "  gatenet14: {title: Gate-14, network: {depths: [3, 4, 6, 3]}}\n"
    )
    registry = load_registry()
    assert registry.models["gatenet14"].network_sha256 == registry.models["resnet50"].network_sha256


def test_shipped_components_are_those_that_the_package_registers():
    from sdabench.models.skeleton import BLOCKS, STAGES, STEM_POOLS, STEMS

    BLOCKS["resnet"]  # imports all families
    registered = {
        (registry.kind, name)
        for registry in (BLOCKS, STAGES, STEMS, STEM_POOLS)
        for name, component in registry._known.items()
        if component.__module__.startswith("sdabench.models.")
    }
    assert set(shipped_components()) == registered


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("models/senet.yaml", "family: senet\nmodels: {}\n", ["family 'senet'", "gate plugin"]),
        ("models/x.yaml", "family: x\nnetwork: {block: resnet, depths: [1, 1, 1, 1]}\nmodels: {resnet50: {title: X}}\n",
         ["model 'resnet50'", "resnet.yaml", "x.yaml"]),
        ("models/x.yaml", "family: x\nmodels: {a/b: {title: X}}\n", ["x.yaml", "letters"]),
        ("models/x.yaml", "family: x\nmodels: {y: {title: X}}\n", ["models.y.network", "block"]),
        ("models/x.yaml", "family: [\n", ["x.yaml", "line 2"]),
        ("tables/detection.yaml", None, ["table 'detection'"]),
        ("paper.yaml", "authors: X\n", ["paper.yaml", "title"]),
        ("senet.py", "from sdabench.models import register_block\n@register_block('senet')\ndef f(spec): ...\n",
         ["block 'senet'", "models/senet.py", "gate plugin/senet.py"]),
    ],
)  # fmt: skip
def test_collisions_and_mistakes_name_the_files(plugin, path, text, words):
    (plugin / path).write_text(
        text or (plugin / "tables" / "gatenet.yaml").read_text().replace("table: gatenet", "table: detection")
    )
    with pytest.raises(RegistryError) as caught:
        load_registry()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def broken(:\n", ["block.py", "line 2", "correct it"]),
        ("import missing_package\n", ["block.py", "line 2", "missing_package"]),
        ("1 / 0\n", ["block.py", "line 2", "ZeroDivisionError"]),
    ],
)
def test_block_that_cannot_be_imported_is_one_line(plugin, code, words):
    (plugin / "block.py").write_text("# register_block\n" + code)
    with pytest.raises(RegistryError) as caught:
        create_model("gatenet14")
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_name_registered_in_a_loop_is_refused_if_it_is_taken(plugin):
    code = "\nfor name in ['cbam', 'gatenet']:\n    register_block(name)(Block)\n"
    (plugin / "block.py").write_text(
        (plugin / "block.py").read_text().replace("@register_block", "# ") + code
    )
    with pytest.raises(RegistryError, match=r"'cbam' is registered twice: by .*cbam\.py and by .*block\.py"):
        create_model("gatenet14")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, ["no plugin at", "plugin new"]),
        (lambda path: path.mkdir(), ["is no plugin", "models/*.yaml"]),
        (lambda path: path.write_text("x"), ["is a file", "--block"]),
    ],
)
def test_path_without_a_plugin_is_refused(tmp_path, make, words):
    make(tmp_path / "x")
    with pytest.raises(RegistryError) as caught:
        plugin_at(str(tmp_path / "x"))
    for word in words:
        assert word in str(caught.value)


def test_path_with_the_separator_is_refused(tmp_path):
    with pytest.raises(RegistryError, match=f"has no '{os.pathsep}'"):
        plugin_at(str(tmp_path / f"a{os.pathsep}b"))


def test_plugin_is_found_by_relative_path_and_home(plugin, use, monkeypatch):
    monkeypatch.chdir(plugin.parent)
    monkeypatch.setenv("HOME", str(plugin.parent))
    use(plugin.name, f"~/{plugin.name}", plugin)
    assert [each.folder for each in active_plugins() if each.package is None] == [plugin.resolve()]


def test_job_of_a_project_activates_its_package(tmp_path, use):
    new_plugin(tmp_path / "foundnet", None).write()
    use(tmp_path / "foundnet")
    (used,) = plugins_of("foundnet50")
    assert used.folder == tmp_path.resolve() / "foundnet" / "sdabench_foundnet"
    stated = UsedPlugin(name=used.name, folder=used.folder, sha256=used.code_sha256)
    stated.activate()  # in a child of the run, which names the project already
    assert plugins_of("foundnet50") == [used]
    use()
    stated.activate()
    assert plugins_of("foundnet50") == [used]


def test_plugins_of_one_name_and_different_content_are_refused(plugin, use):
    copy = shutil.copytree(plugin, plugin.parent / "copy" / plugin.name)
    use(plugin, copy)
    assert len([each for each in active_plugins() if each.package is None]) == 1
    (copy / "gate.py").write_text("")
    use(copy, plugin)
    with pytest.raises(RegistryError, match="two plugins are called 'gate plugin'"):
        active_plugins()


def test_recipe_of_a_plugin_is_named_and_extends_a_shipped_one(plugin):
    folder = plugin / "recipes" / "classification"
    folder.mkdir(parents=True)
    (folder / "gates.yaml").write_text("extends: imagenet-120e\nepochs: 60\n")
    assert "gates" in recipe_names("classification")
    assert load_recipe("gates").epochs == 60
    (folder / "paper.yaml").write_text("extends: imagenet-120e\n")
    with pytest.raises(RegistryError, match="recipe 'paper' is defined twice"):
        load_recipe("gates")


def test_job_refuses_a_plugin_that_is_missing_or_was_edited(plugin, use):
    (used,) = plugins_of("sda_gatenet14")
    stated = UsedPlugin(name=used.name, folder=used.folder, sha256=used.code_sha256)
    use()
    stated.activate()
    assert [each.folder for each in active_plugins() if each.package is None] == [used.folder]
    (plugin / "gate.py").write_text("")
    with pytest.raises(DataError, match="has changed since the run started"):
        stated.activate()
    shutil.rmtree(plugin)
    with pytest.raises(DataError, match="is missing"):
        stated.activate()


def test_row_and_suite_can_name_a_network_by_source(plugin):
    path = plugin / "tables" / "gatenet.yaml"
    path.write_text(path.read_text().replace("model: resnet50", 'model: "torchvision:resnet50"'))
    found = load_catalogue().select(["*"], "gatenet")
    assert [each.model for each in found] == ["torchvision:resnet50", "gatenet14"]


def test_golden_files_of_a_plugin_are_in_its_folder(plugin):
    folders = GoldenFolders.default(writable=True)
    assert folders.of("sda_gatenet14") == plugin.resolve() / "results"
    assert folders.of("resnet50") != folders.of("sda_gatenet14")


def test_installed_plugin_is_found_without_importing_it(tmp_path, monkeypatch):
    new_plugin(tmp_path / "foundnet", None).write()
    site = tmp_path / "site"
    shutil.copytree(tmp_path / "foundnet" / "sdabench_foundnet", site / "sdabench_foundnet")
    info = site / "sdabench_foundnet-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sdabench-foundnet\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[sdabench.plugins]\nfoundnet = sdabench_foundnet\n")
    monkeypatch.syspath_prepend(site)
    from sdabench.registry import plugins

    monkeypatch.setattr(plugins, "_installed", plugins._installed.__wrapped__)
    monkeypatch.setattr(plugins, "_active", plugins._active.__wrapped__)
    (found,) = [each for each in active_plugins() if each.name == "foundnet"]
    assert (found.package, found.version) == ("sdabench_foundnet", "0.1.0")
    monkeypatch.setenv("SDABENCH_PLUGINS", str(tmp_path / "foundnet"))  # the same content
    assert found in active_plugins()
    assert "sda_foundnet50" in load_registry().models
    assert "sdabench_foundnet" not in sys.modules


def test_network_by_source_and_other_columns_of_a_table_are_drawn_and_explained(use):
    pytest.importorskip("matplotlib")
    from sdabench.claims.explain import printed_numbers
    from sdabench.report.figures import pareto
    from sdabench.report.latex_macros import macro_name

    use(CHECKOUT / "examples" / "ecanet-paper")
    [point] = pareto.frame("ecanet-mobilenet").to_dict("records")
    assert (point["x"], point["x_name"]) == (319.9, "FLOPs (M)")
    assert point["label"] == "python:mobilenet.py:eca_mobilenet_v2"
    numbers = [(each.quantity, str(each)) for each in printed_numbers(load_registry(), point["model"])]
    assert numbers == [("params", "3.34 M"), ("flops", "319.9 M")]
    name = macro_name(point["model"], "classification", "flops_m", "Paper")
    assert name == "pythonMobilenetPyEcaMobilenetVTwoFlopsPaper"


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ('{key: accuracy, header: Top-1, unit: "%", decimals: 2}', "'accuracy': .* top1_pct, top5_pct"),
        ("{key: top1_pct, header: Top-1, unit: M, decimals: 2}", "'top1_pct': .* the unit %"),
        ('{key: flops, header: F, unit: "%", decimals: 2, convention: macs}', "'flops': the unit of a count"),
    ],
)
def test_table_refuses_columns_that_nothing_measures(plugin, column, words):
    path = plugin / "tables" / "gatenet.yaml"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"  - {column}" if "top1_pct" in line else line for line in lines))
    with pytest.raises(RegistryError, match=words):
        load_registry()
