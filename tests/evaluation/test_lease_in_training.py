"""While a network is measured on this host, workers that train make no step."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from lease_jobs import NotedTraining
from torch import nn

import nas.devices
from nas.cluster.connection import connected
from nas.cluster.ray_evaluator import RayEvaluator
from nas.core.host import LEASE_FOLDER_VARIABLE
from nas.core.trial import Candidate
from nas.devices.measuring import device as device_module
from nas.devices.measuring.process import MeasuringProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no file locks there")

PATIENCE_S = 100


@pytest.fixture(scope="module")
def lease(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep apart from what else is measured on this host; workers inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LEASE_FOLDER_VARIABLE, str(tmp_path_factory.mktemp("lease")))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        with connected(None):
            yield


def notes(folder: Path, number: int) -> list[float]:
    path = folder / f"{number}.txt"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [float(line) for line in lines]


def wait_for_notes_after(moment: float, folder: Path, candidates: list[Candidate]) -> None:
    """Every training makes a step after `moment`, within the patience of this test."""
    patience = time.monotonic() + PATIENCE_S
    while not all(max(notes(folder, c.number), default=0.0) > moment for c in candidates):
        assert time.monotonic() < patience
        time.sleep(0.05)


@pytest.mark.slow
def test_no_step_during_a_measurement(
    lease: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[tuple[float, float]] = []

    class Noted(MeasuringProcess):
        """Notes when its process got the lease, and when it was about to end."""

        start = 0.0

        def ask(self, op: str, **arguments: Any) -> Any:
            answer = super().ask(op, **arguments)
            if op == "lease":
                self.start = time.monotonic()
            return answer

        def close(self) -> None:
            if self.start:
                held.append((self.start, time.monotonic()))
            super().close()

    monkeypatch.setattr(device_module, "MeasuringProcess", Noted)
    device = nas.devices.get("cpu", min_seconds=1.0, max_seconds_per_model=1.0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    settings = {"workers": 2, "cpus_per_worker": 1, "gpus_per_worker": 0}
    evaluator = RayEvaluator(NotedTraining(tmp_path), time_limit_s=2 * PATIENCE_S, **settings)
    with closing(evaluator):
        candidates = [
            Candidate(number=i, genotype=(i,), arch_id=str(i), seed=0)
            for i in range(evaluator.workers)
        ]
        evaluator.submit(candidates)
        wait_for_notes_after(0.0, tmp_path, candidates)
        for _ in range(2):
            device.measure_many([network], (1, 8, 8))
        wait_for_notes_after(held[-1][1], tmp_path, candidates)
        (tmp_path / "stop").touch()
        ended = []
        while done := evaluator.completed():
            ended += done
    assert [evaluation.failure for evaluation in ended] == [None] * len(candidates)
    assert len(held) == 2
    for candidate in candidates:
        times = notes(tmp_path, candidate.number)
        for start, end in held:
            assert end - start > 0.5
            assert not [t for t in times if start < t < end]
            # It trained before and went on afterwards, so that it was the lease that stopped it.
            assert [t for t in times if t < start]
            assert [t for t in times if t > end]
