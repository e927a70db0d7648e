"""A study's folder: where its parts lie, who may write it, and whether a study may go on in it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from nas.core.errors import ConfigError, HwnasError
from nas.core.files import json_values, write_json_atomically

try:
    import fcntl
except ImportError:  # Windows has no flock; there nothing stops a second run of the same study
    fcntl = None  # type: ignore[assignment]

RESULT_SETTINGS = (
    "seed",
    "search_space",
    "data",
    "device",
    "latency_predictor",
    "search.objectives",
    "search.constraints",
    "search.lookahead",
    "search.algorithm",
    "evaluation.recipe",
)
"""Settings that a study's trials depend on; they cannot change while a study goes on."""


@dataclass(frozen=True)
class StudyFolder:
    """The folder of one study.

    Attributes:
        path: `RUNS/NAME`.
    """

    path: Path

    @property
    def record_path(self) -> Path:
        """Where `study.json` lies."""
        return self.path / "study.json"

    @property
    def predictor(self) -> Path:
        """Where the calibrated latency predictor lies."""
        return self.path / "predictor"

    @property
    def ledger_url(self) -> str:
        """The study's own SQLite file."""
        return f"sqlite:///{(self.path / 'ledger.db').absolute().as_posix()}"

    def verified(self, arch_id: str) -> Path:
        """Return where the parts of a retrained architecture lie."""
        return self.path / "finalised" / arch_id

    def record(self) -> dict[str, Any]:
        """Return what `study.json` holds."""
        record: dict[str, Any] = json.loads(self.record_path.read_text("utf-8"))
        return record

    def update(self, **changes: Any) -> None:
        """Change some entries of `study.json`."""
        write_json_atomically(self.record_path, {**self.record(), **changes})

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the folder to this process for the time of a `with` block.

        Raises:
            HwnasError: The folder cannot be written, or another process runs this study.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("a")
        except OSError as error:
            line = f"{self.path}: cannot be written ({error.strerror}); choose another `runs`"
            raise HwnasError(line) from error
        with file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    line = f"{self.path}: another process runs this study; wait, or set `name`"
                    raise HwnasError(line) from error
            yield

    def claim(self, config: DictConfig) -> None:
        """Save the configuration, or check that the study in the folder goes on under it.

        Raises:
            ConfigError: A setting that trials depend on has changed.
        """
        saved = self.path / "config.yaml"
        if saved.is_file():
            earlier = OmegaConf.load(saved)
            for name in RESULT_SETTINGS:
                old, new = (OmegaConf.select(c, name) for c in (earlier, config))
                if old != new:
                    raise ConfigError(
                        name,
                        json_values(_plain(new)),
                        f"{json_values(_plain(old))!r}, with which study {config.name!r} began",
                        "give the new study another name, or delete the old one's folder",
                    )
        part = saved.with_name(".config.yaml.part")
        part.write_text(OmegaConf.to_yaml(config, resolve=True), "utf-8")
        part.replace(saved)


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node) if OmegaConf.is_config(node) else node


def now_utc() -> str:
    """Return the time in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
