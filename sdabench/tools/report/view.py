"""Render the page as one HTML file that needs no other file and no network."""

import json
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sdabench.report.render import plain
from sdabench.tools.report.answer import MEANINGS, OUTCOMES
from sdabench.tools.report.charts import THEME, library, themes
from sdabench.tools.report.page import Page

MARKS = {"holds": "✓", "open": "?", "fails": "✗", "unknown": "–"}  # no outcome is shown by color alone


def to_html(page: Page) -> str:
    """Render the page.

    Every text is escaped, and control characters are spelled out. The content security policy allows this
    page's own style sheet and scripts, by their digests, images that are part of the page, and nothing else.
    """
    environment = Environment(
        loader=PackageLoader("sdabench.tools.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    charts = [*page.charts, *(chart for section in page.runs for chart in section.charts if chart.specs)]
    bars = "".join(f"--bar-{name}: {color}; " for name, color in THEME.outcomes.items() if name != "unknown")
    style, scripts = f":root {{ {bars}}}\n{_source('page.css')}", [_source("page.js")]
    if charts:
        scripts += [library(), _source("charts.js")]
    return environment.get_template("page.html").render(
        page=page,
        policy=_policy(style, scripts),
        style=Markup(style),
        scripts=[Markup(each) for each in scripts],
        specs=Markup(_json({chart.id: chart.specs for chart in charts})),
        themes=Markup(_json(themes())),
        marks=MARKS,
        outcomes=OUTCOMES,
        meanings=MEANINGS,
    )


def _json(value: Any) -> str:
    """Format JSON for a script element, which no text in it can end."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _printable(value: Any) -> Any:
    """Escape control characters of a text, and spell its mathematics; leave rendered HTML unchanged."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _source(name: str) -> str:
    return files("sdabench.tools.report").joinpath("templates", name).read_text(encoding="utf-8")


def _policy(style: str, scripts: list[str]) -> str:
    allowed = " ".join(map(_digest, scripts))
    return (
        f"default-src 'none'; style-src {_digest(style)}; script-src {allowed}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
