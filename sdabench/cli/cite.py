"""``sdabench cite``."""

import click

from sdabench.cli.options import ModelName
from sdabench.registry import load_registry

EPILOG = """\b
Examples:
  sdabench cite sda_senet86 > papers.bib
  sdabench cite '*gcnet50' resnet50
  sdabench cite
"""


@click.command("cite", epilog=EPILOG)
@click.argument("patterns", nargs=-1, type=ModelName())
def command(patterns: tuple[str, ...]) -> None:
    """BibTeX of the papers behind networks, each once.

    PATTERNS are names or wildcards; without any it is the paper whose claims are checked here.
    """
    registry = load_registry()
    names = registry.select(patterns)
    papers = [paper for name in names for paper in registry.papers_of(name)] or [registry.paper]
    click.echo("\n\n".join(dict.fromkeys(paper.bibtex for paper in papers)))
