"""The frames of the Python API: documented columns, values of the paper, and reading them back."""

import io
import subprocess
import sys

import pandas as pd
import pytest

import sdabench
from sdabench.records.record import Failure
from sdabench.records.store import RECORDS, RecordStore
from sdabench.report import columns, frames
from tests.helpers.paths import CHECKOUT
from tests.helpers.records import correct_on, record, store_record, trained, write_training

SMOKE = CHECKOUT / "results" / "smoke.jsonl"


def write_run(folder, *records):
    RecordStore(folder).append(records)
    return folder


def three_runs(folder):
    """Write runs of given weights on the same ten images."""
    runs = [folder / name for name in ("one", "two", "three")]
    for number, run in enumerate(runs):
        run.mkdir()
        write_run(run, store_record(run, "resnet50", correct_on(*range(number + 3))).record)
    return runs


@pytest.fixture(scope="module")
def tidy(tmp_path_factory):
    """One frame of each kind, with the columns that document it."""
    folder = tmp_path_factory.mktemp("frames")
    run = write_run(
        folder / "run", trained("resnet50", 76.5), record(failure=Failure(kind="x", message="no"), metrics={})
    )
    write_training(folder / "run" / "training" / "resnet50-1", [2.5, 1.5])
    return {
        "claims": (sdabench.claims(run), columns.CLAIMS),
        "records": (sdabench.records([run, SMOKE]), columns.RECORDS),
        "counts": (sdabench.counts(["resnet50", "faster_rcnn_*"]), columns.COUNTS),
        "comparisons": (sdabench.comparisons(run), columns.COMPARISONS),
        "training_curves": (sdabench.training_curves(run), columns.CURVES),
        "networks": (sdabench.networks(), columns.NETWORKS),
        "run_differences": (sdabench.run_differences(three_runs(folder)), columns.RUN_DIFFERENCES),
    }


KINDS = ["claims", "records", "counts", "comparisons", "training_curves", "run_differences", "networks"]


@pytest.mark.parametrize("kind", KINDS)
def test_columns_and_dtypes_are_those_documented(tidy, kind):
    frame, documented = tidy[kind]
    assert len(frame)
    assert frame.dtypes.map(str).to_dict() == {name: each.dtype for name, each in documented.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_csv_and_json_are_read_back_equal(tidy, kind):
    frame, documented = tidy[kind]
    dtypes = {name: each.dtype for name, each in documented.items()}
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(frames.to_csv(frame)), dtype=dtypes), frame)
    text = io.StringIO(frames.to_json(frame))
    read = pd.read_json(text, dtype=dtypes, precise_float=True)
    pd.testing.assert_frame_equal(read, frame, rtol=1e-14)


def test_the_frames_state_what_the_paper_prints(tidy):
    claims = tidy["claims"][0].set_index(["table", "model", "metric"])
    row = claims.loc[("classification-attention", "resnet50", "top1_pct")]
    assert (row.paper, row.measured, row.bold) == (75.2, 76.5, False)
    assert row.delta == pytest.approx(1.3)
    counts = tidy["counts"][0].set_index(["model", "convention"]).value
    assert counts["resnet50", "params"] == 25_557_032  # torchvision's documentation
    assert tidy["networks"][0].set_index("model").control["sda_resnet86"] == "resnet86_g8"
    assert ("resnet50", "fvcore") in counts.index
    assert ("faster_rcnn_resnet50", "fvcore") not in counts.index  # slow, only on request
    curves = tidy["training_curves"][0].query("quantity == 'loss'")
    assert list(curves.value) == [2.5, 1.5]
    assert list(curves.step) == [10, 20]


def test_a_failed_job_has_a_row_without_metric(tidy):
    failed = tidy["records"][0].query("failure.notna()")
    assert list(failed.failure) == ["no"]
    assert failed[["metric", "value_pct"]].isna().all(axis=None)


def test_a_table_has_a_pair_of_headings_and_flat_names():
    frame = sdabench.table("classification-attention", extra=["sda_senet50"])
    assert frame.columns.names == ["metric", "part"]
    assert frame.xs("resnet50", level="model")["top1_pct", "paper"].item() == 75.2
    assert frame.xs("sda_senet50", level="model")["top1_pct", "paper"].isna().all()
    flat = frames.flat(frame)
    read = pd.read_csv(io.StringIO(frames.to_csv(flat)), dtype=flat.dtypes.to_dict())
    pd.testing.assert_frame_equal(read, flat)
    outcomes = flat.set_index("model")[["top1_pct_outcome", "params_m_outcome"]]
    assert outcomes.loc["resnet50"].tolist() == ["unknown", "holds"]
    assert outcomes.loc["sda_senet50"].isna().all()


def test_all_tables_are_no_single_frame():
    with pytest.raises(sdabench.SdabenchError, match="unknown table 'all'"):
        sdabench.table("all")


def test_one_path_several_paths_and_a_bad_path(tmp_path):
    run = write_run(tmp_path / "a", trained("resnet50", 76.5))
    assert len(sdabench.records(run)) == len(sdabench.records(str(run))) == 1
    again = [run, run / RECORDS, f"{run}/", tmp_path / "b" / ".." / "a"]
    (tmp_path / "b").symlink_to(run)
    assert sdabench.records([*again, tmp_path / "b"]).run.tolist() == [str(run)]
    with pytest.raises(sdabench.SdabenchError, match="no records in .*name the --output folder"):
        sdabench.records(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sdabench.records(None), "None is not a path; give one, or a list"),
        (lambda: sdabench.records(3), "3 is not a path"),
        (lambda: sdabench.records(b"runs"), "b'runs' is not a path"),
        (lambda: sdabench.records(["runs", None]), "None is not a path"),
        (lambda: sdabench.records(""), "'' is not a path"),
        (lambda: sdabench.training_curves("nope"), "no run at nope; name an --output folder"),
        (lambda: sdabench.training_curves(CHECKOUT / "docs"), "no run at .*docs; name an --output folder"),
        (lambda: sdabench.claims("nope"), "no records in nope"),
        (lambda: sdabench.networks(["nope"]), "unknown model 'nope'"),
        (lambda: sdabench.networks(None), "None is not a name"),
        (
            lambda: sdabench.counts(["resnet50"], conventions=["mac"]),
            "unknown convention 'mac'; did you mean",
        ),
        (lambda: sdabench.counts(["resnet50"], conventions=3), "3 is not a name"),
        (lambda: sdabench.counts("resnet50", input_size=(224, 224)), r"input size is \(C, H, W\), not \(224"),
        (lambda: sdabench.counts("resnet50", input_size=0), r"input size is \(C, H, W\), not 0"),
        (lambda: sdabench.counts("resnet50", input_size=(3, 0, 64)), "positive numbers"),
        (
            lambda: sdabench.comparisons(models=["resnet50"]),
            "not in the networks that a table shows as improved",
        ),
        (lambda: sdabench.comparisons("nope"), "no records in nope"),
        (lambda: sdabench.table("detection", extra="sda_x"), "unknown model 'sda_x'"),
        (lambda: sdabench.table(None), "unknown table 'None'"),
        (lambda: sdabench.run_differences([]), "name two runs or more"),
        (lambda: sdabench.run_differences("nope"), "name two runs or more"),
        (lambda: sdabench.run_differences([None, None]), "None is not a run"),
        (lambda: sdabench.run_differences([SMOKE, SMOKE]), "has records of"),
    ],
)
def test_wrong_arguments_are_errors_of_one_line(make, words):
    with pytest.raises(sdabench.SdabenchError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sdabench.records([]),
        lambda: sdabench.training_curves([]),
        lambda: sdabench.networks([]),
        lambda: sdabench.counts([]),
        lambda: sdabench.counts("resnet50", conventions=[]),
        lambda: sdabench.comparisons(models=[]),
    ],
)
def test_an_empty_list_is_an_empty_frame(make):
    assert (len(make()), make().columns.empty) == (0, False)


def test_a_name_is_a_list_of_one():
    pd.testing.assert_frame_equal(
        sdabench.counts("resnet50", "macs"), sdabench.counts(["resnet50"], conventions=["macs"])
    )
    one = sdabench.table("classification-attention", extra="sda_senet50")
    assert "sda_senet50" in one.index.get_level_values("model")


def test_text_that_is_a_formula_is_only_text_in_csv(tmp_path):
    run = write_run(tmp_path / "a", record(failure=Failure(kind="x", message="=1+1")))
    assert "'=1+1" in frames.to_csv(sdabench.records(run))


def test_functions_called_like_packages_work_in_any_order_of_import():
    code = "import sdabench.claims.audit, sdabench; print(len(sdabench.claims()), sdabench.records.record.Record)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("405 ")


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["flops", "resnet50"]])
def test_pandas_is_not_imported_where_no_frame_is_made(arguments):
    code = "import sys; from sdabench.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "print(*{'pandas', 'matplotlib'} & set(sys.modules), file=sys.stderr)"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout
    assert done.stderr == "\n"


def test_names_that_are_not_utf8_are_escaped():
    made = frames.make([{"run": "a\udcff"}, {"run": "ü"}, {}], {"run": columns.Column("str", "a folder")})
    assert list(made.run[:2]) == ["a\\udcff", "ü"]
    assert made.run.isna().tolist() == [False, False, True]
