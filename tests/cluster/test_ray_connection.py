from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from nas.cluster.connection import connected
from nas.core.errors import ConfigError

SCRIPT = """
import time
from pathlib import Path
from worker_jobs import Behave
from nas.cluster.connection import connected
from nas.core.trial import Candidate
from nas.cluster.ray_evaluator import RayEvaluator

with connected(None):
    evaluator = RayEvaluator(
        Behave(Path({folder!r})),
        workers=None,
        cpus_per_worker=1,
        gpus_per_worker=0,
        time_limit_s=100,
    )
    what = ["exit", "raise", "kill", "return"]
    evaluator.submit(
        [Candidate(number=i, genotype=(), arch_id=a, seed=0) for i, a in enumerate(what)]
    )
    causes = {{}}
    while evaluations := evaluator.completed():
        for e in evaluations:
            causes[e.candidate.arch_id] = (e.failure or "fine").split(":")[0]
    evaluator.close()
    time.sleep(2)  # Ray reports the end of workers belatedly
print(sorted(causes.items()))
"""


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_an_address_where_nothing_answers_is_refused_at_once():
    address = f"127.0.0.1:{unused_port()}"
    expected = f"ray.address: got '{address}', expected the address of a running cluster; start"
    with pytest.raises(ConfigError) as caught, connected(address):
        pass
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_an_address_of_another_form_is_refused():
    expected = r"ray\.address: got 'nonsense', expected"
    with pytest.raises(ConfigError, match=expected), connected("nonsense"):
        pass


def test_the_console_stays_quiet_and_the_environment_does_not_lead_elsewhere(tmp_path: Path):
    """Workers die, and the environment is full of traps: neither shows."""
    long = tmp_path / ("long" * 30)
    long.mkdir()
    nowhere = f"127.0.0.1:{unused_port()}"
    proxies = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "grpc_proxy")
    environment = os.environ | {
        "RAY_ADDRESS": nowhere,
        "HOME": "/proc",  # nobody can write there
        "TMPDIR": str(long),  # sockets have short names
        **dict.fromkeys(proxies, f"http://{nowhere}"),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
    }
    command = [sys.executable, "-c", SCRIPT.format(folder=str(tmp_path))]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    causes = {"exit": "worker_died", "kill": "worker_died", "raise": "crashed", "return": "fine"}
    assert ran.stdout == f"{sorted(causes.items())}\n"
    lines = ran.stderr.splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == ["exit", "kill"], ran.stderr
    assert ran.returncode == 0


def test_a_connection_leaves_the_process_as_it_was() -> None:
    """Its handlers of signals and its environment; a second cluster starts as the first."""
    before = dict(os.environ), signal.getsignal(signal.SIGTERM)
    for _ in range(2):
        with connected(None):
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        after = {k: v for k, v in os.environ.items() if k in before[0] or "TOKEN" in k}
        assert (after, signal.getsignal(signal.SIGTERM)) == before


KEPT = """
import os, time
import psutil, ray
from nas.cluster.connection import connected
with connected(None):
    print(ray.get(ray.remote(lambda: os.nice(0)).remote()), flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_nothing_stays_of_a_cluster_that_was_started_here(how: str) -> None:
    command = [sys.executable, "-c", KEPT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            # Workers have the priority of the process that has started the cluster.
            assert process.stdout.readline() == b"%d\n" % os.nice(0)
            family = psutil.Process(process.pid).children(recursive=True)
            [raylet] = [p for p in family if p.name() == "raylet"]
            options = dict(o.partition("=")[::2] for o in raylet.cmdline())
            folder = Path(options["--temp_dir"])
            assert folder.exists()
            # What is sent to the group of the process, which is this one's, does not reach Ray.
            assert os.getpgid(process.pid) not in {os.getpgid(p.pid) for p in family}
            process.send_signal(getattr(signal, how))
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    assert not folder.exists()
    assert process.returncode == {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": -2}[how]
    # Who is killed cannot say so; what clears up behind it does.
    assert (b"nas: " in errors) == (how == "SIGKILL")


def test_a_cluster_starts_where_the_leader_of_the_process_group_has_ended() -> None:
    """As in a shell that runs `echo | nas search`."""
    script = """
import os, time
from nas.cluster.connection import connected
before = os.getpgrp()
with connected(None):
    print(before != os.getpid(), os.getpgrp() == before)
"""
    command = ["sh", "-c", '"$0" -c "$1" & exit', sys.executable, script]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, process_group=0, **pipes) as leader:
        assert leader.wait(10) == 0
        assert leader.stdout is not None
        assert leader.stdout.read() == "True True\n"
