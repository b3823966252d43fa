"""The example plugins work from their folders, and installed beside the wheel."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from sdabench.registry import load_registry
from tests.helpers.paths import CHECKOUT
from tests.helpers.program import sdabench

EXAMPLES = [CHECKOUT / "examples" / name for name in ("varnet-plugin", "ecanet-paper")]
VARNET = {
    ("varnet26", "params_m"): "differs",
    ("varnet26", "flops_g"): "match",
    ("varnet50", "params_m"): "match",
    ("varnet50", "flops_g"): "match",
    ("varnet101", "params_m"): "match",
    ("varnet101", "flops_g"): "explained (other input size)",
}
ECANET = {
    ("ecanet50", "params_m"): "explained (binary unit)",
    ("ecanet50", "flops_g"): "explained (fitted)",
    ("ecanet101", "params_m"): "explained (binary unit)",
    ("ecanet101", "flops_g"): "explained (fitted)",
    ("ecanet152", "params_m"): "explained (last digit)",
    ("ecanet152", "flops_g"): "explained (last digit)",
    ("eca_mobilenet_v2", "params_m"): "explained (binary unit)",
    ("eca_mobilenet_v2", "flops_m"): "explained (fitted)",
}


def verdicts(output: str) -> dict[tuple[str, str], str]:
    """Read the verdicts on sizes and costs from the JSON of ``audit`` or ``table``, by network and column."""
    return {
        (row["model"].rpartition(":")[2], key): verdict
        for row in json.loads(output)["rows"]
        for key, verdict in row["verdict"].items()
        if not key.endswith("_pct")
    }


def test_tables_of_the_examples_have_the_verdicts_that_they_describe():
    """Their golden files have the counts, and installed, ``audit`` counts again."""
    varnet, imagenet, mobilenet = (
        sdabench("--plugin", example, "table", table, "--json").stdout
        for example, table in [
            (EXAMPLES[0], "varnet"), (EXAMPLES[1], "ecanet-imagenet"), (EXAMPLES[1], "ecanet-mobilenet")
        ]
    )  # fmt: skip
    assert verdicts(varnet) == VARNET
    assert verdicts(imagenet) | verdicts(mobilenet) == ECANET


def test_an_example_adds_only_its_networks_to_the_list():
    result = sdabench("--plugin", EXAMPLES[0], "list", "*varnet*", "--json")
    assert result.returncode == 0, result.stderr
    assert sorted(each["model"] for each in json.loads(result.stdout)) == [
        "mask_rcnn_sda_varnet50", "sda_varnet101", "sda_varnet26", "sda_varnet50", "varnet101", "varnet26", "varnet50"
    ]  # fmt: skip


def test_the_file_of_a_row_is_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDABENCH_PLUGINS", str(EXAMPLES[1]))
    [row] = load_registry().tables["ecanet-mobilenet"].rows
    assert row.model == f"python:{EXAMPLES[1] / 'ecanet_paper' / 'mobilenet.py'}:eca_mobilenet_v2"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheels of sdabench and the examples, and install them into an empty environment.

    A path file lends it the dependencies of this environment, without their entry points of sdabench.
    """
    folder = tmp_path_factory.mktemp("installed")
    pytest.importorskip("hatchling")
    for project in (CHECKOUT, *EXAMPLES):
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(build, cwd=project, check=True, capture_output=True)
    venv.create(folder / "env", with_pip=False)
    [site] = (folder / "env").glob("lib/python*/site-packages")
    for path in folder.glob("*.whl"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(site)
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    return folder


def test_installed_examples_work_without_the_option(installed, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"SDABENCH_CACHE": str(tmp_path / "cache")}
    program = [str(installed / "env" / "bin" / "python"), "-m", "sdabench"]

    def run(*arguments: str, code: int = 0) -> str:
        result = subprocess.run(
            [*program, *arguments], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
        )
        assert result.returncode == code, result.stderr
        return result.stdout

    assert "sda_varnet50" in run("list")
    assert "VarNet-101" in run("table", "varnet")
    assert verdicts(run("audit", "varnet", "--json", code=3)) == VARNET
    assert verdicts(run("audit", "ecanet-imagenet", "ecanet-mobilenet", "--json")) == ECANET
    assert "25,587,240" in run("flops", "varnet50", "sda_ecanet101")
    run("check", "counts", "outputs", "--models", "*varnet26")


def test_the_wheel_has_no_examples(installed):
    [wheel] = installed.glob("sdabench-*.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if "examples" in name or "varnet" in name]
