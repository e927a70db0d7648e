"""`nas search` and what else takes its settings: Hydra composes them, the study room does it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from nas.core.errors import HwnasError

CHECK = "--check"
"""Option that Hydra does not know."""


def config_folder() -> Path:
    """Return the folder of configurations, in a source tree or in an installed package."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def search(overrides: Sequence[str]) -> int:
    """Run one study, or several with `--multirun`; return the exit status.

    With `--check`, only say what a study would look for.

    Raises:
        HwnasError: The configuration cannot be composed.
    """
    if CHECK in overrides:
        return composed("search", [text for text in overrides if text != CHECK], _check)
    return composed("search", overrides, _run)


def composed(command: str, overrides: Sequence[str], run: Callable[[DictConfig], None]) -> int:
    """Compose a configuration and hand it to `run`; return the exit status.

    Hydra itself answers `--cfg job` and `--info`, and calls `run` several times with `--multirun`.

    Args:
        command: Of `nas`.
        overrides: Hydra's overrides and options.
        run: What the command does with a configuration.

    Raises:
        HwnasError: The configuration cannot be composed.
    """
    status = 0
    begun = False

    @hydra.main(config_path=str(config_folder()), config_name="config", version_base="1.3")
    def job(config: DictConfig) -> None:
        nonlocal status, begun
        begun = True
        try:
            run(config)
        except HwnasError as error:
            sys.stderr.write(f"nas: {error}\n")
            status = 2

    sys.argv = [f"nas {command}", *overrides]
    # Hydra then raises its errors, where it would print them on several lines and exit.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        job()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if begun:
            raise
        raise HwnasError(_one_line(error)) from error
    return status


def _run(config: DictConfig) -> None:
    from nas.cli.console import ConsoleReporter, print_front
    from nas.study.settings import read

    settings = read(config)
    # Ray and torch take seconds to load, so a setting that cannot be used is refused before.
    from nas.results.plot import plot_pareto
    from nas.results.report import write_pareto_csv
    from nas.study.run import run

    study = run(settings, ConsoleReporter())
    write_pareto_csv(study, study.path / "pareto.csv")
    plot_pareto(study, study.path / "pareto.png")
    print_front(study)
    if settings.finalise.limit and study.status != "finalised":
        line = "not every network could be verified; the lines above say why"
        raise HwnasError(f"{study.path}: {line}; run the same command again to go on")
    runs = "" if str(study.path.parent) == "runs" else f" --runs {study.path.parent}"
    verified = settings.finalise.limit > 0 and not study.pareto().empty
    what = f"export {study.name} --pick knee" if verified else f"pareto {study.name}"
    following = f"nas {what}{runs}"
    sys.stdout.write(f"{study.path}: pareto.csv, pareto.png; next: {following}\n")


def _check(config: DictConfig) -> None:
    from nas.cli.console import ConsoleReporter
    from nas.study.settings import read

    settings = read(config)
    from nas.study.run import check

    check(settings, ConsoleReporter())


def _one_line(error: Exception) -> str:
    """Return what Hydra says on several lines as one that names the setting."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        # Hydra lists a folder's neighbours where the folder is within a group.
        within = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
        return f"{group}: got {name!r}, expected one of {', '.join(within or error.options)}"
    if isinstance(error, OverrideParseException):
        fix = """quote special characters, as in 'NAME="VALUE"'"""
        return f"{error.override}: cannot be read, expected NAME=VALUE; {fix}"
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        known = ", ".join(map(str, cause.parent_node or {}))
        if not known:
            return f"{cause.full_key}: cannot be set like this ({str(cause).splitlines()[0]})"
        # Only what is a mapping for the user to fill, like the reference point, takes new keys.
        return f"{cause.full_key}: no such setting, expected one of {known}, or + before a new one"
    return " ".join(str(error).split())
