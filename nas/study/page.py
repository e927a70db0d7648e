"""The page of studies: as a file, or served while a search goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd

from nas.core.errors import ConfigError, HwnasError
from nas.results.page import contents_json, page, write_page
from nas.results.page.contents import Networks
from nas.results.study import StudyResults
from nas.study.recorded_space import recorded_space

HOST = "127.0.0.1"
REFRESH_S = 5.0
TYPES = {"/": "text/html", "/contents.json": "application/json"}


def report(
    studies: Sequence[StudyResults], path_html: Path, *, allow_imports: bool = False
) -> None:
    """Write studies as one HTML file that needs no network.

    Args:
        studies: Drawn in one plot, with the objectives that they have in common.
        path_html: The file.
        allow_imports: Whether to import the modules that the studies name, which runs their code;
            without them, networks of their spaces are not drawn.

    Raises:
        ConfigError: The studies have no objective in common.
        HwnasError: A study cannot be read, or the file cannot be written.

    Example:
        >>> report([nas.open("photos")], Path("photos.html"))  # doctest: +SKIP
    """
    write_page(studies, path_html, [Drawer(allow_imports).networks(study) for study in studies])


class Drawer:
    """Asks the search space of a study for the networks of its fronts, and keeps the answers."""

    def __init__(self, allow_imports: bool) -> None:
        self._allow_imports = allow_imports
        self._known: dict[Path, tuple[frozenset[str], Networks]] = {}

    def networks(self, study: StudyResults) -> Networks:
        """Return the networks of a study's fronts, or why they cannot be had."""
        front = pd.concat([study.pareto(), study.pareto(objectives=list(study.columns.values()))])
        front = front.drop_duplicates("arch_id")
        members = frozenset(front["arch_id"])
        before, networks = self._known.get(study.path, (None, Networks()))
        if before != members:
            networks = self._asked(study, front)
            self._known[study.path] = members, networks
        return networks

    def _asked(self, study: StudyResults, front: pd.DataFrame) -> Networks:
        try:
            space = recorded_space(study, self._allow_imports)
        except HwnasError as error:
            return Networks(why_not=f"Not drawn: {error}")
        members = dict(zip(front["arch_id"], front["genotype"], strict=True))
        if any(space.architecture(own).arch_id != arch_id for arch_id, own in members.items()):
            return Networks(why_not="Not drawn: the code of the search space has changed.")
        graphs = {arch_id: space.graphs(genotype) for arch_id, genotype in members.items()}
        return Networks(genes=space.genes, graphs=graphs)


def serve(
    opened: Callable[[], Sequence[StudyResults]], port: int, *, allow_imports: bool = False
) -> ThreadingHTTPServer:
    """Return a server of the page of studies, for this machine alone; it reads, and writes nothing.

    Args:
        opened: Opens the studies; called for every answer.
        port: 0 for any.
        allow_imports: As of `report`.

    Returns:
        A server, whose `serve_forever` answers.

    Raises:
        ConfigError: The port cannot be had.
    """
    drawer, answering = Drawer(allow_imports), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = self.headers.get("Host", "").rpartition(":")[0]
            # A page of elsewhere may have its own name stand for this machine.
            if self.path not in TYPES or host not in (HOST, "localhost"):
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            make = page if self.path == "/" else contents_json
            try:
                with answering:
                    studies = opened()
                    body = make(studies, list(map(drawer.networks, studies)), REFRESH_S).encode()
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

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise ConfigError("--port", port, "a free port, or 0 for any", str(error)) from error
