from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from onnx_files import SHAPE, ModelFactory

from nas.core.errors import DeviceError
from nas.core.host import LEASE_FOLDER_VARIABLE, PATIENCE_VARIABLE, training_step
from nas.devices.measuring.process import WORKER, MeasuringProcess

GENEROUS_SECONDS = 120.0
START = {
    "module": "nas.devices.runtimes.onnxruntime",
    "name": "onnxruntime",
    "settings": {},
    "execution": {},
}


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_measuring_imports_nothing_heavy(conv_model: ModelFactory):
    code = (
        "import sys, nas.devices\n"
        "from pathlib import Path\n"
        "device = nas.devices.get('cpu', relative_ci=10.0, min_seconds=0.0, block_ms=0.5)\n"
        f"device.measure_files([Path({str(conv_model(1))!r})], {SHAPE}, memory=True)\n"
        "heavy = ('torch', 'onnx', 'psutil', 'ray', 'pandas', 'matplotlib', 'nas.network')\n"
        "print([module for module in heavy if module in sys.modules])"
    )
    answer = subprocess.run(python(code), capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_killed_process_is_reported_with_its_signal():
    with MeasuringProcess(timeout_seconds=GENEROUS_SECONDS) as process:
        process.ask("start", about="start", **START)
        os.kill(process._process.pid, signal.SIGKILL)
        with pytest.raises(DeviceError, match=r"net.onnx: .*died during 'load' \(signal SIGKILL"):
            process.ask("load", about="net.onnx", path="x", input_shape=[1], choices={})
    assert not psutil.pid_exists(process._process.pid)


def test_crash_is_reported_with_the_tail_of_its_stderr():
    with (
        MeasuringProcess(timeout_seconds=GENEROUS_SECONDS) as process,
        pytest.raises(DeviceError, match=r"exit status 1.*IndexError: list index out of range"),
    ):
        process.ask("block", about="net.onnx", index=7, inferences=1)
    assert not psutil.pid_exists(process._process.pid)


def test_hanging_process_is_ended():
    command = python("import time, sys; print('stuck', file=sys.stderr); time.sleep(3600)")
    with (
        MeasuringProcess(timeout_seconds=2.0, command=command) as process,
        pytest.raises(DeviceError, match=r"no answer to 'load' within 2.5 s and was ended"),
    ):
        process.ask("load", about="net.onnx", work_seconds=0.5)
    assert not psutil.pid_exists(process._process.pid)


@pytest.mark.parametrize("garbage", ["hello", "[1, 2]", "\\xff\\xfe"])
def test_garbage_is_reported(garbage: str):
    code = f"input(); import sys; sys.stdout.buffer.write({garbage!r}.encode('latin1') + b'\\n')"
    with (
        MeasuringProcess(timeout_seconds=GENEROUS_SECONDS, command=python(code)) as process,
        pytest.raises(DeviceError, match="expected a JSON object"),
    ):
        process.ask("load", about="net.onnx")
    assert not psutil.pid_exists(process._process.pid)


def test_program_that_cannot_be_started_is_reported(tmp_path: Path):
    with pytest.raises(DeviceError, match="cannot be started"):
        MeasuringProcess(timeout_seconds=1.0, command=(str(tmp_path / "none"),))


def test_leaving_the_context_by_an_error_leaves_no_process_behind():
    with (
        pytest.raises(KeyError),
        MeasuringProcess(timeout_seconds=GENEROUS_SECONDS) as process,
    ):
        raise KeyError
    assert not psutil.pid_exists(process._process.pid)


def test_print_of_a_library_does_not_disturb_the_answers():
    code = (
        "import os\n"
        "from nas.devices.measuring import worker\n"
        "original = worker.Worker.start\n"
        "def noisy(self, **arguments):\n"
        "    print('from Python', flush=True)\n"
        "    os.write(1, b'from C\\n')\n"
        "    return original(self, **arguments)\n"
        "worker.Worker.start = noisy\n"
        "worker.main()\n"
    )
    with MeasuringProcess(timeout_seconds=GENEROUS_SECONDS, command=python(code)) as process:
        assert process.ask("start", about="start", **START) == {}


def test_a_child_of_a_library_that_keeps_the_output_does_not_keep_anybody(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("nas.devices.measuring.process._GRACE_SECONDS", 0.5)
    code = "import os, sys, time\nif os.fork(): sys.stdin.read()\nelse: time.sleep(20)"
    started = time.monotonic()
    with MeasuringProcess(timeout_seconds=GENEROUS_SECONDS, command=python(code)):
        pass
    assert time.monotonic() - started < 15


def test_who_keeps_the_machine_is_said_while_it_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The notices of a process that waits; then it gives up, which is an error of the device."""
    monkeypatch.setenv(LEASE_FOLDER_VARIABLE, str(tmp_path / "lease"))
    monkeypatch.setenv(PATIENCE_VARIABLE, "1.5")
    code = f"host.NOTICE_S = 0.3; runpy.run_module({WORKER!r}, run_name='__main__')"
    command = python(f"import runpy; from nas.core import host; {code}")
    with MeasuringProcess(timeout_seconds=GENEROUS_SECONDS, command=command) as process:
        with training_step(), pytest.raises(DeviceError) as caught:
            process.ask("lease", about="lease")
        assert "load_before" in process.ask("lease", about="lease")
    assert f"process {os.getpid()} " in caplog.text
    assert f"process {os.getpid()} " in str(caught.value)
