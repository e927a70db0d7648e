"""Settings of the documentation's site: `make docs` writes it to `build/docs`."""

import re
from pathlib import Path

from sphinx.application import Sphinx

LINK = re.compile(r"(?<!!)\[([^]]+)\]\(([^)#:]+)\)")

project = "hwnas"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "docs/*.md",
    "nas/*/README.md",
    "search_spaces/README.md",
    "experiments/*/README.md",
]
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
html_theme = "furo"
html_title = "hwnas"


def link_pages_alone(app: Sphinx, name: str, source: list[str]) -> None:
    """Replace links to folders, and to Markdown files outside of the site, by their text."""
    here = Path(app.srcdir, name).parent

    def linked(found: re.Match[str]) -> str:
        text, target = found.groups()
        path = (here / target).resolve()
        page = path.relative_to(app.srcdir).with_suffix("").as_posix() in app.env.found_docs
        unknown = path.is_dir() or (path.suffix == ".md" and path.is_file() and not page)
        return text if unknown else found[0]

    source[0] = LINK.sub(linked, source[0])


def setup(app: Sphinx) -> None:
    """Add to Sphinx what is above."""
    app.connect("source-read", link_pages_alone)
