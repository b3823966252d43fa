"""MkDocs hooks: pages made from files at the top of the repository, and the help of all commands."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from sdabench.cli import cli

TOP = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
STATIC = ("CITATION.cff", "LICENSE", "examples/tour.ipynb")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(TOP / source).read_text()))
    for name in STATIC:
        files.append(File.generated(config, name, content=(TOP / name).read_text()))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Insert the help pages, and make links that work on GitHub work on the site, which is one folder."""
    markdown = markdown.replace("<!-- commands -->", "\n".join(help_pages(cli, ())))
    markdown = re.sub(r"\]\((?:docs|\.\.)/", "](", markdown)
    for source, page in PAGES.items():
        markdown = re.sub(rf"\]\({re.escape(source)}(?=[)#])", f"]({page}", markdown)
    return markdown


def on_page_content(content: str, **_: object) -> str:
    """Drop the roles of reStructuredText, as in :func:`name`, from docstrings."""
    return re.sub(r":(?:class|func|meth|mod|attr|data):(?=<code>)", "", content)


def help_pages(command: click.Command, path: tuple[str, ...]) -> Iterator[str]:
    """Print what ``--help-all``, or ``--help``, prints for a command and its subcommands.

    mkdocs-click would leave out the groups of options, the examples and the exit codes.
    """
    every = any("--help-all" in parameter.opts for parameter in command.params)
    result = CliRunner().invoke(cli, [*path, "--help-all" if every else "--help"], prog_name="sdabench")
    yield f"## {' '.join(('sdabench', *path))}\n\n```text\n{result.stdout}```\n"
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from help_pages(child, (*path, name))
