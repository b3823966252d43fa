"""Draw the figures of docs/figures.md: docs/images/pareto.svg and claims.svg.

python docs/make_figures.py
"""

from pathlib import Path

from sdabench.report.figures import claims, pareto
from sdabench.report.figures.style import LIGHT, save

IMAGES = Path(__file__).parent / "images"


def write(folder: Path) -> None:
    save(pareto.draw(pareto.frame()), folder / "pareto.svg", LIGHT)
    save(claims.draw(claims.frame()), folder / "claims.svg", LIGHT)


if __name__ == "__main__":
    write(IMAGES)
