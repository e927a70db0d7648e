"""Studies as one HTML file that needs no network: fronts, progress, predictors, choices, costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from nas.core.errors import ConfigError
from nas.core.files import write_bytes_atomically
from nas.core.records import decoding
from nas.results import RECORD
from nas.results.page.contents import Networks, study_contents
from nas.results.study import StudyResults, distinct_names


def write_page(
    studies: Sequence[StudyResults], path_html: Path, networks: Sequence[Networks]
) -> None:
    """Write `page` to a file.

    Raises:
        HwnasError: A study cannot be read, or the file cannot be written.
    """
    write_bytes_atomically(path_html, page(studies, networks).encode())


def page(
    studies: Sequence[StudyResults], networks: Sequence[Networks], refresh_s: float = 0.0
) -> str:
    """Return studies as an HTML page.

    Args:
        studies: Drawn in one plot, with the objectives that they have in common.
        networks: Of the front of each study.
        refresh_s: Seconds between two times that the page asks its server for `contents_json`; 0
            where it has no server.

    Raises:
        ConfigError: The studies have no objective in common.
        HwnasError: A study cannot be read.
    """
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    own = files(__package__)
    style, script, template = (
        (own / f"page.{ending}").read_text(encoding="utf-8") for ending in ("css", "js", "html")
    )
    return (
        Environment(autoescape=True, undefined=StrictUndefined)
        .from_string(template)
        .render(
            title=", ".join(distinct_names(studies)),
            style=style,
            plotly=get_plotlyjs(),
            script=script,
            contents=contents_json(studies, networks, refresh_s),
        )
    )


def contents_json(
    studies: Sequence[StudyResults], networks: Sequence[Networks], refresh_s: float = 0.0
) -> str:
    """Return what a page shows, as JSON that may stand in a script element; see `page`."""
    first, *others = studies
    for study in others:
        if not set(first.columns) & set(study.columns):
            got, expected = ", ".join(study.columns), f"one of {', '.join(first.columns)}"
            raise ConfigError(f"objectives of {study.name}", got, expected)
    shown = []
    for study, name, own in zip(studies, distinct_names(studies), networks, strict=True):
        with decoding(study.path / RECORD):
            shown.append(study_contents(study, name, own))
    whole = {"studies": shown, "refresh_s": refresh_s}
    return json.dumps(whole, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
