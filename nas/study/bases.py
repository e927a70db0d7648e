"""The trained network that a search space changes, as a configuration names it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import search_spaces
from nas.core.errors import ConfigError, HwnasError
from nas.core.records import decoding, read_json
from nas.core.task import Task
from nas.network.space import SearchSpace
from nas.results import RECORD
from nas.study.checking import import_modules
from nas.study.settings import GeneralSettings

SETTING = "search_space.base"
RECORDS = ("network.json", "architecture.json")
"""What lies beside the weights of a verified network, and in an export."""

BASES = "bases"
"""Folder beside the studies in which traced networks are kept, each in one of its own."""

SHOWN = 10
"""Classes that a message names."""

TOLERANCE = 0.02
"""Difference of a mean or deviation of pixels by which images are normalised in another way."""


def with_base(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose search space can load its base by itself.

    The network of a study is replaced by its folder, and a folder by its full path; the module of a
    function is imported.

    Raises:
        ConfigError: The study has no such verified network, or the module cannot be imported.
    """
    space = values.get("search_space") or {}
    base = space.get("base")
    before, _, after = str(base or "").rpartition(":")
    if base and (folder := Path(str(base)).expanduser()).is_dir():
        return {**values, "search_space": {**space, "base": str(folder.resolve())}}
    if not before or not after:
        return dict(values)
    from nas.results.study import PICKS  # loads pandas, for which a wrong setting need not wait

    runs = Path(values.get("runs") or GeneralSettings.runs).expanduser()
    folders = (Path(before).expanduser(), runs / before)
    if after in PICKS or any((path / RECORD).is_file() for path in folders):
        # They load PyTorch, for which a wrong setting need not wait.
        from nas import results
        from nas.study.export import verified

        try:
            folder, _ = verified(results.open_study(before, runs), after)
        except HwnasError as error:
            expected = "a verified network of a study"
            raise ConfigError(SETTING, base, expected, str(error)) from error
        return {**values, "search_space": {**space, "base": str(folder.resolve())}}
    if before not in search_spaces.names():
        import_modules([before], SETTING)
    return dict(values)


def check_base(
    space: SearchSpace, task: Task, mean: tuple[float, ...], std: tuple[float, ...]
) -> str | None:
    """Check that the outputs of a base mean what those of the task do, where it says so.

    Args:
        space: Which may have a base.
        task: Of the data.
        mean: Of the training images' channels, by which images are normalised.
        std: Their standard deviation.

    Returns:
        A line that says that the base has seen images normalised in another way; else `None`.

    Raises:
        ConfigError: Its outputs are others.
    """
    folder = Path(str(getattr(space, "base", ""))).expanduser()
    record = next((folder / name for name in RECORDS if (folder / name).is_file()), None)
    if record is None:
        return None
    facts = read_json(record, {"outputs": list, "preprocessing": dict})
    outputs = tuple(facts["outputs"])
    if outputs != task.output_names:
        listed = ", ".join(task.output_names[:SHOWN])
        fix = f"its classes are {', '.join(map(str, outputs[:SHOWN]))}"
        raise ConfigError(SETTING, str(folder), f"a network with the classes {listed}", fix)
    with decoding(record):
        before = [*facts["preprocessing"]["mean"], *facts["preprocessing"]["std"]]
        now = [*mean, *std]
        apart = max(abs(a - b) for a, b in zip(before, now, strict=True))
    if apart <= TOLERANCE:
        return None
    line = "has seen images normalised in another way, and needs some epochs of training"
    return f"{SETTING}: {line} (mean and deviation {_numbers(before)}, here {_numbers(now)})"


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
