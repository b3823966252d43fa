"""Report pages, made once, and a headless Chromium."""

import shutil

import pytest

from sdabench.tools.report.page import make_page
from sdabench.tools.report.view import to_html


@pytest.fixture(scope="session")
def shipped_html():
    """The page of the records in ``results/``."""
    return to_html(make_page([]))


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium of the system; the tests are skipped without one."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as api:
        running = api.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()
