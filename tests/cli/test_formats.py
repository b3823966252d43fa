"""``--format csv`` and ``json`` of the commands that print tables."""

import io
import json

import pandas as pd
import pytest
from click.testing import CliRunner

import sdabench as api
from sdabench.cli import cli
from sdabench.records.record import Failure
from sdabench.records.store import RecordStore
from sdabench.report import columns
from tests.helpers.program import assert_error, sdabench
from tests.helpers.records import record, trained, write_training


def printed(*arguments):
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


COUNTED = ["flops", "resnet50", "sda_resnet86", "faster_rcnn_resnet50"]
CLAIMS = ["compare", "--claims", "--models", "sda_res*"]


STATEMENTS = ["compare", "--statements"]
POWER = ["compare", "--power", "--models", "sda_res*"]
BASELINES = ["compare", "--claims", "--baseline", "torchvision"]


def read(text, form, dtypes):
    """Read what a command prints as a user does."""
    if form == "csv":
        return pd.read_csv(io.StringIO(text), dtype=dtypes)
    return pd.read_json(io.StringIO(text), dtype=dtypes, precise_float=True)


@pytest.mark.parametrize("form", ["csv", "json"])
@pytest.mark.parametrize(
    ("arguments", "documented", "expected"),
    [
        (["list"], columns.NETWORKS, api.networks),
        (COUNTED, columns.COUNTS, lambda: api.counts(COUNTED[1:])),
        (["audit"], columns.CLAIMS, lambda: api.claims().query("convention.notna()").reset_index(drop=True)),
        (CLAIMS, columns.COMPARISONS, lambda: api.comparisons(models="sda_res*")),
    ],
)
def test_frame_that_a_command_prints_is_read_back(arguments, documented, expected, form):
    dtypes = {name: column.dtype for name, column in documented.items()}
    frame = read(printed(*arguments, "--format", form), form, dtypes)
    pd.testing.assert_frame_equal(frame, expected(), rtol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "documented"),
    [(STATEMENTS, columns.STATEMENTS), (POWER, columns.POWER), (BASELINES, columns.BASELINES)],
)
def test_claims_of_other_kinds_are_frames_with_the_values_of_the_contract(arguments, documented):
    """Columns are named like the keys of --json, which has the same values."""
    dtypes = {name: column.dtype for name, column in documented.items()}
    frame, again = (read(printed(*arguments, "--format", form), form, dtypes) for form in ("csv", "json"))
    pd.testing.assert_frame_equal(frame, again, rtol=1e-14)
    assert frame.dtypes.map(str).to_dict() == dtypes
    objects = json.loads(printed(*arguments, "--json"))
    parts = ("comparisons", "measured")
    rows = [
        each | one
        for each in objects
        for one in [one for part in parts for one in each.get(part, ())] or [{}]
    ]
    assert len(frame) == len(rows) > 3
    for name in documented:
        values = [None if pd.isna(value) else value for value in frame[name]]
        assert values == [row.get(name) for row in rows]


@pytest.mark.parametrize("name", ["detection", "all"])
def test_tables_are_read_back_in_both_formats(name):
    frame = pd.read_csv(io.StringIO(printed("table", name, "--format", "csv")))
    text = printed("table", name, "--format", "json")
    tables = json.loads(text) if name == "all" else [json.loads(text)]
    rows = pd.concat([pd.json_normalize(table["rows"]) for table in tables], ignore_index=True)
    assert frame.label.tolist() == rows.label.tolist()
    for column in ("params_m", "ap_pct"):
        for part in ("reported", "measured", "verdict"):
            found, other = frame[f"{column}_{part}"], rows[f"{part}.{column}"].astype("object")
            assert found.astype("object").where(found.notna()).equals(other.where(other.notna()))
    assert set(frame.ap_pct_outcome.dropna()) == {"unknown"}  # not measured
    assert text == printed("table", name, "--json")


@pytest.fixture
def run(tmp_path):
    failed = record(failure=Failure(kind="x", message="no memory"), metrics={})
    RecordStore(tmp_path).append([trained("resnet50", 76.5), failed])
    write_training(tmp_path / "training" / "resnet50-1", [2.5, 1.5])
    return tmp_path


@pytest.mark.parametrize("form", ["csv", "json"])
@pytest.mark.parametrize(
    ("options", "documented", "expected"),
    [
        ([], columns.RECORDS, api.records),
        (["--curves"], columns.CURVES, api.training_curves),
    ],
)
def test_records_and_curves_of_a_run_are_printed_as_frames(run, options, documented, expected, form):
    dtypes = {name: column.dtype for name, column in documented.items()}
    frame = read(printed("show", str(run), *options, "--format", form), form, dtypes)
    pd.testing.assert_frame_equal(frame, expected(run), rtol=1e-14)


def test_a_run_is_shown_in_words_and_as_its_records(run):
    words = " ".join(printed("show", str(run)).split())
    assert "resnet50: top-1 76.50 % ± 0.19, on the ImageNet validation set" in words
    assert "resnet50: x: no memory" in words
    assert [each["model"] for each in json.loads(printed("show", str(run), "--json"))] == ["resnet50"] * 2


@pytest.mark.parametrize("form", ["markdown", "latex", "html"])
@pytest.mark.parametrize("arguments", [["list", "sda_a2net50"], ["flops", "sda_a2net50"]])
def test_lists_and_counts_are_printed_in_every_format(arguments, form):
    text = sdabench(*arguments, "--format", form).stdout.replace("\\", "")
    assert "sda_a2net50" in text
    assert {"markdown": "|--", "latex": "tabular", "html": "</table>"}[form] in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "--json", "--format", "csv"], "--json and --format csv are two formats; choose one"),
        (["flops", "resnet50", "--per-module", "--format", "csv"], "prints trees, not tables; leave out"),
        (["flops", "resnet50", "--per-module", "--format", "json"], "leave out --format json, or use --json"),
        (["table", "detection", "--json", "--format", "csv"], "are two formats; choose one"),
        (["list", "--json", "--format", "json"], "--json and --format json are two formats; choose one"),
        (["show", "resnet50", "--format", "csv"], "--format csv is for runs, and there is none at resnet50"),
        (["show", "resnet50", "--curves"], "--curves is for runs"),
        (["show", ".", "--curves"], "--curves needs --format csv or json; 'sdabench plot curves' draws"),
        (["show", ".", "--records", "."], "--records is for the page of a network"),
        (["show", "no/run"], "no records in no/run"),
        (["show", "resnet5O"], "did you mean resnet50"),
    ],
)
def test_formats_that_a_command_lacks_are_refused(arguments, words):
    assert_error(sdabench(*arguments), 2, words)
