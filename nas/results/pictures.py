"""Files of pictures."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from nas.core.errors import ConfigError
from nas.core.files import write_bytes_atomically

FORMATS = (".png", ".svg", ".pdf")


def write_picture(figure: Figure, path: Path) -> None:
    """Write a figure into a file, whose suffix says how: one of `FORMATS`.

    Texts of an SVG stay texts, and equal figures give equal files.

    Raises:
        ConfigError: The suffix is another one.
        HwnasError: The file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError("--out", str(path), f"a file that ends with {', '.join(FORMATS)}")
    dated = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[suffix]
    picture = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "hwnas"}):
        figure.savefig(picture, format=suffix[1:], metadata=dated)
    write_bytes_atomically(path, picture.getvalue())
