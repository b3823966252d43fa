"""Convert examples/tour.ipynb to docs/tour.md.

python docs/make_tour.py
"""

import json
from pathlib import Path

TOP = Path(__file__).parents[1]
NOTEBOOK, PAGE = TOP / "examples" / "tour.ipynb", TOP / "docs" / "tour.md"
NOTE = "The notebook is [examples/tour.ipynb](../examples/tour.ipynb); a test runs it."


def page() -> str:
    """Return the text of the notebook and its code, without outputs."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    texts = [
        source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
        for cell in cells
        if (source := "".join(cell["source"]))
    ]
    return "\n\n".join([*texts, NOTE]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
