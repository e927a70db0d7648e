"""The trained network that a search space changes, as a configuration names it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import search_spaces
from nas.core.errors import ConfigError, HwnasError
from nas.results import RECORD
from nas.study.settings import GeneralSettings

SETTING = "search_space.base"


def with_base(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose search space can load its base by itself.

    The network of a study is replaced by its folder; the module of a function is among `imports`.

    Raises:
        ConfigError: The study has no such verified network.
    """
    space = values.get("search_space") or {}
    base = space.get("base")
    before, _, after = str(base or "").rpartition(":")
    if not before or not after:
        return dict(values)
    runs = Path(values.get("runs") or GeneralSettings.runs).expanduser()
    if any((path / RECORD).is_file() for path in (Path(before).expanduser(), runs / before)):
        # They load PyTorch, for which a wrong setting need not wait.
        from nas import results
        from nas.study.export import verified

        try:
            folder, _ = verified(results.open_study(before, runs), after)
        except HwnasError as error:
            expected = "a verified network of a study"
            raise ConfigError(SETTING, base, expected, str(error)) from error
        return {**values, "search_space": {**space, "base": str(folder.resolve())}}
    imports = list(values.get("imports") or [])
    if before not in search_spaces.names() and before not in imports:
        imports.append(before)
    return {**values, "imports": imports}
