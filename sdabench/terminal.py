"""Print text of unknown origin: names of files, classes and models, messages of servers."""

import codecs
import re
from unicodedata import normalize

import click

ASCII = {"−": "-", "–": "-", "—": "-", "─": "-", "×": "x", "±": "+-", "Δ": "d", "→": "->", "…": "..."}
LONGEST = 2000  # characters of an error
# Control characters, also those of ISO 8859 (C1), and marks that turn text or end lines.
_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNPRINTABLE = re.compile(f"[{_CONTROLS}]")
_SCHEME = r"\b(?:https?:/|[a-z][a-z0-9+.-]{0,20}://)/?"  # also of sources that cannot be fetched: s3, sftp
_USER = re.compile(rf"({_SCHEME})(?!USER:PASSWORD@)[^\s/?#]*@", re.IGNORECASE)
_QUERY = re.compile(rf"({_SCHEME}[^\s?#]*)\?[^\s#]*[^\s#;:,.)']", re.IGNORECASE)


def _ascii(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that a stream cannot encode with the nearest ASCII text, else a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    texts = (ASCII.get(one) or normalize("NFKD", one) for one in error.object[error.start : error.end])
    return "".join(text.encode("ascii", "ignore").decode() or "?" for text in texts), error.end


codecs.register_error("ascii", _ascii)


def printable(text: str) -> str:
    r"""Escape control characters except tabs and newlines, e.g. as ``\x1b``: no text controls a terminal."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def redacted(text: str) -> str:
    """Return text without the users, passwords and queries of the URLs in it, which can be secrets."""
    return _QUERY.sub(r"\1", _USER.sub(r"\1", text))


def error_line(text: str) -> str:
    """Return the text of an error as one printable line without secrets."""
    line = printable(redacted(" ".join(text.split())))
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[:half]} … {line[-half:]}"  # ends with the next step


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print text to stdout or stderr, without control characters."""
    click.echo(printable(text), err=err, nl=nl)


def csv_text(text: str) -> str:
    """Return text for a cell of a CSV file; an apostrophe keeps spreadsheets from running it as a formula."""
    text = printable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\n")) else text
