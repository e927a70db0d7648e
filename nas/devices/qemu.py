"""A Cortex-M4 in QEMU: instructions, memory and flash of a network's own program.

The network is compiled with TensorFlow Lite Micro's reference kernels, and QEMU counts the
instructions of one inference: the same number every time. A processor takes more than one cycle for
some instructions and waits for its memories, and vendors' kernels are faster: times from it order
networks, they are none of a board.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nas.core.errors import ConfigError, DeviceError, last_lines
from nas.core.files import cache_path, hashed
from nas.core.host import try_lock
from nas.core.measurement import Measurement, PreparedNetwork
from nas.devices import register, tflm
from nas.devices.cortex_m_project import write_project
from nas.devices.microcontrollers import Microcontroller

TICK_INSTRUCTIONS = 40
"""Instructions of a tick of the board's timer, which is at 25 MHz; see `cortex_m/startup.c`."""
_SECONDS = 1800.0
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_PROGRAMS = {
    "make": "make",
    "arm-none-eabi-g++": "gcc-arm-none-eabi libstdc++-arm-none-eabi-newlib",
    "qemu-system-arm": "qemu-system-arm",
}
"""Programs, and the packages of Debian that have them."""


@register("qemu_cortex_m")
@dataclass(frozen=True, kw_only=True)
class QemuCortexM(Microcontroller):
    """A Cortex-M4 in QEMU, which counts the instructions of a network; estimated.

    Attributes:
        code_kb: Flash of code that is not in the program that is compiled, in 1024 bytes.
        tflm: Folder of a clone of tensorflow/tflite-micro, its third-party downloads made.
        clock_mhz: Of the processor, at one instruction a cycle: what makes instructions a time.
    """

    tool: ClassVar[str] = "qemu-system-arm"

    code_kb: float = 0.0
    tflm: str
    clock_mhz: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.clock_mhz > 0:
            raise ConfigError("device.clock_mhz", self.clock_mhz, "a number above 0")
        if not (Path(self.tflm).expanduser() / "tensorflow/lite/micro").is_dir():
            expected = "a clone of https://github.com/tensorflow/tflite-micro"
            raise ConfigError("device.tflm", self.tflm, expected)

    @property
    def estimated(self) -> Mapping[str, str]:
        return {
            "latency_ms": f"time at {self.clock_mhz:g} MHz and one instruction a cycle, of the "
            "instructions that QEMU counts in a Cortex-M4, with reference kernels",
            "sram_kb": "arena that TensorFlow Lite Micro uses there, with pointers of 32 bits; "
            "without stack and the program's own memory",
            "flash_kb": f"program with the network, and {self.code_kb:g} KB of further code",
        }

    def _versions(self) -> dict[str, str]:
        for program, packages in _PROGRAMS.items():
            if shutil.which(program) is None:
                raise DeviceError(f"{program} is not installed; apt-get install {packages}")
        compiler, emulator = (
            str(_VERSION.findall(_run([program, "--version"], "").splitlines()[0])[-1])
            for program in ("arm-none-eabi-g++", "qemu-system-arm")
        )
        return {"qemu": emulator, "compiler": compiler, "tflite_micro": tflm.version()}

    def _estimate(self, network: PreparedNetwork, input_shape: tuple[int, int, int]) -> Measurement:
        channels, height, width = input_shape
        arena = tflm.arena(network.path, input_shape)
        shape = (1, height, width, channels)
        image = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
        found, flash_bytes = self.answer(network.path, image, arena.head_bytes + arena.tail_bytes)
        instructions = TICK_INSTRUCTIONS * found["ticks"]
        return self._said(
            network,
            found["arena_used_bytes"],
            flash_bytes,
            {"instructions": instructions, **found},
            samples_ms=(instructions / (1e3 * self.clock_mhz),),
        )

    def answer(
        self, path: Path, image: np.ndarray[Any, np.dtype[np.int8]], arena_bytes: int
    ) -> tuple[dict[str, Any], int]:
        """Compile a network and run it once in QEMU.

        Args:
            path: Of a `.tflite` file in 8 bits.
            image: What it is run on, as it takes it.
            arena_bytes: Memory to set aside for it.

        Returns:
            What the program prints, and its size in bytes without the memory that starts empty.

        Raises:
            DeviceError: It cannot be compiled or run.
        """
        sources = Path(self.tflm).expanduser().absolute()
        key = hashed([str(sources), self._versions()], 12)
        folder = cache_path("cortex_m") / key
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{key}.lock").open("w") as lock:
            while not try_lock(lock):  # another process compiles there
                time.sleep(0.1)
            write_project(path.read_bytes(), tflm.operators(path), arena_bytes, image, folder)
            make = ["make", "-s", "-C", str(folder), f"TFLM={sources}"]
            _run(make, f"{path}: cannot be compiled for a Cortex-M4")
            said = _run([*make, "run"], f"{path}: does not run in QEMU")
            sizes = _run(["arm-none-eabi-size", str(folder / "build/network.elf")], "")
        text, data = map(int, sizes.splitlines()[1].split()[:2])
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        if "error" in found:
            raise DeviceError(f"{path}: does not run in QEMU ({found['error']})")
        return found, text + data


def _run(command: list[str], failed: str) -> str:
    """Run a program to its end; return what it prints.

    Raises:
        DeviceError: It fails; begins with `failed`.
    """
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        said = last_lines(done.stdout + done.stderr) or f"exit {done.returncode}"
        raise DeviceError(f"{failed or command[0]} ({said[:300]})")
    return done.stdout
