"""What a study proposes first: published networks, and the fronts of former studies."""

from __future__ import annotations

from pathlib import Path

import search_spaces
from nas import results
from nas.core.errors import ConfigError, HwnasError
from nas.core.space import Genotype
from nas.network.space import SearchSpace
from nas.study.folder import StudyFolder
from nas.study.settings import StudySettings


def proposals(settings: StudySettings, space: SearchSpace, folder: StudyFolder) -> list[Genotype]:
    """Return what `search.warm_start` stands for.

    A study that has begun keeps what it stood for then, whatever has become of the other studies.

    Raises:
        ConfigError: A name is neither that of a published network nor that of a study, or a study
            searched another space.
    """
    if folder.record_path.is_file():
        return [tuple(genotype) for genotype in folder.record()["warm_start"]]
    runs = Path(settings.runs).expanduser()
    return [g for name in settings.search.warm_start for g in _genotypes(name, space, runs)]


def _genotypes(name: str, space: SearchSpace, runs: Path) -> list[Genotype]:
    published = space.references()
    if name in published:
        return [space.canonical(published[name])]
    try:
        study = results.open(Path(name).expanduser(), runs)
    except HwnasError as error:
        known = ", ".join(published) or "none"
        expected = f"a published network of the space ({known}), or a study of {runs}/"
        raise ConfigError("search.warm_start", name, expected, str(error)) from error
    # The same genes mean the same choices, also where images or classes are others.
    if search_spaces.get(**study.record["space"]).genes != space.genes:
        raise ConfigError("search.warm_start", name, "a study of the same search space")
    return [space.canonical(genotype) for genotype in study.pareto()["genotype"]]
