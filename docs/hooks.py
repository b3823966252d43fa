"""MkDocs hooks: pages made from files at the top of the repository, and links between the two places."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

TOP = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
STATIC = ("CITATION.cff", "LICENSE")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(TOP / source).read_text()))
    for name in STATIC:
        files.append(File.generated(config, name, content=(TOP / name).read_text()))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Make links that work on GitHub work on the site, where all pages are in one folder."""
    markdown = re.sub(r"\]\((?:docs|\.\.)/", "](", markdown)
    for source, page in PAGES.items():
        markdown = re.sub(rf"\]\({re.escape(source)}(?=[)#])", f"]({page}", markdown)
    return markdown
