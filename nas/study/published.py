"""Studies whose numbers are a table's: what can be combined, and what cannot be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas import objectives, tables
from nas.core.dataset import Dataset
from nas.core.errors import ConfigError
from nas.core.measurement import Device
from nas.core.objective import Objective
from nas.data.published import Published
from nas.devices.table import TableDevice
from nas.evaluation.tabular import TabularSettings
from nas.search.fidelity import FidelitySettings

if TYPE_CHECKING:
    from nas.study.settings import StudySettings


def objective(name: str, device: Device) -> Objective:
    """Return an objective as a device knows it: `latency_ms` of a table is the published one.

    Raises:
        ConfigError: The device cannot tell its value.
    """
    found = objectives.get(name)
    if isinstance(device, TableDevice):
        if found.needs_memory:
            expected = "what the device's table or the network itself tells"
            raise ConfigError("search.objectives", name, expected, "use counted_memory_mb")
        return objectives.get("latency_ms_published") if found.needs_predictor else found
    if found.needs_table:
        expected = "latency_ms, which is published where device=table"
        raise ConfigError("search.objectives", name, expected)
    return found


def check(settings: StudySettings) -> None:
    """Refuse settings that do not go together where a table takes part.

    Raises:
        ConfigError: Names the setting and what would do.
    """
    evaluation, data, device = settings.evaluation, settings.data, settings.device
    if isinstance(evaluation, TabularSettings):
        _check_data(settings.config, evaluation, data)
        _check_space(settings.config, "evaluation", evaluation.table)
        _check_fidelities(settings.fidelity, evaluation)
    elif isinstance(data, Published):
        got = settings.config["evaluation"]["name"]
        raise ConfigError("evaluation", got, "tabular", "data=published has no images")
    if isinstance(device, TableDevice):
        _check_space(settings.config, "device", device.table)
    if settings.published and settings.finalise.limit:
        expected = "0: of a published table no network can be trained or measured"
        raise ConfigError("finalise.limit", settings.finalise.limit, expected)


def _check_data(config: Mapping[str, Any], evaluation: TabularSettings, data: Dataset) -> None:
    if not isinstance(data, Published):
        expected = "published, as evaluation=tabular answers for a table's data set"
        raise ConfigError("data", config["data"]["name"], expected)
    for name in ("table", "dataset"):
        got, expected = getattr(evaluation, name), getattr(data, name)
        if got != expected:
            raise ConfigError(f"evaluation.{name}", got, f"{expected}, as data.{name} says")


def _check_fidelities(fidelity: FidelitySettings, evaluation: TabularSettings) -> None:
    splits = tables.get(evaluation.table).dataset(evaluation.dataset).splits
    shares = [epochs / evaluation.epochs for epochs in splits if epochs <= evaluation.epochs]
    for share in fidelity.fidelities:
        if round(share * evaluation.epochs) not in splits:
            expected = f"shares of {evaluation.epochs} epochs that are published: {shares}"
            raise ConfigError("fidelity.rungs", share, expected)


def _check_space(config: Mapping[str, Any], section: str, table: str) -> None:
    space, got = tables.get(table).space, config["search_space"]["name"]
    if got != space:
        expected = f"{space}, of which {section}.table={table} holds the networks"
        raise ConfigError("search_space", got, expected)
