from __future__ import annotations

from pathlib import Path

import pytest

from nas.core.host import LEASE_FOLDER_VARIABLE


@pytest.fixture(autouse=True)
def own_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep apart from what else is measured on this host."""
    monkeypatch.setenv(LEASE_FOLDER_VARIABLE, str(tmp_path / "lease"))
