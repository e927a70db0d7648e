"""Logs in TensorBoard's event files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from nas.core.trial import History, Trial
from nas.logging import Logger, LoggingSettings, register


@register("tensorboard")
@dataclass(frozen=True, kw_only=True)
class TensorBoardSettings(LoggingSettings):
    """Event files that `tensorboard --logdir FOLDER` shows.

    Attributes:
        folder: Of the logs, with a folder for every study; `None` for `tensorboard` in the study's
            own folder.
    """

    folder: str | None = None

    package: ClassVar[str] = "tensorboard"

    def start(self, study: str, folder: Path) -> Logger:
        own = folder / "tensorboard"
        return TensorBoardLogger(
            own if self.folder is None else Path(self.folder).expanduser() / study
        )


class TensorBoardLogger(Logger):
    """A run for every training, over its epochs, and one for the study, over its trials."""

    def __init__(self, folder: Path) -> None:
        """Write below `folder`."""
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self._study = SummaryWriter(folder / "study")

    def trial(self, trial: Trial, numbers: Mapping[str, float], history: History) -> None:
        self._training(f"trial{trial.number:05d}_{trial.arch_id}", history)
        self._scalars("search", numbers, trial.number)
        if trial.failure is not None:
            self._study.add_text("failure", trial.failure, trial.number)
            self._study.flush()

    def trained(self, arch_id: str, stage: str, history: History) -> None:
        self._training(f"{stage}_{arch_id}", history)

    def verified(self, arch_id: str, stage: str, numbers: Mapping[str, float]) -> None:
        self._scalars(f"{stage}_{arch_id}", numbers, 0)

    def close(self) -> None:
        self._study.close()

    def _training(self, run: str, history: History) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if not history:
            return
        with SummaryWriter(self._folder / run) as writer:
            for record in history:
                for name, value in record.items():
                    if name != "epoch":
                        writer.add_scalar(name, value, int(record["epoch"]))

    def _scalars(self, group: str, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._study.add_scalar(f"{group}/{name}", value, step)
        # A study may be looked at while it runs, and killed.
        self._study.flush()
