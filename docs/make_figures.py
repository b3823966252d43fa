"""Draw the figures of docs/figures.md: docs/images/pareto.png and claims.png.

python docs/make_figures.py
"""

from pathlib import Path

from PIL import Image

from sdabench.report.figures import claims, pareto
from sdabench.report.figures.style import LIGHT, save

FIGURES = {"pareto": pareto, "claims": claims}
COLORS = 32  # of a file


def write(folder: Path) -> None:
    for name, module in FIGURES.items():
        path = folder / f"{name}.png"
        save(module.draw(module.frame()), path, LIGHT)
        with Image.open(path) as image:
            reduced = image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
        reduced.save(path, optimize=True)


if __name__ == "__main__":
    write(Path(__file__).parent / "images")
