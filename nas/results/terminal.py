"""Where tables are printed and progress is shown."""

from __future__ import annotations

import sys
from typing import TextIO, cast

from rich.console import Console

from nas.core.output import Output

PLAIN_WIDTH = 250
"""Columns of the output where it is no terminal: wider than any table, so that none wraps."""


def console() -> Console:
    """Return a console for standard output; without a terminal it writes plain lines."""
    # Rich would end the process at a closed pipe.
    out = sys.stdout if isinstance(sys.stdout, Output) else Output(sys.stdout)
    plain = Console(file=cast("TextIO", out))
    return plain if plain.is_terminal else Console(file=plain.file, width=PLAIN_WIDTH)
