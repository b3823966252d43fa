"""JSON that anybody may have written: encodings, limits, compressed files."""

import gzip
import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from sdabench.errors import DataError
from sdabench.files import MIN_LIMIT
from sdabench.json_files import parse_json, read_json, read_model

CONTENT = {"names": ["café", "−0.03", "象"], "ids": [2**63 - 1, -1], "scores": [0.1, 1e-300]}
NOT_JSON = {
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "digits": b"[" + b"1" * 5000 + b"]",
    "half": b'["\\ud800"]',
    "bytes": b'["\xff"]',
    "odd": "[1]".encode("utf-16")[:-1],
    "empty": b"",
}


class Numbers(BaseModel, extra="allow"):
    a: float


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_every_unicode_encoding_of_json_is_read(tmp_path, encoding):
    data = json.dumps(CONTENT, ensure_ascii=False).encode(encoding)
    (tmp_path / "f.json").write_bytes(gzip.compress(data))
    assert read_json(tmp_path / "f.json", "results") == (CONTENT, data)


@pytest.mark.parametrize("data", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_one_error(tmp_path, data):
    (tmp_path / "f.json").write_bytes(data)
    with pytest.raises(DataError, match=r"f\.json is not JSON \(.*\); restore it or create it again$"):
        read_json(tmp_path / "f.json", "results")
    with pytest.raises(ValueError):  # noqa: PT011, which one depends on the parser
        parse_json(data)


def test_gzip_file_that_decompresses_to_far_more_is_refused(tmp_path):
    path = tmp_path / "f.json.gz"
    path.write_bytes(gzip.compress(b" " * (2 * MIN_LIMIT)))
    with pytest.raises(DataError, match="decompresses to more than .* decompress it with gunzip"):
        read_json(path, "results")
    path.write_bytes(gzip.compress(b" " * (MIN_LIMIT // 64) + b"[1]"))
    assert read_json(path, "results")[0] == [1]


@pytest.mark.parametrize("extra", [b"1e400", b"NaN", b"[[-Infinity]]", b'{"c": 18446744073709551616}'])
def test_numbers_beyond_64_bits_do_not_fit_a_model(tmp_path, extra):
    path = tmp_path / "f.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1, "b": 18446744073709551615}')
    assert read_model(path, Numbers).a == 1
    path.write_bytes(b'{"a": 1, "b": %b}' % extra)
    with pytest.raises(ValueError, match="64 bits|finite"):
        read_model(path, Numbers)


def test_device_is_not_read():
    with pytest.raises(DataError, match="cannot read /dev/zero: it is a device, not a file"):
        read_json(Path("/dev/zero"), "results")
