"""Studies from Python, with the settings of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas import data as data_sets
from nas import results
from nas.core.errors import ConfigError, UnknownNameError
from nas.results.study import StudyResults

if TYPE_CHECKING:
    from torch import nn

    from nas.study.reporting import Reporter
    from nas.study.settings import StudySettings

Component = str | Mapping[str, Any]
"""Name of a component, or its name and settings: `{"name": "cpu", "threads": 2}`."""


class Study(StudyResults):
    """A study: its trials, its Pareto front, and its networks for export."""

    def export(
        self, pick: str = "knee", out: str | Path = "out", **settings: Any
    ) -> tuple[Path, float]:
        """Write a verified network as files that depend on nothing of this project.

        Args:
            pick: `knee`, `best`, `fastest`, a condition such as "latency_ms_measured < 1", a goal
                such as "error_final < 10, min latency_ms", or an `arch_id`.
            out: Folder: new, empty or a former export.
            **settings: Others of `nas.study.export.export`.

        Returns:
            The folder, and the largest absolute difference between PyTorch and ONNX Runtime.
        """
        from nas.study.export import export

        return export(self, pick, Path(out), **settings)


def open(path_or_name: str | Path, runs: str | Path = "runs") -> Study:  # noqa: A001
    """Open a study.

    Args:
        path_or_name: The study's folder, or its name.
        runs: Folder that holds the studies.

    Raises:
        HwnasError: There is no such study, or its `study.json` cannot be read.
    """
    return Study(results.open_study(path_or_name, runs).path)


def search(
    *,
    space: Component | None = None,
    data: Component | Path | None = None,
    device: Component | None = None,
    objectives: Sequence[str] | None = None,
    constraints: Sequence[str] | None = None,
    evaluations: int | None = None,
    budget: str | None = None,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Study:
    """Search as `nas search` does with the same settings, or go on with a search.

    Args:
        space: `search_space` of the command line.
        data: Name of a data set, or a path: a folder of images (`data=image_folder`), an `.npz`
            file (`data=npz`) or a table of images (`data=csv`).
        device: What latency is measured on.
        objectives: `search.objectives`, such as `["error", "latency_ms"]`.
        constraints: `search.constraints`, such as `["latency_ms <= 2"]`.
        evaluations: `search.evaluations`: full trainings at which the search ends.
        budget: Time of the whole study, such as `"15min"`, `"2h"` or `"8core-h"`.
        name: Of the study; its folder is `runs/NAME`. A study of that name goes on.
        settings: Other settings by their names: `{"data.image_size": 64, "runs": "/tmp/runs"}`.
        overrides: As on the command line: `["experiment=quickstart", "search=nsga2"]`.
        config_dir: Folder of your own configurations.
        reporter: Told of the progress; prints it unless another one is given.

    Returns:
        The study; its front is verified, and `export` writes the networks of it.

    Raises:
        HwnasError: A setting cannot be used; names it, what it got and what was expected.

    Example:
        >>> import nas
        >>> study = nas.search(
        ...     space="mobilenet", data="photos", evaluations=96, name="photos",
        ...     settings={"data.image_size": 64},
        ... )  # doctest: +SKIP
        >>> study.pareto(where="latency_ms_measured < 2")  # doctest: +SKIP
        >>> study.export("knee", "out/photos")  # doctest: +SKIP
    """
    given = {
        "name": name,
        "search.objectives": objectives,
        "search.constraints": constraints,
        "search.evaluations": evaluations,
        "budget": budget,
    }
    given = {key: value for key, value in given.items() if value is not None}
    checked = _read(space, data, device, {**given, **(settings or {})}, overrides, config_dir)
    # Ray and PyTorch take seconds to load, so a setting that cannot be used is refused before.
    from nas.study.run import run

    return Study(run(checked, reporter).path, checked.ledger_url)


def compress(
    base: nn.Module | str | Path,
    *,
    weights: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    **others: Any,
) -> Study:
    """Make a trained network smaller and faster, as `nas compress` does.

    Args:
        base: A module, which is traced and kept in `RUNS/bases`; or `search_space.base` of the
            command line: `MODULE:FUNCTION`, `STUDY:PICK`, `SPACE:NAME` or a folder.
        weights: A safetensors file with the weights of `MODULE:FUNCTION` or `SPACE:NAME`.
        settings: As of `nas.search`.
        overrides: As of `nas.search`; `experiment=compression` is among them.
        **others: Other arguments of `nas.search`, but `space`.

    Returns:
        The study, as of `nas.search`.

    Raises:
        HwnasError: A setting cannot be used, or the module cannot be traced.

    Example:
        >>> study = nas.compress(module, data="photos", name="small")  # doctest: +SKIP
    """
    if "space" in others:
        raise ConfigError("space", others["space"], "none, as nas.compress searches its own")
    chosen = ["experiment=compression", *overrides]
    given = {"search_space.base_weights": str(weights)} if weights is not None else {}
    given |= dict(settings or {})
    if isinstance(base, str | Path):
        given["search_space.base"] = str(base)
    elif isinstance(base, type) or not hasattr(
        base, "named_parameters"
    ):  # told without loading PyTorch
        expected = "a torch.nn.Module, or what search_space.base may be"
        raise ConfigError("base", type(base).__name__, expected)
    else:
        given["search_space.base"] = _traced(base, given, chosen, others)
    return search(settings=given, overrides=chosen, **others)


def _read(
    space: Component | None,
    data: Component | Path | None,
    device: Component | None,
    given: Mapping[str, Any],
    overrides: Sequence[str],
    config_dir: str | Path | None,
) -> StudySettings:
    """Compose and check a configuration."""
    from nas.study.composition import compose
    from nas.study.reading import read

    choices: list[str] = []
    values: dict[str, Any] = {}
    for group, component in (("search_space", space), ("data", _data(data)), ("device", device)):
        if component is None:
            continue
        named = {"name": component} if isinstance(component, str) else component
        fields = dict(named) if isinstance(named, Mapping) else {}
        if "name" not in fields:
            raise ConfigError(group, component, "a name, or settings with a name")
        choices.append(f"{group}={fields.pop('name')}")
        values |= {f"{group}.{field}": value for field, value in fields.items()}
    values |= given
    folder = None if config_dir is None else Path(config_dir)
    # The overrides begin, so that an experiment's choices give way to the arguments.
    config = compose([*overrides, *choices], config_dir=folder, settings=values)
    try:
        return read(config)
    except UnknownNameError as error:
        if error.argument == data_sets.registry.kind and isinstance(data, str):
            expected = "a folder of images, a .csv or .npz file that exists, or one of "
            raise ConfigError("data", data, expected + ", ".join(data_sets.names())) from error
        raise


def _traced(
    module: nn.Module,
    settings: Mapping[str, Any],
    overrides: Sequence[str],
    others: Mapping[str, Any],
) -> str:
    """Trace a module for images as the data has, and return the folder in which it is kept."""
    from nas.compression.base import Base
    from nas.study.bases import BASES

    # Nothing looks the placeholder up before the study begins.
    given = {**settings, "search_space.base": "traced"}
    data, device, config_dir = (others.get(name) for name in ("data", "device", "config_dir"))
    checked = _read(None, data, device, given, overrides, config_dir)
    splits = checked.data.search_splits()
    folder = Path(checked.runs).expanduser().resolve() / BASES
    return str(Base.of(module, splits.input_shape).save(folder))


def _data(data: Component | Path | None) -> Component | None:
    """Return name and settings of what may be a path."""
    if not isinstance(data, str | Path):
        return data
    if isinstance(data, str) and data in data_sets.names():
        return data
    path = Path(data).expanduser()
    if path.is_dir():
        return {"name": "image_folder", "path": str(path)}
    if path.suffix in (".csv", ".npz"):
        return {"name": path.suffix[1:], "path": str(path)}
    if isinstance(data, str) and path.name == data:
        return data  # of the user's own module, which is imported later
    expected = "a folder of images, a .csv or .npz file, or a data set's name"
    raise ConfigError("data", str(data), expected)
