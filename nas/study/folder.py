"""A study's folder: where its parts lie, who may write it, and whether a study may go on in it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

from omegaconf import OmegaConf

from nas.core.errors import ConfigError, HwnasError
from nas.core.files import remove_parts, write_bytes_atomically, write_json_atomically
from nas.core.host import try_lock
from nas.core.records import decoding, read_json
from nas.results.database import sqlite_url
from nas.results.record import read_record
from nas.study.yaml_files import read_yaml

CALIBRATION_SETTINGS = ("seed", "search_space", "data", "device", "latency_predictor")
"""Settings that a calibrated latency predictor depends on."""

SEARCH_SETTINGS = (
    *CALIBRATION_SETTINGS,
    "search.objectives",
    "search.constraints",
    "search.reference_point",
    "search.mode",
    "search.lookahead",
    "search.warm_start",
    "search.adaptive_measurement",
    "search.algorithm",
    "fidelity",
    "evaluation.name",
    "evaluation.recipe",
    "evaluation.inherit",
    "evaluation.epochs",
    "evaluation.proxy",
    "evaluation.images",
    "evaluation.references",
    "evaluation.seed",
    "evaluation.strategy",
    "evaluation.random_networks",
    "evaluation.shrinking_order",
    "evaluation.shrinking_from",
    "evaluation.shrinking_until",
    "evaluation.calibration_images",
    "evaluation.validation_images",
    "ledger.url",
)
"""Settings that trials and their hypervolume depend on."""

FINALISE_SETTINGS = (*SEARCH_SETTINGS, "finalise.recipe")
"""Settings that verified architectures depend on."""

FREE_SETTINGS = (
    "device.command",
    "device.python",
    "device.address",
    "device.timeout_seconds",
    "data.memory_share",
)
"""Settings that say how a device is reached and where images are kept, and change no result."""


class StudyFolder:
    """The folder of one study, and where its parts lie.

    Attributes:
        path: `RUNS/NAME`.
        record_path: `study.json`.
        predictor: Folder of the calibrated latency predictor.
        adaptive_measurement: File of what was measured during the search.
        prepared: Folder of what the evaluation prepares once for the search.
        teachers: Folder of the teachers of its recipes.
        checkpoints: Folder where partial trainings wait for more of it.
        parents: Folder of the weights that further candidates may begin with.
        members: File of the architectures that are to be verified.
        finalised: Holds a folder for every verified architecture, named by its `arch_id`.
        refitted: The same for those that were trained on train and validation images together.
        repeated: The same for each further seed that they were trained with, `repeated/1/ARCH_ID`.
        place: Where the folder lies: host and path.
    """

    def __init__(self, path: Path) -> None:
        """Name the parts of the study in the folder `path`, which may not exist yet."""
        self.path = path
        self.record_path = path / "study.json"
        self.predictor = path / "predictor"
        self.adaptive_measurement = path / "adaptive_measurement.json"
        self.prepared = path / "prepared"
        self.teachers = path / "teachers"
        self.checkpoints = path / "checkpoints"
        self.parents = path / "parents"
        self.finalised = path / "finalised"
        self.members = self.finalised / "members.json"
        self.refitted = self.finalised / "refit"
        self.repeated = self.finalised / "seeds"
        self.place = f"{socket.gethostname()}:{path.resolve().as_posix()}"

    @property
    def begun(self) -> bool:
        """Whether the study has begun, so that its record is there."""
        return self.record_path.is_file()

    @property
    def ledger_url(self) -> str:
        """The study's own SQLite file."""
        return sqlite_url(self.path / "ledger.db")

    @property
    def ledger_owner(self) -> str:
        """Identity of the study in its ledger: where it began; it stays when the folder moves."""
        return str(self.record().get("ledger_owner", "")) if self.begun else self.place

    @property
    def verified(self) -> bool:
        """Whether the results of all members are there; a damaged one may have been deleted."""
        file = self.members
        if not file.is_file():
            return False
        fix = "delete it and run the same command again"
        with decoding(file, fix):
            members = read_json(file, {"members": list}, fix)["members"]
            results = [self.finalised / member["arch_id"] / "result.json" for member in members]
        return all(result.is_file() for result in results)

    @property
    def verified_members(self) -> frozenset[str]:
        """`arch_id` of all architectures that have been verified."""
        return frozenset(file.parent.name for file in self.finalised.glob("*/result.json"))

    def record(self) -> dict[str, Any]:
        """Return what `study.json` holds."""
        return read_record(self.record_path)

    def update(self, **changes: Any) -> None:
        """Change some entries of `study.json`."""
        write_json_atomically(self.record_path, {**self.record(), **changes})

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the folder to this process for the time of a `with` block.

        Raises:
            HwnasError: The folder cannot be written, or another process runs this study.
        """
        made = [folder for folder in (self.path.parent, self.path) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("a")
        except OSError as error:
            _remove_empty(made)
            line = f"{self.path}: cannot be written ({error.strerror}); choose another `runs`"
            raise HwnasError(line) from error
        with file:
            self._take(file)
            remove_parts(self.path)
            try:
                yield
            finally:
                # A run that was refused leaves no folder behind, nor one that did not begin.
                if {part.name for part in self.path.iterdir()} <= {".lock", "config.yaml"}:
                    for part in list(self.path.iterdir()):
                        part.unlink()
                    _remove_empty(made)

    def _take(self, file: IO[str]) -> None:
        # The file may have been removed between its opening and its locking.
        if not try_lock(file) or os.fstat(file.fileno()).st_nlink == 0:
            line = f"{self.path}: another process runs this study; wait, or set `name`"
            raise HwnasError(line)

    def saved(self) -> dict[str, Any]:
        """Return the configuration that `save` wrote; empty if it never did.

        Raises:
            HwnasError: The study has begun, and its configuration is damaged.
        """
        file = self.path / "config.yaml"
        if not (file.exists() or self.begun):
            return {}
        fix = "restore it from a copy, or give the new study another name"
        with decoding(file, fix):
            saved = OmegaConf.to_container(read_yaml(file))
            if self.begun and "finalise" not in (saved or ()):  # the last of its sections
                raise ValueError("it is empty, or cut")
            return cast("dict[str, Any]", saved)

    def check(self, config: Mapping[str, Any]) -> None:
        """Check that what lies in the folder goes on under a resolved configuration.

        Raises:
            ConfigError: A setting that something in the folder depends on has changed.
        """
        saved = self.saved()
        for name in self._fixed():
            changed = _difference(name, _select(saved, name), _select(config, name))
            if changed is not None:
                setting, old, new = changed
                part = "finalised" if name not in SEARCH_SETTINGS else ""
                raise ConfigError(
                    setting,
                    new,
                    f"{old!r}, with which study {self.path.name!r} began",
                    f"give the new study another name, or delete {self.path / part}",
                )

    def save(self, config: Mapping[str, Any]) -> None:
        """Save a resolved configuration as `config.yaml`."""
        text = OmegaConf.to_yaml(OmegaConf.create(dict(config)))
        write_bytes_atomically(self.path / "config.yaml", text.encode())

    def _fixed(self) -> tuple[str, ...]:
        """Return the settings that what lies in the folder depends on."""
        if any(self.path.glob("finalised/*/network.json")):
            return FINALISE_SETTINGS
        if self.begun:
            return SEARCH_SETTINGS
        return CALIBRATION_SETTINGS if self.predictor.exists() else ()


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, inner ones last in the list, unless something is in them."""
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _select(config: Mapping[str, Any], name: str) -> Any:
    """Return the value of a setting, its name in the form `search.objectives`."""
    value: Any = config
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any] | None:
    """Return the first setting in which two values of the setting `name` differ, and both."""
    if name in FREE_SETTINGS or old == new:
        return None
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return name, old, new
    pairs = ((key, old.get(key), new.get(key)) for key in dict.fromkeys([*old, *new]))
    found = (_difference(f"{name}.{key}", *values) for key, *values in pairs)
    return next((difference for difference in found if difference), None)


def now_utc() -> str:
    """Return the time in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
