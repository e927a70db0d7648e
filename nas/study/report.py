"""The page of studies: as a file, or served while a search goes on."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd

import search_spaces
from nas.core.errors import HwnasError
from nas.core.records import decoding
from nas.network.space import SearchSpace
from nas.results import RECORD
from nas.results.page import contents, page, write_page
from nas.results.page.contents import Networks
from nas.results.study import StudyResults
from nas.study.checking import component
from nas.study.export import import_of

HOST = "127.0.0.1"
REFRESH_S = 5.0
TYPES = {"/": "text/html", "/contents.json": "application/json"}


def report(
    studies: Sequence[StudyResults], path_html: Path, *, allow_imports: bool = False
) -> None:
    """Write studies as one HTML file that needs no network.

    Args:
        studies: Drawn in one picture, by the objectives that they have in common.
        path_html: The file.
        allow_imports: Whether to import the modules that the studies name, which runs their code;
            without them, networks of their spaces are not drawn.

    Raises:
        ConfigError: The studies have no objective in common.
        HwnasError: A study cannot be read, or the file cannot be written.

    Example:
        >>> report([nas.open("photos")], Path("photos.html"))  # doctest: +SKIP
    """
    write_page(studies, path_html, [networks_of(study, allow_imports) for study in studies])


def networks_of(study: StudyResults, allow_imports: bool) -> Networks:
    """Return what the search space of a study says about the networks of its fronts.

    Where the space cannot be had, the result says why.
    """
    try:
        import_of(study, allow_imports)
        with decoding(study.path / RECORD):
            settings = study.record["space"]
        space: SearchSpace = component(search_spaces.registry, settings, "space")
        front = pd.concat([study.pareto(), study.pareto(objectives=list(study.columns.values()))])
        graphs = {
            arch_id: space.graphs(genotype)
            for arch_id, genotype in zip(front["arch_id"], front["genotype"], strict=True)
            if space.architecture(genotype).arch_id == arch_id
        }
    except HwnasError as error:
        return Networks(why_not=f"Not drawn: {error}")
    if len(graphs) < front["arch_id"].nunique():
        return Networks(why_not="Not drawn: the search space is another one now.")
    return Networks(genes=space.genes, graphs=graphs)


def serve(studies: Sequence[StudyResults], port: int, *, allow_imports: bool = False) -> Any:
    """Return a server of the page of studies, for this machine alone; it reads, and writes nothing.

    Args:
        studies: As of `report`.
        port: 0 for any.
        allow_imports: As of `report`.

    Returns:
        A `http.server.ThreadingHTTPServer`, whose `serve_forever` answers.

    Raises:
        OSError: The port cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = self.headers.get("Host", "").rpartition(":")[0]
            # A page of elsewhere may have its own name stand for this machine.
            if self.path not in TYPES or host not in (HOST, "localhost"):
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            networks = [networks_of(study, allow_imports) for study in studies]
            make = page if self.path == "/" else contents
            try:
                body = make(studies, networks, REFRESH_S).encode()
            except HwnasError as error:
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, explain=str(error))
                return
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", f"{TYPES[self.path]}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Print nothing."""

    return ThreadingHTTPServer((HOST, port), Handler)
