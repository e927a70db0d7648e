from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_studies import write_study

from nas.core.trial import Trial


@pytest.fixture
def study_folder(tmp_path: Path) -> Callable[..., Path]:
    """Build a study in `runs/NAME`; see `write_study`."""

    def build(trials: list[Trial], name: str = "digits", **more: object) -> Path:
        return write_study(tmp_path / "runs" / name, trials, **more)  # type: ignore[arg-type]

    return build
