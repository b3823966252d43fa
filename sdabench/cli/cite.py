"""``sdabench cite``."""

import click

from sdabench.cli.help import Command
from sdabench.cli.options import Patterns
from sdabench.cli.parameters import declared
from sdabench.errors import UsageError
from sdabench.registry import load_registry
from sdabench.terminal import echo

EPILOG = """\b
Examples:
  sdabench cite sda_senet86 > papers.bib
  sdabench cite '*gcnet50' resnet50
  sdabench cite
"""


@click.command("cite", cls=Command, epilog=EPILOG)
@declared
def command(
    patterns: Patterns,
) -> None:  # fmt: skip
    """Print the BibTeX entries of the papers behind networks.

    PATTERNS are names or wildcards. Without any, the entry of the SDA-xNet paper is printed. Of a network by
    source, such as timm:NAME, the library is cited.
    """
    registry = load_registry()
    names = registry.select(patterns)
    papers = [paper for name in names for paper in registry.papers_of(name)]
    if names and not papers:
        raise UsageError(f"sdabench knows no paper of '{names[0]}'; cite its authors")
    papers = papers or [registry.paper]
    echo("\n\n".join(dict.fromkeys(paper.bibtex for paper in papers)))
