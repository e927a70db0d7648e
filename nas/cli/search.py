"""`nas search`: Hydra composes the configuration, the study room runs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig

from nas.core.errors import HwnasError


def config_folder() -> Path:
    """Return the folder of configurations, in a source tree or in an installed package."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def search(overrides: Sequence[str]) -> int:
    """Run one study, or several with `--multirun`; return the exit status.

    Hydra itself answers `--cfg job`, `--info`, an unknown name and a mistyped key.
    """
    status = 0

    @hydra.main(config_path=str(config_folder()), config_name="config", version_base="1.3")
    def job(config: DictConfig) -> None:
        nonlocal status
        try:
            _run(config)
        except HwnasError as error:
            sys.stderr.write(f"nas: {error}\n")
            status = 2

    sys.argv = ["nas search", *overrides]
    job()
    return status


def _run(config: DictConfig) -> None:
    # Ray and torch take seconds to load, so a mistyped override is refused before.
    from nas.cli.console import ConsoleReporter, console
    from nas.results.plot import plot_pareto
    from nas.results.report import table, write_pareto_csv
    from nas.study.run import run
    from nas.study.settings import read

    study = run(read(config), ConsoleReporter())
    write_pareto_csv(study, study.path / "pareto.csv")
    plot_pareto(study, study.path / "pareto.png")
    console().print(table(study))
    console().print(
        f"{study.path}: pareto.csv, pareto.png; next: nas export {study.name} --pick knee"
    )
