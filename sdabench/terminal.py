"""Write text of unknown origin to a terminal: names of files, classes and models, messages of servers."""

import re

# Control characters, also those of ISO 8859 (C1), and marks that turn text or end lines.
_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNPRINTABLE = re.compile(f"[{_CONTROLS}]")


def printable(text: str) -> str:
    r"""Escape control characters except tabs and newlines, e.g. as ``\x1b``: no text controls a terminal."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
