"""Run ``sdabench compare`` as a user does."""

import csv
import html
import io
import json
import re

import pandas as pd
import pytest
from click.testing import CliRunner

from sdabench.cli import cli
from sdabench.records.json_lines import append_lines
from sdabench.report.columns import RUN_DIFFERENCES
from tests.helpers.program import assert_error, sdabench
from tests.helpers.records import DATASET, correct_on, json_records, record, store_record, trained


@pytest.fixture
def runs(tmp_path):
    """Make runs on ten images: only A is correct on one image, only B on three; C on all."""
    for name, correct in (("a", (0, 1, 2, 3)), ("b", (1, 2, 3, 4, 5, 6)), ("c", range(10))):
        (tmp_path / name).mkdir()
        one = store_record(tmp_path / name, "resnet50", correct_on(*correct))
        append_lines(tmp_path / name / "records.jsonl", one.record.as_json())
    return tmp_path


def test_compare_two_runs(runs):
    result = sdabench("compare", runs / "a", runs / "b")
    assert result.returncode == 0, result.stderr
    words = " ".join(result.stdout.split())
    assert "top-1 40.00 60.00 +20.00" in words
    assert "1 3 0.62 not significant" in words
    assert "images with different predictions: 4" in words
    assert "0.JPEG 1 0 class 0: A predicts 0, B predicts 50" in words


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "html"])
def test_conditions_that_differ_are_named(runs, form):
    """The same network at 224 and at 96 pixels, in other precisions."""
    path = runs / "b/records.jsonl"
    [line] = json_records(runs / "b")
    line["protocol"]["preprocessing"] |= {"resize": 110, "crop": 96}
    line["protocol"]["precision"] = "bf16"
    path.write_text(json.dumps(line) + "\n")
    result = sdabench("compare", runs / "a", runs / "b", "--format", form)
    assert result.returncode == 0, result.stderr
    words = " ".join(re.sub(r"<.*?>|[|&\\]", " ", result.stdout).split())
    assert "Not comparable: A and B differ in protocol.preprocessing.resize (256, 110)" in words
    assert "protocol.preprocessing.crop 224 96 not comparable" in words
    assert "protocol.precision fp32 bf16 condition" in words
    report = json.loads(sdabench("compare", runs / "a", runs / "b", "--json").stdout)
    assert not report["comparable"]
    assert {each["field"]: each["values"] for each in report["conditions"]} == {
        "protocol.preprocessing.resize": {"a": 256, "b": 110},
        "protocol.preprocessing.crop": {"a": 224, "b": 96},
        "protocol.precision": {"a": "fp32", "b": "bf16"},
    }


def test_options_of_ap_are_refused_for_classifiers(runs):
    result = sdabench("compare", runs / "a", runs / "b", "--resamples", 100)
    assert_error(result, 2, "--annotations and --resamples are for AP")


def test_table_names_the_records_that_it_leaves_out(runs):
    result = sdabench("table", "classification-attention", "--records", runs / "a")
    assert "left out" not in result.stderr  # of the complete dataset
    [line] = json_records(runs / "a")
    line["protocol"]["preprocessing"] |= {"resize": 110, "crop": 96}
    (runs / "b/records.jsonl").write_text(json.dumps(line) + "\n")
    result = sdabench("table", "classification-attention", "--records", runs / "a", "--records", runs / "b")
    assert result.returncode == 0
    reason = "Only results with the standard preprocessing are compared with printed numbers."
    assert f"1 of 2 records are left out (resnet50). {reason}" in " ".join(result.stderr.split())


def test_equal_conditions_are_stated(runs):
    assert "No recorded condition differs." in sdabench("compare", runs / "a", runs / "b").stdout
    assert json.loads(sdabench("compare", runs / "a", runs / "b", "--json").stdout)["comparable"]


def test_json_and_changed_images_csv(runs):
    result = sdabench("compare", runs / "a", runs / "b", "--json", "--changed", runs / "changed.csv")
    report = json.loads(result.stdout)
    assert [one["metric"] for one in report["differences"]] == ["top1_pct", "top5_pct"]
    assert report["differences"][0]["mcnemar_p"] == 0.625
    rows = csv.DictReader((runs / "changed.csv").read_text().splitlines())
    assert [row["image"] for row in rows] == ["0.JPEG", "4.JPEG", "5.JPEG", "6.JPEG"]


def test_colon_selects_one_network_of_a_run(runs):
    append_lines(runs / "a/records.jsonl", record(model="senet50").as_json())
    result = sdabench("compare", runs / "a", runs / "b")
    assert result.returncode == 2
    assert f"records of 2 networks; choose one, e.g. {runs / 'a'}:resnet50" in result.stderr
    assert sdabench("compare", f"{runs / 'a'}:resnet50", runs / "b").returncode == 0
    result = sdabench("compare", f"{runs / 'a'}:resnet86", runs / "b")
    assert "no record of 'resnet86'" in result.stderr
    result = sdabench("compare", f"{runs / 'a'}:senet50", runs / "b")
    assert result.returncode == 4
    assert "not the same images" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name two records"),
        (["a"], "name two records"),
        (["none", "a"], "no run at"),
        (["a", "b", "--claims"], "--claims takes no records"),
        (["a", "b", "--models", "resnet50"], "need --claims or --power"),
        (["--claims", "--resamples", "20"], "options of the group 'Runs' cannot"),
        (["--claims", "--images", "3"], "options of the group 'Runs' cannot"),
        (["a", "b", "c", "--changed", "x.csv"], "cannot be combined with more than two runs"),
        (["a", "b", "c", "--resamples", "20"], "--annotations and --resamples are for AP"),
        (["a", "b", "a"], "is named twice"),
        (["a", "b", "none"], "no run at"),
        (["a", "b", "c", "--claims"], "--claims takes no records"),
        (["a", "b", "--format", "csv", "--images", "3"], "cannot be combined with --format csv"),
        (["a", "b", "--json", "--format", "csv"], "--json and --format csv are two formats"),
        (["--claims", "--models", "sda_resnet8"], "did you mean sda_resnet86"),
        (["--claims", "--models", "sda_*50"], "no match of 'sda_*50' is in the networks that a table shows"),
        (["--claims", "--models", "resnet50"], "not in the networks that a table shows as improved"),
    ],
)
def test_invalid_comparison_is_a_usage_error(runs, arguments, words):
    paths = {name: runs / name for name in ("a", "b", "c", "none")}
    result = sdabench("compare", *(paths.get(argument, argument) for argument in arguments))
    assert result.returncode == 2
    assert words in result.stderr


def compared(*arguments):
    """Run ``compare`` in this process."""
    result = CliRunner().invoke(cli, ["compare", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "html"])
def test_three_runs_are_shown_as_tables(runs, form):
    text = html.unescape(compared(*(runs / name for name in "abc"), "--format", form))
    words = " ".join(re.sub(r"<.*?>|[|&\\$*]", " ", text).split()).replace("-", "−")
    for row in ("resnet50 40.00 40.00", "resnet50 60.00 60.00", "resnet50 100.00 100.00"):
        assert row in words
    for pair in ("B − A", "C − A", "C − B"):
        assert pair in words
    assert re.search("Holm.s method over 3 pairs", words)


def test_three_runs_as_frames_and_json(runs):
    paths = [str(runs / name) for name in "abc"]
    report = json.loads(compared(*paths, "--json"))
    assert [each["run"] for each in report["runs"]] == paths
    assert [each["metrics"]["top1_pct"]["mean"] for each in report["runs"]] == [40, 60, 100]
    table = pd.read_csv(io.StringIO(compared(*paths, "--format", "csv")))
    assert list(table) == list(RUN_DIFFERENCES)
    assert table[table.metric == "top1_pct"].difference.tolist() == [20, 60, 40]
    objects = pd.read_json(io.StringIO(compared(*paths, "--format", "json")))
    assert objects.difference.tolist() == table.difference.tolist()


def test_two_runs_as_frames(runs):
    """Two runs are one pair of three: the same values, but for the correction over pairs."""
    of_two = pd.read_csv(io.StringIO(compared(runs / "a", runs / "b", "--format", "csv")))
    of_three = pd.read_csv(io.StringIO(compared(*(runs / name for name in "abc"), "--format", "csv")))
    same = of_three.columns.drop("p_holm")
    pd.testing.assert_frame_equal(of_two[same], of_three.head(2)[same])


def test_two_runs_with_seeds_are_compared_by_their_means_without_predictions(tmp_path):
    for name, gain in (("a", 0), ("b", 0.5)):
        (tmp_path / name).mkdir()
        for seed in range(3):
            dataset = DATASET.model_copy(update={"fingerprint_sha256": "f" * 64})
            one = trained("resnet50", 75 + gain + seed / 10, seed, dataset=dataset)
            append_lines(tmp_path / name / "records.jsonl", one.as_json())
    words = " ".join(compared(tmp_path / "a", tmp_path / "b").split())
    assert "B − A top-1 +0.50" in words
    assert "trainings, by seed" in words
    [each] = json.loads(compared(tmp_path / "a", tmp_path / "b", "--json"))["differences"]
    assert (each["difference"], each["basis"]) == (pytest.approx(0.5), "trainings")
    assert ["task", *each] == list(RUN_DIFFERENCES)


def test_two_records_without_predictions_have_no_interval(runs):
    (runs / "b" / "resnet50.csv.gz").unlink()
    words = " ".join(compared(runs / "a", runs / "b").split())
    assert "B − A top-1 +20.00 - - unknown" in words
    assert "Without interval, B − A: no predictions of resnet50 at" in words


def test_claims_are_compared_with_records(runs):
    result = sdabench("compare", "--claims", "--models", "sda_pyconv86")
    assert result.returncode == 0, result.stderr
    assert "sda_pyconv86 vs. pyconv86 (baseline, control) top-1 +0.64 not measured" in " ".join(
        result.stdout.split()
    )
    for name, top1, revision in (("sda_pyconv86", 77.0, "b"), ("pyconv86", 78.5, "a")):
        append_lines(runs / "records.jsonl", trained(name, top1, git_revision=revision).as_json())
    result = sdabench("compare", "--claims", "--models", "sda_pyconv86", "--records", runs)
    assert "The records of pyconv86 and sda_pyconv86 differ in git_revision (a, b)." in result.stdout
    assert "Judged at 95 %: 1. Expected outside by chance: 0.1. Outside: 1." in result.stdout
    result = sdabench("compare", "--claims", "--models", "sda_pyconv86", "--records", runs, "--json")
    assert result.returncode == 3, result.stderr
    top1, top5 = json.loads(result.stdout)
    assert (top1["reported"], top1["paired"], top1["seeds"], top1["recipe"]) == (0.64, True, 1, "paper")
    assert top1["verdict"] == "contradicted (smaller, one training)"
    assert top1["measured"]["estimate"] == pytest.approx(-1.5)
    assert top1["interval"]["low"] < top1["measured"]["low"]
    assert top1["p"] < 0.01
    assert top5["verdict"] == "not measured"
    values = {each["field"]: each["values"] for each in top1["conditions"]}
    assert values["git_revision"] == {"pyconv86": "a", "sda_pyconv86": "b"}


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "html"])
def test_statements_are_shown_with_their_evidence(form):
    result = sdabench("compare", "--statements", "--format", form)
    assert result.returncode == 0, result.stderr
    words = " ".join(re.sub(r"<.*?>|[|&\\*]", " ", result.stdout).split())
    assert "A number in bold is the best of its group." in words
    assert "vs. Mask-RCNN FcaNet: box AP small" in words
    assert "63 of 64 comparisons hold as printed." in words
    assert "g8: top-1." in words
    assert "pct" not in words


def test_statements_as_json():
    by_name = {
        each["name"]: each for each in json.loads(sdabench("compare", "--statements", "--json").stdout)
    }
    assert by_name["improves-resnet"]["verdict"] == "not testable"
    assert by_name["improves-resnet"]["not_printed"] == ["sda_resnet86 vs. resnet86_g8: top1_pct"]
    assert by_name["orthogonal"]["verdict"] == "supported"
    assert sorted(each["difference"] for each in by_name["orthogonal"]["comparisons"]) == [
        0.64, 0.66, 0.69, 0.73, 1.09,
    ]  # fmt: skip


def test_claims_under_another_baseline():
    command = ("compare", "--claims", "--baseline", "torchvision", "--models", "sda_resnet86")
    result = sdabench(*command)
    assert result.returncode == 0, result.stderr
    words = " ".join(result.stdout.split())
    assert (
        "vs. resnet50, torchvision: IMAGENET1K_V1 top-1 (paper 75.20) 76.13 +3.56 +2.63 survives "
        "top-5 (paper 92.52) 92.86 +1.85 +1.51 survives" in words
    )
    assert "top-1 (paper 75.20) 80.86 +3.56 −2.10 does not survive" in words
    first = json.loads(sdabench(*command, "--json").stdout)[0]
    assert (first["paper"], first["published"], first["verdict"]) == (75.2, 76.13, "survives")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--statements", "--claims"], "--statements"),
        (["--statements", "--models", "sda_*"], "--statements"),
        (["--statements", "--images", "3"], "cannot be used with --statements"),
        (["--baseline", "best"], "--baseline needs --claims"),
        (["--claims", "--baseline", "torchvison"], "did you mean torchvision?"),
        (["--claims", "--baseline", "best", "--records", "."], "--records"),
        (["--claims", "--baseline", "torchvision", "--models", "sda_senet86"], "'torchvision'"),
    ],
)
def test_wrong_use_of_statements_and_baselines(options, words):
    assert_error(sdabench("compare", *options), 2, words)
