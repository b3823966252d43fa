"""Run examples/tour.ipynb, and convert it with its outputs to docs/tour.md and docs/images/tour.png.

python docs/make_tour.py
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from sdabench.report.figures.style import LIGHT, save

TOP = Path(__file__).parents[1]
NOTEBOOK, PAGE = TOP / "examples" / "tour.ipynb", TOP / "docs" / "tour.md"
IMAGE = "images/tour.png"
NOTE = "The notebook is [examples/tour.ipynb](../examples/tour.ipynb); a test runs it."


def page(draw: bool = False) -> str:
    """Return the text of the notebook, its code and its outputs; with ``draw``, write the image."""
    return "\n\n".join([*_parts(draw), NOTE]) + "\n"


def _parts(draw: bool) -> Iterator[str]:
    names: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source
            continue
        yield f"```python\n{source}\n```"
        value = _run(source, names)
        if isinstance(value, Figure):
            yield f"![The figure that this cell draws]({IMAGE})"
            if draw:
                save(value, PAGE.parent / IMAGE, LIGHT)
        elif isinstance(value, pd.DataFrame):
            value = value.replace(-0.0, 0.0)  # a small negative difference, rounded
            yield value.astype(object).where(value.notna(), "-").to_markdown()
        elif value is not None:
            yield f"```text\n{value}\n```"


def _run(source: str, names: dict[str, Any]) -> object:
    """Run a cell without its magic commands; return the value of its last expression."""
    tree = ast.parse("\n".join(line for line in source.splitlines() if not line.startswith("%")))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, NOTEBOOK.name, "exec"), names)
    return eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names) if last else None


if __name__ == "__main__":
    PAGE.write_text(page(draw=True))
