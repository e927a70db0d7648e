"""The search space of a study that may come from anybody."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path

import search_spaces
from nas.core.errors import ConfigError, HwnasError
from nas.core.records import decoding
from nas.network.space import SearchSpace
from nas.results import RECORD
from nas.results.study import StudyResults
from nas.study.checking import component, import_modules


def recorded_space(study: StudyResults, allow_imports: bool) -> SearchSpace:
    """Return the search space that a study records.

    Args:
        study: The study.
        allow_imports: Whether to import the modules that it names, which runs their code.

    Raises:
        HwnasError: It needs modules that are not imported yet, and `allow_imports` is not given, or
            they lie in its own folder; or its space cannot be read.
    """
    import_modules_of(study, study.record.get("imports", []), allow_imports)
    with decoding(study.path / RECORD):
        settings = dict(study.record["space"])
        base = str(settings.get("base") or "")
    # A search keeps what a function has returned as a folder, so that no function is called here.
    if base and not Path(base).is_dir() and base.rpartition(":")[0] not in search_spaces.names():
        line = f"{study.path / RECORD}: the base {base!r} of its search space is no folder"
        raise HwnasError(f"{line}; restore it from a copy")
    space: SearchSpace = component(search_spaces.registry, settings, "space")
    return space


def import_modules_of(study: StudyResults, modules: Iterable[object], allowed: bool) -> None:
    """Import modules that a study names, which may come from anybody, where that is allowed.

    What this process has imported before, as for its own search, runs nothing anew.

    Raises:
        HwnasError: It is not allowed, or a module lies in the study's own folder.
    """
    missing = [str(name) for name in modules if name not in sys.modules]
    own = study.path.resolve()
    places = {name: _origins(name) for name in missing}
    for name, found in places.items():
        if any(place.is_relative_to(own) for place in found):
            line = f"module {name} is {found[0]}, in the study's own folder, where no code is run"
            raise HwnasError(f"{study.path}: {line}; move it elsewhere if you trust it")
    if missing and not allowed:
        code = ", ".join(
            " ".join([name, *(f"({at})" for at in places[name][:1])]) for name in missing
        )
        line = f"the study's search space needs code that is not of hwnas: {code}"
        fix = "if you trust it, run it with --allow-imports (in Python: allow_imports=True)"
        raise HwnasError(f"{study.path}: {line}; {fix}")
    import_modules(missing)


def _origins(name: str) -> list[Path]:
    """Return where the package of a module would be imported from; nothing is run."""
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
        raise ConfigError("imports", name, "the name of a module")
    spec = PathFinder.find_spec(name.partition(".")[0], [*sys.path, str(Path.cwd())])
    if spec is None:
        return []
    found = [*([spec.origin] if spec.origin else []), *(spec.submodule_search_locations or ())]
    return [Path(place).resolve() for place in found]
