"""Run the commands as a user does: output and exit codes."""

import csv
import io
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sdabench.cli.help import NO_COMMAND
from sdabench.paths import registry_dir
from sdabench.registry import load_registry
from tests.helpers.paths import CHECKOUT
from tests.helpers.program import assert_error, sdabench


def test_all_entry_points_print_the_same_version():
    script = Path(sys.executable).with_name("sdabench")
    entry_points = [[sys.executable, "-m", "sdabench"], [sys.executable, str(CHECKOUT / "cli.py")]]
    if script.exists():
        entry_points.append([str(script)])
    versions = {
        subprocess.run([*entry_point, "--version"], capture_output=True, text=True, check=True).stdout
        for entry_point in entry_points
    }
    assert versions == {"sdabench, version 0.1.0\n"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["list"],
        ["list", "--json"],
        ["table", "detection"],
        ["flops", "--help"],
        ["cite", "sda_cbam86"],
    ],
)
def test_light_commands_skip_heavy_imports(arguments):
    code = (
        "import sys; from sdabench.cli import cli; "
        f"cli.main({arguments!r}, standalone_mode=False); print(*sys.modules, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "torchvision", "matplotlib", "scipy"}
    heavy |= {"pandas"} if arguments[0] != "table" else set()  # a table is drawn from a frame
    assert heavy.isdisjoint(result.stderr.split())


def test_package_import_loads_neither_torch_nor_registry():
    code = (
        "import sys, sdabench; sys.exit(any(name in sys.modules for name in ('torch', 'yaml', 'pydantic')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_list_json():
    models = {item["model"]: item for item in json.loads(sdabench("list", "--json").stdout)}
    assert models["sda_resnet86"]["baseline"] == "resnet50"
    assert models["sda_resnet86"]["family"] == "resnet"
    assert models["sda_resnet86"]["task"] == "classification"
    assert models["sda_resnet86"]["depth_attention"] is True
    assert models["sda_resnet86"]["tables"] == ["classification-multiscale", "classification-attention"]
    assert models["sda_ecanet86"]["tables"] == []
    assert models["sda_ecanet86"]["like_for_like"] == "ecanet86"
    assert "sda_resnet86_g8" not in models  # an alias of sda_resnet86
    assert models["sda_resnet86_g1"]["like_for_like"] == "resnet86"
    assert models["mask_rcnn_senet101"]["backbone"] == "senet101_nobias"
    assert models["mask_rcnn_senet101"]["tables"] == ["detection", "segmentation"]


def test_flops_json_schema():
    result = sdabench("flops", "resnet50", "--json")
    assert json.loads(result.stdout) == [
        {
            "model": "resnet50",
            "input": [3, 224, 224],
            "batch": 1,
            "inputs": [],
            "params": 25_557_032,
            "trainable": 25_557_032,
            "per_call": 25_557_032,
            "macs": 4_089_184_256,
            "notes": [],
            "weight_product": 0,
            "product": 0,
            "conventions": {
                "macs": 4_089_184_256,
                "fvcore": 4_111_512_576,
                "total": 4_121_924_096,
                "mmcv": None,
            },
        }
    ]
    assert result.stderr == ""


def test_flops_options():
    result = sdabench(
        "flops", "resnet50", "--resolution", 64, "--convention", "mmcv", "--per-module", "--depth", 1
    )
    assert "resnet50  25,557,032 params" in result.stdout
    assert "layer4  14,964,736 params" in result.stdout
    assert "layer4.0" not in result.stdout
    counted = json.loads(
        sdabench("flops", "resnet50", "--resolution", 64, "--convention", "mmcv", "--json").stdout
    )
    assert counted[0]["input"] == [3, 64, 64]
    assert (
        counted[0]["conventions"]["mmcv"] == counted[0]["conventions"]["total"]
    )  # no convolution has a bias


def test_table_json_schema():
    table = json.loads(sdabench("table", "classification-attention", "--json").stdout)
    assert table["table"] == "classification-attention"
    rows = {row["label"]: row for row in table["rows"]}
    expected = {
        "label": "SDA-SENet-86 (ours)",
        "group": "SENet",
        "model": "sda_senet86",
        "reported": {"params_m": 49.13, "flops_g": 6.72, "top1_pct": 78.95, "top5_pct": 94.5},
        "bold": ["top1_pct", "top5_pct"],
        "measured": {"params_m": 49.130808, "flops_g": 6.716760064, "top1_pct": None, "top5_pct": None},
        "verdict": {
            "params_m": "match", "flops_g": "match", "top1_pct": "not measured", "top5_pct": "not measured",
        },
    }  # fmt: skip
    assert expected.items() <= rows["SDA-SENet-86 (ours)"].items()
    assert "A$^2$Net" in rows
    detection = json.loads(sdabench("table", "detection", "--json").stdout)["rows"]
    without_ap = next(row for row in detection if row["label"] == "Faster-RCNN Res2Net-101")
    assert without_ap["reported"]["ap_pct"] is None
    assert without_ap["verdict"]["ap_pct"] is None


def test_all_tables_in_every_format():
    names = ["classification-multiscale", "classification-attention", "detection", "segmentation"]
    titles = [load_registry().table(name).title for name in names]
    tables = json.loads(sdabench("table", "all", "--json").stdout)
    assert [(table["table"], len(table["rows"])) for table in tables] == list(
        zip(names, (16, 22, 22, 11), strict=True)
    )
    assert tables[2] == json.loads(sdabench("table", "detection", "--json").stdout)
    lines = list(csv.DictReader(io.StringIO(sdabench("table", "all", "--format", "csv").stdout)))
    assert [line["table"] for line in lines].count("segmentation") == 11
    assert len(lines) == 71
    single = list(csv.DictReader(io.StringIO(sdabench("table", "detection", "--format", "csv").stdout)))
    detection_lines = [line for line in lines if line["table"] == "detection"]
    assert single == [{key: line[key] for key in single[0]} for line in detection_lines]
    assert {line["top1_pct_reported"] for line in detection_lines} == {""}
    for fmt, expected in (("terminal", 1), ("markdown", 1), ("latex", 1), ("html", 2)):  # also in <title>
        output = sdabench("table", "all", "--format", fmt).stdout
        assert [output.count(title) for title in titles] == [expected] * 4


def test_table_all_adds_networks_to_tables_of_their_task():
    options = ["--with", "mask_rcnn_senet86", "--with", "sda_gcnet50", "--json"]
    tables = json.loads(sdabench("table", "all", *options).stdout)
    extra = {table["table"]: [row["model"] for row in table["rows"][-2:]] for table in tables}
    assert extra["classification-attention"] == ["sda_epsanet86", "sda_gcnet50"]
    assert extra["detection"] == ["mask_rcnn_sda_res2net86", "mask_rcnn_senet86"]
    assert extra["segmentation"][-1] == "mask_rcnn_senet86"
    assert_error(sdabench("table", "all", "--with", "sda_gcnet05"), 2, "did you mean sda_gcnet50")


def test_latex_fragment_and_standalone_document():
    options = ["table", "classification-attention", "--format", "latex"]
    assert "documentclass" not in sdabench(*options).stdout
    document = sdabench(*options, "--standalone", "--mark", "best").stdout
    assert document.startswith("\\documentclass{article}\n")
    assert document.endswith("\\end{document}\n")
    assert "{\\underlined{78.29}}" in document
    assert_error(sdabench("table", "all", "--standalone"), 2, "--standalone needs --format latex")
    assert_error(
        sdabench("table", "all", "--mark", "best", "--format", "csv"),
        2,
        "--mark best needs --format terminal",
    )


def test_old_mark_name_is_accepted():
    outputs = [
        sdabench("table", "classification-attention", "--format", "latex", "--mark", mark).stdout
        for mark in ("paper", "readme", "none")
    ]
    assert outputs[0] == outputs[1] != outputs[2]


def test_show_prints_lineage_claims_records_and_sources():
    page = " ".join(sdabench("show", "cbam86").stdout.split())
    for words in (
        "control of: sda_cbam86",
        "params 46,320,864, trainable 46,320,864, per_call 50,752,736, macs 6,720,691,562",
        "50.75 50.753 0.00 match (per_call)",
        "6,720,691,562 rounds to 6.72. It is not known why 6.71 is printed.",
        "in 14 epochs on 64 of 2,000 generated images of 10 classes; the network fits them",
        "Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018",
        "luuuyi/CBAM.PyTorch model/resnet_cbam.py",
    ):
        assert words in page
    assert "layer3.branches.big.attention 5 64" in " ".join(
        sdabench("show", "sda_bl_resnet50").stdout.split()
    )
    detector = " ".join(sdabench("show", "mask_rcnn_sda_senet86").stdout.split())
    assert "mmcv 314,003,065,604" in detector
    assert "The background is class 0, not class K" in detector
    assert "backbone: sda_senet86" in detector


def test_show_json():
    page = json.loads(sdabench("show", "sda_cbam86", "--json").stdout)
    assert page["counts"]["params"] == 49_104_992
    assert [stage["fused"] for stage in page["stages"]] == [5, 6, 12, 5]
    [params] = [claim for claim in page["claims"] if claim["claim"] == "params_m"]
    assert (params["reported"], params["verdict"]) == (53.53, "explained (last digit)")
    assert page["relatives"]["baseline"] == ["cbam86"]


def test_cite_prints_each_paper_once():
    cited = sdabench("cite", "sda_senet86", "sda_senet50", "senet50").stdout
    assert cited.count("@") == 2
    assert "  author = {Hu, Jie and Shen, Li and Sun, Gang},\n" in cited
    assert sdabench("cite").stdout.startswith("@article{guo2024selective,")


def test_networks_outside_the_paper_get_their_own_rows():
    table = sdabench("table", "classification-attention", "--with", "sda_gcnet50", "--json")
    *rows, extra = json.loads(table.stdout)["rows"]
    assert len(rows) == 22
    assert extra["group"] == "in no table"
    assert set(extra["reported"].values()) == {None}
    assert (
        extra["measured"]["params_m"] == (28_105_032 + 1_756_544) / 1e6
    )  # GCNet-50 plus depth attention by its formula
    assert_error(
        sdabench("table", "detection", "--with", "gcnet50"),
        2,
        "'gcnet50' is not in the networks for detection",
    )


def test_usage_errors():
    assert_error(sdabench("show", "resnet05"), 2, "did you mean resnet50")
    assert_error(sdabench("show", "sda_resnet*"), 2, "is a wildcard; name one model", "sda_resnet86")
    assert_error(sdabench("eval", "resnet[15]*"), 2, "is a wildcard; name one model", "resnet50")
    assert_error(sdabench("flops", "resnet50", "--depth", 2), 2, "--depth needs --per-module")
    assert_error(
        sdabench("flops", "resnet50", "--depth", 2, "--per-module", "--json"), 2, "--depth needs --per-module"
    )
    assert_error(sdabench("train", "resnet50", "--recipe", CHECKOUT), 2, "is a folder; name a file")
    assert_error(sdabench("cite", "nothing*"), 2, "unknown model 'nothing*'")
    assert_error(sdabench("flops", "sda_pyconv68"), 2, "unknown model 'sda_pyconv68'", "sda_pyconv86")
    assert_error(sdabench("flops"), 2, "no network selected", "--suite")
    assert_error(
        sdabench("flops", "resnet50", "--resolution", "big"), 2, "'big' is not a size; use 320, or 1330x800"
    )
    assert_error(sdabench("flops", "resnet50", "--suite", "detection"), 2, "'resnet50' is not in this suite")
    assert_error(sdabench("tabel"), 2, "unknown command 'tabel'; did you mean table")
    assert_error(sdabench("table", "detections"), 2, "detections")
    assert_error(sdabench("table", "detection", "--records", CHECKOUT / "tests"), 2, "no records in")
    assert_error(sdabench("eval", "resnet50", "--data", "here"), 2, "'here' is not imagenet=PATH")
    assert_error(
        sdabench("eval", "resnet50", "--data", "imagenet=/nowhere"), 2, "no dataset folder at /nowhere"
    )
    assert_error(sdabench("eval", "resnet50"), 2, "name the dataset: --data imagenet=PATH")
    assert_error(sdabench("eval", "resnet50", "--weights", CHECKOUT), 2, "holds no training run")
    assert_error(sdabench("train", "resnet05"), 2, "unknown model 'resnet05'")
    assert_error(sdabench("train", "faster_rcnn_resnet05"), 2, "did you mean faster_rcnn_resnet50")
    assert_error(
        sdabench("train", "resnet50", "--data", "imagenet=/nowhere"), 2, "no dataset folder at /nowhere/train"
    )
    assert_error(
        sdabench("train", "resnet50", "--data", "synthetic=/nowhere"), 2, "no dataset folder at /nowhere"
    )
    assert_error(sdabench("train", "resnet50", "--recipe", "papr"), 2, "did you mean paper")
    assert_error(sdabench("train", "resnet50", "--batch-size", 1), 2, "batch_size: Input should be greater")
    assert_error(
        sdabench("run", "--suite", "classification", "--weights", CHECKOUT), 2, "--weights needs --eval-only"
    )
    assert_error(
        sdabench("run", "--suite", "classification", "--eval-only", "--epochs", 3),
        2,
        "--epochs is for training",
    )
    assert_error(
        sdabench("run", "--suite", "classification", "--eval-only", "--no-cudnn-benchmark"),
        2,
        "--no-cudnn-benchmark is for training",
    )
    assert_error(sdabench("data", "synth", "--out", CHECKOUT), 2, "exists and is not empty")
    assert_error(
        sdabench("run", "--suite", "detection", "--eval-only", "--data", "imagenet=/nowhere"),
        2,
        "has no boxes",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tain"], "unknown command 'tain'; did you mean train"),
        (["weights", "inpsect"], "unknown command 'inpsect'; did you mean inspect"),
        (["xyzzy"], "unknown command 'xyzzy'; 'sdabench -h' lists all"),
        (["show", "ResNet-50"], "did you mean resnet50?"),
        (["cite", "SDA.PyConv 86"], "did you mean sda_pyconv86?"),
        (["table", "Classification_Multiscale"], "did you mean classification-multiscale?"),
        (["list", "--suite", "detecton"], "unknown suite 'detecton'; did you mean detection"),
        (["check", "countz"], "unknown check 'countz'; did you mean counts?"),
        (["doctor", "--jsn"], "see 'sdabench doctor -h'"),
        (["train"], "Missing argument 'NAME'; see 'sdabench train -h'"),
        (["train", "resnet50", "--epochs", "\x1b[31m"], r"'\x1b[31m' is not a valid integer"),
        (["show", "resnet50", "https://me:pw@host/x?sas=1"], "(https://host/x)"),
        (["eval", "resnet50", "--weights", "https://me:pw@host:port/x?sas=1"], "'host:port/x' is not a URL"),
        (["eval", "resnet50", "--weights", "https://me:p#w@host/x"], "'host/x' is not a URL"),
        (["eval", "resnet50", "--weights", "s3://me:pw@host/x"], "'s3://host/x' is not a file"),
    ],
)
def test_wrong_usage_is_one_line_with_the_next_step(arguments, words):
    result = sdabench(*arguments)
    assert_error(result, 2, words)
    assert len(result.stderr.splitlines()) == 1
    assert "pw" not in result.stderr


@pytest.mark.skipif(not NO_COMMAND, reason="before click 8.2, the help is printed")
@pytest.mark.parametrize("group", [[], ["data"], ["weights"]])
def test_group_without_a_command_is_one_line(group):
    assert_error(sdabench(*group), 2, f"name a command; see '{' '.join(['sdabench', *group])} -h'")


def test_registry_typo_is_reported_in_one_line(tmp_path):
    folder = shutil.copytree(registry_dir(), tmp_path / "registry")
    table = folder / "tables" / "detection.yaml"
    table.write_text(table.read_text().replace("36.4,", "36.4.1,", 1))
    result = sdabench("list", env=os.environ | {"SDABENCH_REGISTRY": str(folder)})
    assert_error(result, 1, "detection.yaml", "row 'Faster-RCNN ResNet-50'", "reported")


@pytest.mark.usefixtures("counts_cached")
def test_audit_exits_3_for_a_different_number(tmp_path):
    folder = shutil.copytree(registry_dir(), tmp_path / "registry")
    for table in folder.glob("tables/*.yaml"):
        table.write_text(
            table.read_text().replace("[27.22, 3.88, 78.76, 94.37]", "[27.32, 3.88, 78.76, 94.37]")
        )
    environment = os.environ | {"SDABENCH_REGISTRY": str(folder)}
    result = sdabench("audit", "--json", env=environment)
    assert result.returncode == 3
    audit = json.loads(result.stdout)
    assert audit["claims"] == 142
    assert audit["numbers"] == 108
    assert (audit["by_verdict"]["differs"], audit["numbers_by_verdict"]["differs"]) == (2, 1)
    assert sum(audit["by_verdict"].values()) == 142
    assert len(audit["rows"]) == 71


@pytest.mark.usefixtures("counts_cached")
@pytest.mark.parametrize(
    "explanation",
    [
        "kind: not reproduced, because: so, evidence: {own: {count: macs, value: 3879993344}}",
        "kind: not reproduced, because: so, evidence: {tool: {setting: a tool, value: 9980000000}}",
        "kind: copied, because: so, evidence: {tool: {setting: a tool, value: 9990000000}}",
        "kind: fitted, because: so, evidence: {other: {model: resnet50, count: macs, value: 9990000000}}",
    ],
)
def test_explanation_that_does_not_hold_exits_3(tmp_path, explanation):
    folder = shutil.copytree(registry_dir(), tmp_path / "registry")
    for table in folder.glob("tables/classification-*.yaml"):
        row = "reported: [27.22, 3.88, 78.76, 94.37]"
        wrong = f"reported: [27.22, 9.99, 78.76, 94.37]\n        claims: {{flops_g: {{{explanation}}}}}"
        table.write_text(table.read_text().replace(row, wrong))
    result = sdabench("audit", "--json", env=os.environ | {"SDABENCH_REGISTRY": str(folder)})
    assert result.returncode == 3
    audit = json.loads(result.stdout)
    assert (audit["by_verdict"]["differs"], audit["numbers_by_verdict"]["differs"]) == (2, 1)


@pytest.mark.usefixtures("counts_cached")
def test_table_of_another_registry_recounts_evidence(tmp_path):
    folder = shutil.copytree(registry_dir(), tmp_path / "registry")
    table = folder / "tables" / "detection.yaml"
    table.write_text(table.read_text().replace("value: 215632522793", "value: 215632522794"))
    command = ("table", "detection", "--json")
    assert sdabench(*command).stdout.count('"differs"') == 0
    result = sdabench(*command, env=os.environ | {"SDABENCH_REGISTRY": str(folder)})
    assert result.stdout.count('"differs"') == 1


def test_explain_says_whether_a_convention_gives_a_number():
    options = ["--model", "resnet50", "--resolution", "224"]
    found = sdabench("explain", "4.12G", "--params", "25.56M", *options, "--json")
    assert found.returncode == 0
    flops, params = json.loads(found.stdout)["numbers"]
    assert (flops["hits"][0]["count"], flops["hits"][0]["fit"]) == ("total", True)
    assert (params["hits"][0]["count"], params["hits"][0]["fit"]) == ("params", False)
    assert sdabench("explain", "4.00G", *options).returncode == 3
    missed = sdabench("explain", "9.99G", *options)
    assert missed.returncode == 3
    assert "No setting gives it." in missed.stdout


def test_explain_refuses_wrong_numbers_and_models_in_one_line():
    assert_error(sdabench("explain", "4.12Q", "--model", "resnet50"), 2, "'4.12Q'", "4.12G or 25.56M")
    assert_error(sdabench("explain", "4.12", "--model", "resnet50"), 2, "'4.12' has no unit")
    assert_error(sdabench("explain", "4.12G", "--model", "resnet5"), 2, "resnet50")
    assert_error(sdabench("explain", "4.12G"), 2, "--model")
    assert_error(sdabench("explain", "--model", "sda_resnet50"), 2, "no table prints")


def test_unwritable_output_is_an_error(imagenet, tmp_path):
    (tmp_path / "file").write_text("")
    options = ["--data", f"imagenet={imagenet}", "--output", tmp_path / "file" / "out"]
    assert_error(sdabench("eval", "resnet50", *options), 1, "cannot write", "file/out")
    assert_error(
        sdabench("run", "--suite", "classification", "--eval-only", *options), 1, "cannot write", "file/out"
    )
    locked = tmp_path / "locked"
    locked.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    if not os.access(locked, os.W_OK):  # root may write anywhere
        assert_error(sdabench("flops", "resnet50", "--save", locked / "c.jsonl"), 1, "cannot write")


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["flops", "-h"]])
def test_closed_pipe_is_not_an_error(arguments):
    command = [sys.executable, "-m", "sdabench", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    "arguments", [["list"], ["list", "--json"], ["table", "detection", "--format", "csv"]]
)
def test_full_disk_is_reported_without_traceback(arguments):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "sdabench", *arguments]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == (
        "Error: cannot write to stdout: No space left on device; redirect it elsewhere\n"
    )


def test_ascii_terminal_replaces_other_characters():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = sdabench("table", "classification-attention", env=environment)
    assert result.returncode == 0
    assert "A2Net" in result.stdout
    assert " -0.0" in result.stdout
    assert "?" not in result.stdout


def test_flops_save_accepts_only_default_resolution(tmp_path):
    notes = tmp_path / "notes.md"
    notes.write_text("# Notes\n")
    assert_error(sdabench("flops", "resnet50", "--save", notes), 4, "notes.md, line 1 is not a JSON object")
    assert notes.read_text() == "# Notes\n"
    assert_error(sdabench("flops", "resnet50", "--save", tmp_path / "c", "--resolution", 64), 2, "--save")
    path = tmp_path / "counts.jsonl"
    assert sdabench("flops", "resnet50", "--save", path).returncode == 0
    assert sdabench("flops", "resnet86_g8", "--save", path).returncode == 0
    assert sdabench("flops", "resnet50", "--save", path).returncode == 0
    assert [json.loads(line)["model"] for line in path.read_text().splitlines()] == [
        "resnet50",
        "resnet86_g8",
    ]
