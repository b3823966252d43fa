"""Records: reading and writing, comparability, and spec digests."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from sdabench.data.description import Preprocessing
from sdabench.errors import DataError, SdabenchError
from sdabench.records.json_lines import append_lines, read_lines
from sdabench.records.record import Failure, Record
from sdabench.records.spec import Protocol, Weights
from sdabench.registry.recipes import load_recipe
from sdabench.report.summary import describe_metrics
from tests.helpers.program import assert_error, sdabench
from tests.helpers.records import DATASET, record

SMALLER = Protocol(preprocessing=Preprocessing.at(160))
TRAINING_SET = DATASET.model_copy(update={"split": "train", "listing_sha256": "e" * 64})


class Anything(BaseModel, extra="allow"):
    pass


def test_record_round_trips(tmp_path):
    path = tmp_path / "new" / "records.jsonl"
    append_lines(path, record().as_json())
    append_lines(path, record(model="senet50").as_json())
    assert [item.model for item in read_lines(path, Record)] == ["resnet50", "senet50"]
    assert next(read_lines(path, Record)) == record(created=next(read_lines(path, Record)).created)
    assert json.loads(path.read_text().splitlines()[0])["schema"] == "sdabench.record/1"


def test_truncated_line_is_skipped_with_one_note(tmp_path, capsys):
    path = tmp_path / "records.jsonl"
    append_lines(path, record().as_json())
    line = path.read_bytes()
    path.write_bytes(line + line[:40])
    append_lines(path, record(model="senet50").as_json())
    for _ in range(2):
        assert [item.model for item in read_lines(path, Record)] == ["resnet50", "senet50"]
    assert capsys.readouterr().err == (
        f"{path}, line 2: skipped, because a process was killed while writing it\n"
    )


def test_every_beginning_of_a_line_is_incomplete(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_lines(path, {"a": [1, 2.5e-7, {"b": 'café "\\ \u2028'}, None, True], "c": {}, "d": ""})
    line = path.read_bytes()
    for end in range(1, len(line) - 1):
        path.write_bytes(line[:end] + b"\n" + line)
        assert len(list(read_lines(path, Anything))) == 1


def test_no_flipped_bit_of_a_line_is_believed(tmp_path):
    path = tmp_path / "records.jsonl"
    append_lines(path, record().as_json())
    line = path.read_bytes()
    [before] = read_lines(path, Record)
    refused = 0
    for position in range(0, len(line) - 1, 3):
        flipped = bytearray(line)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        try:
            assert list(read_lines(path, Record)) in ([], [before])  # no number of another value
        except SdabenchError:
            refused += 1
    assert refused > len(line) / 4


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"75.3", b"76.3"),
        (b"75.3", b"1e400"),
        (b"75.3", b"NaN"),
        (b'"model": "resnet50"', b'"model": "resnet51"'),
        (b'"metrics"', b",metrics"),
        (b"}\n", b"]\n"),
        (b'"seed": 0', b'"seed": ' + b"9" * 5000),
        (b'"failure": null', b'"failure": ' + b"[" * 9999 + b"]" * 9999),
    ],
)
def test_damaged_line_exits_4(tmp_path, old, new):
    path = tmp_path / "records.jsonl"
    append_lines(path, record().as_json(), record(model="senet50").as_json())
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    result = sdabench("table", "classification-attention", "--records", path)
    assert (result.returncode, result.stdout) == (4, "")
    assert re.fullmatch(
        rf"Error: {path}, line 1 is damaged: .*; restore the file, or delete that line to measure again\n",
        result.stderr,
    )


@pytest.mark.parametrize("end", [b"\0" * 9, b"\0" * 9 + b"\n"])
def test_bytes_lost_in_a_power_loss_are_named(tmp_path, end):
    path = tmp_path / "records.jsonl"
    append_lines(path, record().as_json())
    with path.open("ab") as file:
        file.write(end)
    with pytest.raises(
        DataError, match=r"line 2 is damaged: it has NUL bytes.*; restore .* or delete that line"
    ):
        list(read_lines(path, Record))


def test_line_without_its_beginning_exits_4(tmp_path):
    path = tmp_path / "records.jsonl"
    append_lines(path, record().as_json(), record(model="senet50").as_json())
    path.write_bytes(b"z" + path.read_bytes()[1:])
    result = sdabench("table", "classification-attention", "--records", path)
    assert_error(result, 4, f"{path}, line 1 is not a JSON object; restore the file, or name a file of")


def test_lines_of_earlier_versions_and_other_editors_are_read(tmp_path):
    """Earlier versions wrote no checksum; editors change the order, spaces, encoding and ends of lines."""
    path = tmp_path / "records.jsonl"
    append_lines(path, record().as_json())
    stored = json.loads(path.read_text())
    turned = dict(reversed(stored.items()))
    del stored["crc32"]
    text = "\r\n".join([json.dumps(turned, separators=(" ,", " : ")), json.dumps(stored), ""])
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_bytes(text.encode(encoding))
        first, second = read_lines(path, Record)
        assert first == second


def test_folder_or_file_without_records_is_an_error(tmp_path):
    (tmp_path / "records.jsonl").write_text("")
    for place in (tmp_path, tmp_path / "records.jsonl"):
        result = sdabench("table", "classification-attention", "--records", place)
        assert result.returncode == 2
        assert "no records in " in result.stderr


def test_line_of_another_schema_version_is_an_error(tmp_path):
    path = tmp_path / "records.jsonl"
    append_lines(path, record().as_json() | {"schema": "sdabench.record/2"})
    with pytest.raises(SdabenchError, match=r"records\.jsonl, line 1: schema.*another version"):
        list(read_lines(path, Record))


@pytest.mark.parametrize("content", [b"# Notes\n", b"\xff\xfe\x00", b"1,2,3\n", b"7\n"])
def test_file_without_records_is_an_error(tmp_path, content):
    (tmp_path / "notes").write_bytes(content)
    with pytest.raises(SdabenchError, match="name a file of records"):
        list(read_lines(tmp_path / "notes", Record))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 250.0])
def test_metric_outside_0_to_100_is_invalid(value):
    with pytest.raises(ValidationError):
        Record.model_validate(record().as_json() | {"metrics": {"top1_pct": value}})


def test_record_with_unknown_names_is_described_and_negative_samples_are_refused():
    dataset = DATASET.model_copy(update={"name": "places"})
    other = record(metrics={"mean_pct": 7.0}, dataset=dataset)
    words = "resnet50: mean_pct 7.00 % ± 0.11, on the places validation set (50,000 images)"
    assert describe_metrics(other) == words
    with pytest.raises(ValidationError, match="samples"):
        Record.model_validate(record().as_json() | {"samples": -1})


def test_standard_error_is_computed_or_recorded():
    # 75.3 % of 50,000: sqrt(0.753 * 0.247 / 50000) = 0.0019287
    assert record().standard_error("top1_pct") == pytest.approx(0.19287, abs=1e-5)
    assert record(samples=0).standard_error("top1_pct") is None
    assert record().standard_error("ap_pct") is None
    detector = record(task="segmentation", metrics={"ap_pct": 34.0}, standard_errors={"ap_pct": 0.3})
    assert Record.model_validate(detector.as_json()).standard_error("ap_pct") == 0.3
    assert detector.standard_error("ap50_pct") is None
    older = detector.as_json()
    del older["standard_errors"]
    assert Record.model_validate(older).standard_error("ap_pct") is None


@pytest.mark.parametrize("value", [10**20, float("nan"), float("inf")])
def test_no_line_is_written_that_cannot_be_read(tmp_path, value):
    path = tmp_path / "records.jsonl"
    append_lines(path, {"a": 1})
    with pytest.raises(ValueError, match=r"64 bits|JSON compliant"):
        append_lines(path, {"a": {"b": [value]}})
    assert [item.a for item in read_lines(path, Anything)] == [1]


def test_unwritable_path_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SdabenchError, match="cannot write .*file/records.jsonl"):
        append_lines(tmp_path / "file" / "records.jsonl", {})


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_an_error():
    with pytest.raises(SdabenchError, match="No space left on device"):
        append_lines(Path("/dev/full"), {"a": 1})


def test_only_trained_weights_on_complete_data_are_comparable():
    assert record().comparable
    assert not record(weights=Weights(source="random")).comparable
    assert not record(dataset=DATASET.model_copy(update={"complete": False})).comparable
    assert not record(failure=Failure(kind="crash", message="")).comparable
    assert not record(samples=0).comparable
    assert not record(protocol=SMALLER).comparable


def test_training_is_comparable_if_it_follows_the_paper():
    recipe = load_recipe("paper")
    paper = {"recipe": recipe.model_dump(mode="json"), "train_dataset": TRAINING_SET}
    assert record(**paper).comparable
    shorter = recipe.override(epochs=5).model_dump(mode="json")
    incomplete = TRAINING_SET.model_copy(update={"complete": False})
    assert not record(**paper | {"recipe": shorter}).comparable
    assert not record(**paper | {"train_dataset": incomplete}).comparable
    bf16 = recipe.override(precision="bf16", accumulate=2).model_dump(mode="json")
    assert record(**paper | {"recipe": bf16}).comparable


def test_spec_digest_depends_only_on_the_experiment():
    digest = record().spec_digest
    assert record(metrics={}, batch_size=1).spec_digest == digest
    for change in (
        {"model": "senet50"},
        {"seed": 1},
        {"weights": Weights(source="w.pth", sha256="c" * 64)},
        {"weights": Weights(source="random")},
        {"dataset": DATASET.model_copy(update={"listing_sha256": "d" * 64})},
        {"protocol": SMALLER},
        {"recipe": {"epochs": 1, "title": "a"}},
        {"train_dataset": TRAINING_SET},
    ):
        assert record(**change).spec_digest != digest, change
    assert record(weights=Weights(source="elsewhere.pth", sha256="b" * 64)).spec_digest == digest
    retitled = [record(recipe={"epochs": 1, "title": title, "source": ""}).spec_digest for title in "ab"]
    assert retitled[0] == retitled[1]
    trained = [record(weights=Weights(source="training", sha256=sha256)).spec_digest for sha256 in "ab"]
    assert trained[0] == trained[1] != digest


def test_processes_append_concurrently_after_a_truncated_line(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"model": "cut')
    code = (
        "import sys; from pathlib import Path; from sdabench.records.json_lines import append_lines\n"
        "for _ in range(200): append_lines(Path(sys.argv[1])); "
        "append_lines(Path(sys.argv[1]), {'number': 7, 'padding': 'x' * 9000})"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]

    class Numbered(BaseModel):
        number: int

    assert len(list(read_lines(path, Numbered))) == 600
