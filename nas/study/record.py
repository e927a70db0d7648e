"""What a study writes down: of itself when it begins, and of every architecture it proposes."""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import search_spaces
from nas import data, devices, objectives, results, tasks
from nas.core.dataset import SearchSplits, fingerprint_difference
from nas.core.errors import ConfigError, DataError, HwnasError
from nas.core.files import write_json_atomically
from nas.core.objective import Facts
from nas.core.prediction import FloatArray
from nas.core.seeding import stream
from nas.core.space import Genotype
from nas.devices.measuring.environment import describe_host
from nas.network.space import SearchSpace
from nas.search.problem import SearchProblem
from nas.study.calibration import Calibration
from nas.study.checking import component
from nas.study.folder import StudyFolder, now_utc
from nas.study.settings import StudySettings

PACKAGES = ("hwnas", "torch", "onnxruntime", "onnx", "ray", "pymoo", "optuna", "numpy")
"""Packages whose versions a result depends on."""

REFERENCE_SAMPLES, MARGIN = 64, 1.1
"""Random architectures from whose largest cost, times the margin, hypervolume is measured."""


def begin(
    settings: StudySettings,
    folder: StudyFolder,
    fingerprint: Mapping[str, Any],
    problem: SearchProblem,
    calibration: Calibration | None,
    first: Sequence[Genotype],
    splits: SearchSplits,
) -> None:
    """Write `study.json` when a study begins; `first` are the architectures of a warm start."""
    known = settings.used
    trivial = splits.trivial()
    task = {
        **tasks.registry.settings(splits.task),
        "metrics": [dataclasses.asdict(metric) for metric in splits.task.metrics],
        "outputs": splits.task.output_names,
        "reading": splits.task.reading,
        "trivial": trivial,
    }
    write_json_atomically(
        folder.record_path,
        {
            "name": settings.name,
            "status": "searching",
            "created_utc": now_utc(),
            "seed": settings.seed,
            "data": data.registry.settings(settings.data),
            "task": task,
            "data_fingerprint": fingerprint,
            "space": search_spaces.registry.settings(problem.space),
            "device": devices.registry.settings(settings.device),
            "objectives": list(settings.objectives),
            "columns": {name: objective.column for name, objective in known.items()},
            "verified_columns": {name: o.verified_column for name, o in known.items()},
            "units": {name: objective.unit for name, objective in known.items()},
            "constraints": [str(constraint) for constraint in settings.constraints],
            "reference_point": _reference_point(settings, problem, trivial, first),
            "genes": [gene.name for gene in problem.space.genes],
            "warm_start": [list(genotype) for genotype in first],
            "imports": list(settings.imports),
            "ledger_url": settings.config["ledger"]["url"] or folder.ledger_url,
            "ledger_owner": folder.ledger_owner,
            "published": settings.published,
            "estimated": dict(settings.device.estimated),
            "calibration": None if calibration is None else calibration.cost,
            "versions": versions(),
            "hardware": {**describe_host(), "memory_mb": psutil.virtual_memory().total / 1e6},
        },
    )


def data_fingerprint(
    settings: StudySettings, folder: StudyFolder, splits: SearchSplits
) -> dict[str, Any]:
    """Return the fingerprint of a study's data, after all of them were read.

    Raises:
        DataError: An image cannot be read, or the data are not those that the study began with.
    """
    known = folder.record()["data_fingerprint"] if folder.begun else None
    found = settings.data.fingerprint(splits, known)
    difference = None if known is None else fingerprint_difference(known, found)
    if difference is not None:
        raise DataError(
            f"data: {difference}, with which study {folder.path.name!r} began; "
            "restore the data, or give the new study another name"
        )
    return found


def data_lines(fingerprint: Mapping[str, Any], splits: SearchSplits) -> list[str]:
    """Return what people should know of the data: how many images, and how they were read."""
    if not len(splits.train):
        return []
    counts = (f"{part['images']} {name}" for name, part in fingerprint["splits"].items())
    return [f"data: {', '.join(counts)} images of {splits.task.summary}", *splits.notes]


NEIGHBOURS = "neighbours:"
"""Before a published network's name: what differs from it in one choice."""

REFERENCES = "references"
"""All published networks of a space."""


def warm_start(settings: StudySettings, space: SearchSpace, folder: StudyFolder) -> list[Genotype]:
    """Return the genotypes that `search.warm_start` stands for.

    A study that has begun keeps what it stood for then, whatever has become of the other studies.

    Raises:
        ConfigError: A name is neither that of a published network nor that of a study, or a study
            searched another space.
    """
    if folder.begun:
        return [tuple(genotype) for genotype in folder.record()["warm_start"]]
    runs = Path(settings.runs).expanduser()
    first: list[Genotype] = []
    for name in settings.search.warm_start:
        # Neighbours leave half of the evaluations to the search.
        left = settings.evaluations // 2 - len(first)
        most = None if math.isinf(left) else max(int(left), 0)
        first += _named_genotypes(name, space, runs, most)
    return first


def _named_genotypes(name: str, space: SearchSpace, runs: Path, most: int | None) -> list[Genotype]:
    published = space.references()
    if name == REFERENCES:
        return [space.canonical(genotype) for genotype in published.values()]
    around = name.removeprefix(NEIGHBOURS)
    if around in published:
        start = space.canonical(published[around])
        return [start] if around == name else space.neighbours(start)[:most]
    try:
        study = results.open_study(Path(name).expanduser(), runs)
    except HwnasError as error:
        known = ", ".join(published) or "none"
        expected = (
            f"a published network of the space ({known}), one with {NEIGHBOURS} before it, "
            f"{REFERENCES} for all, or a study of {runs}/"
        )
        raise ConfigError("search.warm_start", name, expected, str(error)) from error
    # The same genes mean the same choices, also where images or classes are others.
    if component(search_spaces.registry, study.record["space"], "space").genes != space.genes:
        raise ConfigError("search.warm_start", name, "a study of the same search space")
    return [space.canonical(genotype) for genotype in study.pareto()["genotype"]]


def _reference_point(
    settings: StudySettings,
    problem: SearchProblem,
    trivial: Mapping[str, float],
    first: Sequence[Genotype],
) -> dict[str, float]:
    """Return the given reference point, completed by a trivial guess's metrics and large costs.

    Costs are somewhat above the largest that is known, so that its network adds hypervolume, too.

    Raises:
        ConfigError: An objective is to be completed that neither tells.
    """
    given = settings.search.reference_point or {}
    space, rng = problem.space, stream(settings.seed, "reference")
    samples = [space.sample(rng) for _ in range(REFERENCE_SAMPLES)]
    samples += [space.canonical([n - 1 for n in space.cardinalities]), *first]
    known = problem.known(samples)
    derived = {}
    # No file is larger than what it holds.
    largest_mb = MARGIN * problem.facts.costs(samples)["model_size_mb"].max()
    trivial = {"stored_size_mb": largest_mb, **trivial}
    for name, objective in problem.objectives.items():
        if name in given:
            derived[name] = given[name]
        elif name in known[0]:
            derived[name] = MARGIN * float(np.nanmax([row[name] for row in known]))
        else:
            try:
                # Of a single class there is nothing to guess.
                derived[name] = objective.after_training(trivial) or 100.0
            except KeyError as error:
                expected = f"a value: the metrics of a trivial guess lack {error}"
                raise ConfigError(f"search.reference_point.{name}", None, expected) from error
    return derived


def described(problem: SearchProblem, genotypes: Sequence[Genotype]) -> list[dict[str, float]]:
    """Return, of each architecture, every column that is known without training it."""
    columns = columns_before_training(problem.facts, genotypes)
    return [
        {name: float(values[i]) for name, values in columns.items()} for i in range(len(genotypes))
    ]


def columns_before_training(facts: Facts, genotypes: Sequence[Genotype]) -> dict[str, FloatArray]:
    """Return the same by column, each of shape `(n,)`."""
    facts, columns = facts.of(genotypes), dict[str, FloatArray]()
    for name in objectives.names():
        objective = objectives.get(name)
        if not objective.ready(facts):
            continue
        values = objective.before_training(genotypes, facts)
        if values is not None:
            columns[objective.column] = values
    if facts.predictor is not None:
        columns["latency_ms_predicted_std"] = facts.predictor.predict(genotypes).std_ms
    return columns


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
