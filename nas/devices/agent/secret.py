"""The token that a client and an agent share."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nas.core.errors import ConfigError, HwnasError

VARIABLE = "HWNAS_TOKEN"
_FORM = re.compile(r"[!-~]{16,256}")


def read_token(token_file: str | None) -> str | None:
    """Return the token in a file, else the one in the environment, else `None`.

    No message repeats what was read, because it is a secret or part of one.

    Raises:
        ConfigError: The file cannot be read.
        HwnasError: What was found cannot be a token.
    """
    if token_file is None:
        source, token = VARIABLE, os.environ.get(VARIABLE)
    else:
        source = token_file
        try:
            token = Path(token_file).expanduser().read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            cause = error.strerror if isinstance(error, OSError) else "not text"
            expected = f"a file that holds the agent's token ({cause})"
            raise ConfigError("token_file", token_file, expected) from None
    if token is not None and not _FORM.fullmatch(token):
        expected = "16 to 256 letters, digits and signs, no spaces"
        raise HwnasError(f"{source}: got something else, expected a token: {expected}")
    return token
