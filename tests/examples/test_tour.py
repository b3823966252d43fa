"""The notebook of the documentation runs offline, and its page shows it."""

import json
import runpy

import pytest

from tests.helpers.paths import CHECKOUT

NOTEBOOK = CHECKOUT / "examples" / "tour.ipynb"
SECONDS = 120  # on two cores


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Run the notebook in a process of its own, without a network; return the output of each code cell."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDABENCH_OFFLINE", "1")
        patch.setenv("PYTHONPATH", str(CHECKOUT))
        folder = tmp_path_factory.mktemp("tour")
        nbclient.NotebookClient(
            notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}
        ).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell.outputs[-1].get("data", {}) if cell.outputs else {} for cell in cells]


@pytest.mark.filterwarnings("default")  # of Jupyter's own packages
def test_the_notebook_runs_and_shows_its_results(outputs):
    text = "\n".join(data.get("text/plain", "") for data in outputs)
    assert "'params': 10762" in text  # 128 * 8 * 9 + 2 * 128 + 128 * 10 + 10
    assert "27219880" in text
    assert "sda_pyconv86" in text
    assert any("image/png" in data for data in outputs)


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_the_page_shows_the_notebook():
    """Update the page with its outputs and figure: ``python docs/make_tour.py``."""
    assert (
        runpy.run_path(str(CHECKOUT / "docs/make_tour.py"))["page"]()
        == (CHECKOUT / "docs/tour.md").read_text()
    )
