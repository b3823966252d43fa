"""Text of unknown origin: no control characters, no secrets, no formulas."""

import pytest

from sdabench.terminal import csv_text, error_line, printable, redacted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b31m\x85", r"\x9b31m\x85"),  # C1
        ("\x07\x08\x7f\x00\r", r"\x07\x08\x7f\x00\r"),
        ("\u202egnp.exe\u2066\u200f\u061c", r"\u202egnp.exe\u2066\u200f\u061c"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\udcff", r"\udcff"),  # a byte of a file name that is not UTF-8
        ("café 象 −0.03\tx\n👩\u200d🔬", "café 象 −0.03\tx\n👩\u200d🔬"),
    ],
)
def test_control_characters_are_escaped(text, expected):
    assert printable(text) == printable(expected) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'https://me:pw@host/f.pth?sas=1&jwt=2' is", "'https://host/f.pth' is"),
        ("http://t0ken@host:80/f; use https://host/f?pwd=x#sha256=DIGEST", "http://host:80/f; use https://host/f#sha256=DIGEST"),
        ("no folder at https:/u:p@h/x?sig=1; check", "no folder at https:/h/x; check"),
        ("url: HTTPS://u:p%40@[::1]:8/x?a=b c", "url: HTTPS://[::1]:8/x c"),
        ("use https://USER:PASSWORD@HOST, or https://host/pkg@1.0/f", "use https://USER:PASSWORD@HOST, or https://host/pkg@1.0/f"),
        ("'sftp://me:pw@host/f' or s3://key:pw@bucket/f?sig=x#f", "'sftp://host/f' or s3://bucket/f#f"),
        ("did you mean https://host/f?", "did you mean https://host/f?"),
        ("user@host: what? no URL", "user@host: what? no URL"),
    ],
)  # fmt: skip
def test_urls_lose_users_and_queries(text, expected):
    assert redacted(text) == expected


def test_error_is_one_line_of_bounded_length():
    assert error_line("a\n\n b\x1b") == r"a b\x1b"
    assert len(error_line("9" * 5000)) < 2010
    assert error_line("9" * 5000 + "; name another file").endswith("; name another file")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1"])
def test_csv_text_is_no_formula(text):
    assert csv_text(text) == "'" + text
    assert csv_text("val/" + text) == "val/" + text


def test_stream_that_cannot_encode_gets_the_nearest_text():
    """The minus must not be lost: ``?0.03`` is a wrong number."""
    assert "−0.03 ± 0.1 A²Net é … 象".encode("ascii", "ascii") == b"-0.03 +- 0.1 A2Net e ... ?"
    assert "−1 é".encode("latin-1", "ascii") == b"-1 \xe9"
