"""How many cores a process may use, against the files of the Linux kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest
import threadpoolctl
import torch

from nas.core import host
from nas.core.host import one_thread, usable_cores, usable_memory


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty mount of control groups, in a process that is in none, with eight cores."""
    monkeypatch.setattr(host, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(host, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    return tmp_path / "cgroup"


def belong(cgroups: Path, membership: str, quotas: Mapping[str, str]) -> None:
    """Put the process into groups; write the `cpu.max` of groups."""
    (cgroups.parent / "membership").write_text(membership)
    for group, quota in quotas.items():
        (cgroups / group).mkdir(parents=True, exist_ok=True)
        (cgroups / group / "cpu.max").write_text(quota + "\n")


def test_without_control_groups_affinity_counts(cgroups: Path):
    assert usable_cores() == 8


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 8),
        ("300000 100000", 3),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
    ],
)
def test_a_quota_of_version_2_is_rounded_down_to_one_at_least(
    cgroups: Path, quota: str, cores: int
):
    belong(cgroups, "0::/user/job\n", {"user/job": quota})
    assert usable_cores() == cores


def test_the_smallest_quota_of_the_groups_above_counts(cgroups: Path):
    quotas = {"a/b": "600000 100000", "a": "200000 100000", "other": "100000 100000"}
    belong(cgroups, "0::/a/b\n", quotas)
    assert usable_cores() == 2


def test_a_path_that_is_not_mounted_leaves_the_root(cgroups: Path):
    """As in a container, whose own group is mounted as the root."""
    belong(cgroups, "0::/docker/0123\n", {"": "300000 100000"})
    assert usable_cores() == 3


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize(("quota_us", "cores"), [("-1", 8), ("150000", 3)])
def test_a_quota_of_version_1(cgroups: Path, mount: str, quota_us: str, cores: int):
    group = cgroups / mount / "jobs" / "7"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text(f"{quota_us}\n")
    (group / "cpu.cfs_period_us").write_text("50000\n")
    belong(cgroups, "5:memory:/elsewhere\n4:cpu,cpuacct:/jobs/7\n0::/\n", {})
    assert usable_cores() == cores


def test_without_affinity_the_machine_counts(cgroups: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == os.cpu_count()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity")
def test_a_process_that_is_pinned_to_one_core():
    first = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{first}}})\n"
        "from nas.core.host import usable_cores; print(usable_cores())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "1\n"


def threads() -> tuple[list[int], int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return [
        pool["num_threads"] for pool in threadpoolctl.threadpool_info()
    ], torch.get_num_threads()


def test_one_thread_within_and_as_many_as_before_afterwards():
    own = torch.get_num_threads()
    with threadpoolctl.threadpool_limits(2):
        torch.set_num_threads(2)
        try:
            before = threads()
            with one_thread():
                pools, of_torch = threads()
            assert pools
            assert {*pools, of_torch} == {1}
            assert threads() == before
        finally:
            torch.set_num_threads(own)


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "5000000"}, 5_000_000),
        ("0::/a/b\n", {"a/b/memory.max": "3000000", "a/memory.max": "5000000"}, 3_000_000),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "2000000"}, 2_000_000),
        ("4:cpu:/a\n", {"cpu/a/memory.limit_in_bytes": "2000000"}, None),
        ("0::/a\n", {"a/memory.max": "max"}, None),
    ],
)
def test_memory_is_limited_by_the_groups(
    cgroups: Path, membership: str, limits: Mapping[str, str], expected: int | None
):
    (cgroups.parent / "membership").write_text(membership)
    for name, limit in limits.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_text(limit + "\n")
    if expected is None:
        assert 2**20 < usable_memory() < psutil.virtual_memory().total
    else:
        assert usable_memory() == expected
