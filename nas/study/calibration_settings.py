"""From a composed configuration to a calibration by itself, without a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

import search_spaces
from latency_predictors import PredictorSettings
from nas import data
from nas.core.errors import ConfigError
from nas.core.measurement import Device
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace
from nas.study.checking import component, resolved
from nas.study.settings import (
    IMAGES,
    PREDICTORS,
    check_space,
    device_of,
    general_of,
    objectives_of,
    predictor_of,
    space_of,
)


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """The checked settings of a calibration by itself.

    Attributes:
        seed: Of the choice of networks; a study of the same seed measures the same.
        space: Of the networks.
        device: Where they are measured.
        predictor: How latency is predicted.
        store: Measurements, which studies share.
        folder: Receives the predictor and its samples.
        memory: Whether an objective or a limit needs peak memory.
    """

    seed: int
    space: SearchSpace
    device: Device
    predictor: PredictorSettings
    store: MeasurementStore
    folder: Path
    memory: bool


def read_calibration(config: DictConfig) -> CalibrationSettings:
    """Check the parts of a composed configuration that a calibration depends on.

    The search space may say what its images are (`input_shape`, `num_classes`), else the data do.

    Raises:
        ConfigError: Names the setting, what it got, what was expected.
        DataError: The data are needed and cannot be read.
    """
    values = resolved(config)
    out = values.pop("out", None)
    general = general_of(values)
    device = device_of(values)
    if device.published_ms is not None:
        expected = "a device that measures"
        fix = "a published table is exact: a search reads it and needs no predictor"
        raise ConfigError("device", values["device"]["name"], expected, fix)
    predictor = predictor_of(values)
    check_space(values)
    missing = [name for name in IMAGES if values["search_space"].get(name) is None]
    if len(missing) == 1:
        expected = "a value, or neither this nor the other of " + ", ".join(IMAGES)
        raise ConfigError(f"search_space.{missing[0]}", None, expected)
    if missing:
        splits = component(data.registry, values.get("data"), "data").search_splits()
        space = space_of(values, splits.input_shape, len(splits.class_names))
    else:
        space = component(search_spaces.registry, values["search_space"], "search_space")
    name = f"{values['search_space']['name']}-{values['device']['name']}"
    folder = Path(out or Path(general.runs) / PREDICTORS / name).expanduser()
    return CalibrationSettings(
        seed=general.seed,
        space=space,
        device=device,
        predictor=predictor,
        store=general.store,
        folder=folder,
        memory=any(objective.needs_memory for objective in objectives_of(values)),
    )
