"""The style of figures: sizes of a two-column paper, colors that the color-blind tell apart, light and dark.

Text is drawn as outlines in SVG, because labels that another font widens would overlap. PDF embeds TrueType
fonts, so that text can be searched. Files depend on the data only: they contain no date and no random ids.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from sdabench.claims.verdicts import Outcome
from sdabench.files import atomic_write

Width = Literal["one", "two"]
WIDTHS: dict[Width, float] = {"one": 3.4, "two": 7.0}  # inches: of one and of two columns

SMALL = 6.5  # points, of labels beside marks
LEGEND_ROW, CAPTION_ROW = 0.16, 0.11  # inches
DPI = 300  # of PNG files
# Okabe and Ito's colors (https://jfly.uni-koeln.de/color/); yellow is for dark backgrounds alone.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, YELLOW = "#CC79A7", "#56B4E9", "#F0E442"
MARKERS = "osD^vPX*"
LINES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
HATCHES = ("", "/////", "....", "\\\\\\\\\\", "xxxxx")


class Series(NamedTuple):
    """How one of several series is drawn: its mark, line or hatch tells it apart without its color."""

    color: str
    marker: str
    line: Any
    hatch: str


@dataclass(frozen=True)
class Theme:
    """How a figure is drawn: on a light or dark background, for one or two columns of a page.

    Without ``captions``, the text below a figure is left to the page that shows it.
    """

    dark: bool = False
    columns: Width = "one"
    captions: bool = True

    @property
    def width(self) -> float:
        """Width of the figure in inches."""
        return WIDTHS[self.columns]

    @property
    def background(self) -> str:
        return "#15171b" if self.dark else "#ffffff"

    @property
    def text(self) -> str:
        return "#e7e9ec" if self.dark else "#000000"

    @property
    def secondary(self) -> str:
        """The color of what is secondary, with a contrast of at least 4.5 to 1."""
        return "#a9b0ba" if self.dark else "#6b6b6b"

    @property
    def grid(self) -> str:
        """The color of grids and guides."""
        return "#3a3f46" if self.dark else "#dcdcdc"

    @property
    def accent(self) -> str:
        return SKY if self.dark else BLUE

    @property
    def cycle(self) -> list[str]:
        first, sixth = (SKY, YELLOW) if self.dark else (BLUE, SKY)
        return [first, VERMILION, GREEN, ORANGE, PURPLE, sixth, self.secondary]

    def series(self, place: int) -> Series:
        """Return how the n-th series is drawn: colors repeat after 7, with other marks, lines and hatches."""
        every: tuple[Sequence[Any], ...] = (self.cycle, MARKERS, LINES, HATCHES)
        return Series(*(each[place % len(each)] for each in every))

    @property
    def outcomes(self) -> dict[Outcome, str]:
        """The color of each outcome of a verdict."""
        return {"holds": GREEN, "open": ORANGE, "fails": VERMILION, "unknown": self.secondary}

    @property
    def settings(self) -> dict[Any, Any]:
        """Matplotlib's rcParams; all others are its defaults, whatever the user has configured."""
        return {
            "font.family": "DejaVu Sans",  # which matplotlib ships
            "font.size": 8,
            "axes.titlesize": 8,
            "axes.labelsize": 8,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "legend.fontsize": 7,
            "legend.frameon": False,
            "legend.handlelength": 1.4,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.6,
            "axes.axisbelow": True,
            "grid.linewidth": 0.5,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "lines.linewidth": 1.2,
            "lines.markersize": 4,
            "hatch.linewidth": 0.5,
            "text.parse_math": False,  # a name with two dollar signs is no formula
            "axes.unicode_minus": True,
            "figure.facecolor": self.background,
            "savefig.facecolor": self.background,
            "axes.facecolor": self.background,
            "axes.edgecolor": self.secondary,
            "axes.labelcolor": self.text,
            "text.color": self.text,
            "xtick.color": self.secondary,
            "ytick.color": self.secondary,
            "xtick.labelcolor": self.text,
            "ytick.labelcolor": self.text,
            "grid.color": self.grid,
            "axes.prop_cycle": mpl.cycler(color=self.cycle),  # type: ignore[attr-defined]
            "pdf.fonttype": 42,
            "svg.fonttype": "path",
            "svg.hashsalt": "sdabench",
        }

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Draw in this style; the settings of the program that calls are restored at the end."""
        with mpl.rc_context(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")  # it is drawn as a box
            mpl.rcParams.update(mpl.rcParamsDefault | self.settings)
            yield

    def figure(self, height: float) -> Figure:
        """Make an empty figure, whose axes get the space that their labels leave.

        Args:
            height: in inches, with one line of caption; a legend and further lines add to it.
        """
        figure = Figure(figsize=(self.width, height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)  # type: ignore[union-attr, call-arg]
        FigureCanvasAgg(figure)
        return figure


def fix_layout(figure: Figure) -> Any:
    """Place the axes now and for good; return the renderer that measures texts."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    assert isinstance(figure.canvas, FigureCanvasAgg)
    return figure.canvas.get_renderer()  # type: ignore[no-untyped-call]


def grid(axes: Axes, which: Literal["x", "y", "both"] = "both") -> None:
    axes.grid(axis=which)
    axes.tick_params(length=0)


def logarithmic(axes: Axes) -> None:
    """Make the y-axis logarithmic, with plain numbers at 1, 2 and 5 times the powers of ten."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def legend_mark(text: str, marker: str, color: str, face: str | None = None) -> Line2D:
    """Return the entry of a legend with a mark alone; ``face`` is the color inside it."""
    return Line2D(
        [], [], color=color, marker=marker, markerfacecolor=face or color, linestyle="none", label=text
    )


def text_width(figure: Figure, text: str, size: float) -> float:
    """Return the width of a text of so many points in inches."""
    assert isinstance(figure.canvas, FigureCanvasAgg)
    renderer = figure.canvas.get_renderer()  # type: ignore[no-untyped-call]
    width, _, _ = renderer.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width) / figure.dpi


def legend(figure: Figure, handles: Sequence[Any], theme: Theme) -> None:
    """Write the labels of handles above the axes, in as many columns and lines as they need."""
    size = mpl.rcParams["legend.fontsize"]
    with_lines = any(isinstance(each, Line2D) and each.get_linestyle() != "None" for each in handles)
    length = 2.2 if with_lines else mpl.rcParams["legend.handlelength"]
    texts = [str(each.get_label()) for each in handles]
    widths = [text_width(figure, text, size) for text in texts]
    around = (length + 2) * size / 72  # the handle, and what separates it and the columns
    columns = min(max(int(theme.width / (max(widths) + around)), 1), len(handles))
    room = theme.width - around
    lines = [_broken(figure, text, size, room) for text in texts]
    rows = sum(map(len, lines)) if columns == 1 else -(-len(handles) // columns)
    _grow(figure, LEGEND_ROW * rows)
    figure.legend(
        handles=handles,
        labels=["\n".join(each) for each in lines],
        loc="outside upper left",
        ncols=columns,
        columnspacing=1,
        handlelength=length,
    )


def _broken(figure: Figure, text: str, size: float, room: float) -> list[str]:
    """Break a text into lines that are at most so many inches wide."""
    width = text_width(figure, text, size)
    if width <= room:
        return [text]
    most = min(int(2 * len(text) * room / width), len(text))
    for length in range(most, 0, -1):
        lines = wrap(text, length)
        if all(text_width(figure, line, size) <= room for line in lines):
            break
    return lines


def _grow(figure: Figure, height: float) -> None:
    figure.set_size_inches(figure.get_figwidth(), figure.get_figheight() + height)


def caption(figure: Figure, *sentences: str, theme: Theme) -> None:
    """Write sentences below a figure, broken into lines that fit."""
    text = " ".join(filter(None, sentences))
    if text and theme.captions:
        lines = _broken(figure, text, SMALL, 0.96 * theme.width)
        _grow(figure, CAPTION_ROW * (len(lines) - 1))
        figure.supxlabel("\n".join(lines), fontsize=SMALL, color=theme.secondary, x=0.01, ha="left")


def save(figure: Figure, path: Path, theme: Theme) -> None:
    """Write a figure as SVG, PDF or PNG, by the suffix; equal figures give equal bytes.

    Raises:
        OutputError: the file cannot be written.
    """
    form = path.suffix.lower().removeprefix(".")
    dates: dict[str, dict[str, None]] = {
        "svg": {"Date": None},
        "pdf": {"CreationDate": None},
        "png": {"Software": None},
    }
    with theme.applied(), atomic_write(path, "name another -o") as file:
        figure.savefig(file, format=form, dpi=DPI, metadata=dates[form])


LIGHT = Theme()
