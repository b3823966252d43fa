"""``--format csv`` and ``json`` of the commands that print tables."""

import io
import json

import pandas as pd
import pytest

import sdabench as api
from sdabench.report import columns
from tests.helpers.program import assert_error, sdabench

COUNTED = ["flops", "resnet50", "sda_resnet86", "faster_rcnn_resnet50"]
CLAIMS = ["compare", "--claims", "--models", "sda_res*"]


@pytest.mark.parametrize(
    ("arguments", "documented", "expected"),
    [
        (["list"], columns.NETWORKS, api.networks),
        (COUNTED, columns.COUNTS, lambda: api.counts(COUNTED[1:])),
        (["audit"], columns.CLAIMS, lambda: api.claims().query("convention.notna()").reset_index(drop=True)),
        (CLAIMS, columns.COMPARISONS, lambda: api.comparisons(models="sda_res*")),
    ],
)
def test_csv_of_a_command_is_read_back_as_the_frame(arguments, documented, expected):
    result = sdabench(*arguments, "--format", "csv")
    assert result.returncode == 0, result.stderr
    dtypes = {name: column.dtype for name, column in documented.items()}
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(result.stdout), dtype=dtypes), expected())


@pytest.mark.parametrize(
    "arguments", [["list", "sda_*50"], COUNTED, ["audit"], CLAIMS, ["compare", "--statements"]]
)
def test_format_json_is_the_contract(arguments):
    text = sdabench(*arguments, "--format", "json").stdout
    assert text == sdabench(*arguments, "--json").stdout
    rows = json.loads(text)
    rows = rows["rows"] if arguments == ["audit"] else rows
    assert len(pd.read_json(io.StringIO(json.dumps(rows)))) == len(rows) > 0


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
        (["compare", "--statements", "--format", "csv"], "needs three runs or more, or --claims"),
        (["compare", "--claims", "--baseline", "best", "--format", "csv"], "needs three runs or more"),
    ],
)
def test_formats_that_a_command_lacks_are_refused(arguments, words):
    assert_error(sdabench(*arguments), 2, words)
