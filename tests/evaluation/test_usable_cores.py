"""Workers are counted by the cores that the process may use, not by those of the machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity")

PINNED = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from nas import evaluation
from nas.core.errors import ConfigError

def job(candidate, deadline):
    return None

settings = evaluation.get("training")
print(settings.workers_here())
with settings.connected(None):
    print(settings.start(job).workers)
    try:
        evaluation.get("training", threads_per_worker=2).start(job)
    except ConfigError as error:
        print(error)
"""


def test_one_usable_core_gives_one_worker():
    ran = subprocess.run(
        [sys.executable, "-c", PINNED], capture_output=True, text=True, timeout=200
    )
    here, started, refused = ran.stdout.splitlines()
    assert (here, started) == ("1", "1"), ran.stderr
    assert refused.startswith("evaluation: got '2 cores")
