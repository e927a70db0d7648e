from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nas.core.host import LEASE_FOLDER_VARIABLE


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Small networks run many times faster without threads that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep apart from what else is measured on this host."""
    monkeypatch.setenv(LEASE_FOLDER_VARIABLE, str(tmp_path / "lease"))
