"""Draw docs/images/audit.svg: the summary that ``sdabench audit`` prints on a terminal.

python docs/make_images.py
"""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

WIDTH = 112  # characters
IMAGE = Path(__file__).parent / "images/audit.svg"


def colored(*arguments: str) -> str:
    """Return what a command prints on a terminal with colors."""
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "sdabench", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def draw(text: Text, title: str) -> str:
    """Draw a light terminal window; the reader's machine supplies the fonts."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(text)
    svg = console.export_svg(title=title, theme=DEFAULT_TERMINAL_THEME, unique_id="audit")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("rgba(255,255,255,0.35)", "rgba(0,0,0,0.35)")  # the border, on a light page
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


if __name__ == "__main__":
    summary = colored("audit").rstrip("\n").rpartition("\n\n")[2]
    IMAGE.write_text(draw(Text.from_ansi(summary), "sdabench audit"))
