"""`nas device serve`: lend this machine to searches that run elsewhere."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction

_OWN_HOSTS = ("127.0.0.1", "::1", "localhost")

DESCRIPTION = """\
Lend this machine to searches that run elsewhere, one at a time; they measure with
`device=remote device.address=HOST:PORT`. The token comes from the file of --token-file, or from
the variable HWNAS_TOKEN; where neither is given, a new one is printed. It travels in clear: listen
at 127.0.0.1 behind an SSH tunnel, or in a network that you trust.
"""


def add_serve(kinds: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command's arguments to the `device` group."""
    serve = kinds.add_parser("serve", help="lend this machine to searches", description=DESCRIPTION)
    serve.add_argument("--host", default="127.0.0.1", help="to listen at (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=7000, help="to listen at (default: 7000)")
    serve.add_argument("--token-file", metavar="FILE", help="that holds the token")
    # The defaults are those of `Limits`, which is not loaded for a help text.
    limits = {
        "model-mb": "largest size of one network's file",
        "folder-mb": "largest size of all files of a lease",
        "job-seconds": "longest time of one job",
        "lease-seconds": "silence after which a client loses the board",
        "result-seconds": "for which the result of a silent client is kept",
    }
    for name, text in limits.items():
        serve.add_argument(f"--{name}", type=float, help=text, metavar="NUMBER")


def serve(parsed: argparse.Namespace) -> int:
    """Serve until the process is interrupted or told to end; return the exit status.

    Raises:
        HwnasError: The token cannot be used, or there is no listening at that address.
    """
    import secrets

    from nas.core.errors import ConfigError
    from nas.devices.agent.protocol import Limits
    from nas.devices.agent.secret import read_token
    from nas.devices.agent.server import Agent

    token = read_token(parsed.token_file)
    names = ("model_mb", "folder_mb", "job_seconds", "lease_seconds", "result_seconds")
    given = {name: getattr(parsed, name) for name in names}
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    if not 0 <= parsed.port < 1 << 16:
        raise ConfigError("--port", parsed.port, "0 to 65535")
    if parsed.host not in _OWN_HOSTS:
        _log(f"listening at {parsed.host}: the token travels in clear, trust that network")
    if token is None:
        token = secrets.token_urlsafe(32)
        sys.stdout.write(f"HWNAS_TOKEN={token}\n")
    signal.signal(signal.SIGTERM, _stop)
    with Agent(parsed.host, parsed.port, token, limits, _log) as agent:
        host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
        sys.stdout.write(f"serving at {host}:{agent.port}\n")
        sys.stdout.flush()
        try:
            agent.serve()
        except KeyboardInterrupt:
            _log("interrupted")
    return 0


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    raise SystemExit(0)


def _log(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
