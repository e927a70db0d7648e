"""Nodes of a Ray cluster that go and come during a search."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# In a process of its own: a process is connected to one cluster at a time.
SCRIPT = """
import sys, time
from pathlib import Path
from ray.cluster_utils import Cluster
from worker_jobs import Wait
from nas.cluster.connection import connected
from nas.cluster.ray_evaluator import RayEvaluator
from nas.core.trial import Candidate

folder = Path(sys.argv[1])
candidates = [
    Candidate(number=i, genotype=(i,), arch_id=str(i), seed=0) for i in range(12)
]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()
with connected(cluster.address):
    evaluator = RayEvaluator(
        Wait(folder, 1.0), workers=None, cpus_per_worker=1, gpus_per_worker=0, time_limit_s=100
    )
    assert evaluator.workers == 2
    evaluator.submit(candidates)
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.05)
    cluster.remove_node(nodes[0], allow_graceful=False)
    ended = evaluator.completed()
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    while evaluations := evaluator.completed():
        ended += evaluations
    assert evaluator.workers == 3
    evaluator.close()
cluster.shutdown()
print(sorted((e.candidate.number, e.failure) for e in ended))
"""


def test_no_candidate_is_lost_with_its_node_and_new_nodes_are_used(tmp_path: Path) -> None:
    paths = [str(Path(__file__).parent), *filter(None, sys.path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "RAY_AUTH_MODE": "disabled"}
    (tmp_path / "begun").mkdir()
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "begun")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == str([(number, None) for number in range(12)])
    # Each began once, but the one that ran on the lost node.
    begun = [path.read_text() for path in (tmp_path / "begun").iterdir()]
    assert sorted(begun) == ["x"] * 11 + ["xx"]
