"""The process that runs networks, so that nothing else of ours runs beside them.

`python -m nas.devices.measuring.worker` reads one request a line from standard input and writes
one answer a line to standard output, both JSON objects. A request names its operation as `op`;
the other entries are the operation's arguments. An answer with an `error` says what was wrong
with a network, or with this machine; any other failure ends the process. Before its answer an
operation may write lines with a `notice`, for people. The process ends when its input ends. It may
run on another machine than the one that asks: then files come through `receive`.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import importlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

import nas
from nas.core.errors import HwnasError
from nas.core.files import temporary_folder
from nas.core.host import measuring
from nas.core.measurement import ImageArray
from nas.devices import runtimes
from nas.devices.measuring import resources
from nas.devices.measuring.environment import describe_host, hardware, load_average
from nas.devices.measuring.runtime import (
    Execution,
    LoadedNetwork,
    ModelError,
    Runtime,
    random_images,
)

SILENCE_SECONDS = 300
"""For which a process that holds the lease waits for a request before it ends itself."""


def encoded(array: ImageArray) -> str:
    """Return an array as NumPy's file format in base64."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return base64.b64encode(file.getbuffer()).decode()


def decoded(text: str) -> ImageArray:
    """Return the array that `encoded` was given."""
    array: ImageArray = np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
    return array


class Worker:
    """The operations; each method is one and returns its answer."""

    def __init__(self, opened: contextlib.ExitStack, notice: Callable[[str], None]) -> None:
        """Begin without networks.

        Args:
            opened: Gets what must be released at the end: the lease, and received files.
            notice: Told what an operation waits for.
        """
        self.leased = False
        self._opened, self._notice = opened, notice
        self._folder: Path | None = None
        self._runtime: Runtime
        self._execution: Execution
        self._networks: list[LoadedNetwork] = []

    def start(
        self, module: str, name: str, settings: dict[str, Any], execution: dict[str, Any]
    ) -> dict[str, Any]:
        """Choose the runtime of all networks; `module` registers it, which may be a user's own."""
        importlib.import_module(module)
        self._runtime = runtimes.get(name, **settings)
        self._execution = Execution(**execution)
        self._runtime.start()
        return {}

    def describe(self, module: str, name: str, threads: int, provider: str) -> dict[str, Any]:
        """Say what this machine is, and which releases of the runtime and of hwnas it has."""
        importlib.import_module(module)
        return {
            "hwnas": nas.__version__,
            "hardware": hardware(threads, provider),
            "runtime_version": runtimes.component(name).version(),
        }

    def receive(self, name: str, data: str, first: bool) -> dict[str, Any]:
        """Write the next part of a file, in base64, into a folder that lasts as long as this."""
        if self._folder is None:
            self._folder = self._opened.enter_context(temporary_folder())
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb" if first else "ab") as file:
            file.write(base64.b64decode(data))
        return {"folder": str(self._folder)}

    def load(self, path: str, input_shape: list[int], choices: dict[str, Any]) -> dict[str, Any]:
        """Load one more network, whose index is the number of those loaded before."""
        network = self._loaded(path, random_images((1, *input_shape)), choices)
        with self._runtime.failures("run"):
            network.infer()  # when some runtimes find out that they cannot
            facts = network.inspect()
        self._networks.append(network)
        return facts

    def load_sentinel(self) -> dict[str, Any]:
        """Load the sentinel as one more network."""
        with self._runtime.failures("load"):
            sentinel = self._runtime.sentinel(self._execution)
            sentinel.infer()
        self._networks.append(sentinel)
        return {}

    def run(self, index: int, images: str) -> dict[str, Any]:
        """Run a network on each of several images; images and outputs are `encoded`."""
        network = self._networks[index]
        with self._runtime.failures("run"):
            outputs = [network.run(image[None]) for image in decoded(images)]
        return {"outputs": encoded(np.concatenate(outputs))}

    def lease(self) -> dict[str, Any]:
        """Wait for this machine's lease and hold it to the end; say what surrounds the run."""
        self._opened.enter_context(measuring(self._notice))
        self.leased = True
        return describe_host() | {"load_before": load_average()}

    def load_average(self) -> dict[str, Any]:
        """Say what load this machine has."""
        return {"load_after": load_average()}

    def warm_up(self, index: int, seconds: float, block_ms: float) -> dict[str, Any]:
        """Warm a network up; say how many inferences fill a block."""
        network = self._networks[index]
        with self._runtime.failures("run"):
            return {"inferences": network.warm_up(seconds, block_ms)}

    def block(self, index: int, inferences: int) -> dict[str, Any]:
        """Time one block of a network."""
        network = self._networks[index]
        with self._runtime.failures("run"):
            return {"ms": network.block_ms(inferences)}

    def energy(self, index: int, seconds: float, provider: str) -> dict[str, Any]:
        """Say what one inference of a network costs in energy, `None` where nothing counts it."""
        before = resources.read_energy(provider)
        if before is None:
            return {"mj": None, "source": None}
        network = self._networks[index]
        with self._runtime.failures("run"):
            inferences = len(network.run_for(seconds))
        after = resources.read_energy(provider)
        spent_mj = None if after is None else after.since(before) / inferences
        return {"mj": spent_mj, "source": before.source}

    def peak_memory(
        self, path: str, input_shape: list[int], choices: dict[str, Any], runs: int
    ) -> dict[str, Any]:
        """Say by how much loading and running a network raises the process's high-water mark.

        The mark only rises, so this is for a process that has loaded nothing but the sentinel.
        """
        # Before the mark: neither the images nor NumPy's generator belong to the network.
        images = random_images((1, *input_shape))
        gc.collect()
        method = resources.memory_method()
        if resources.reset_high_water():
            method += " after reset"
        before_mb = resources.high_water_mb()
        network = self._loaded(path, images, choices)
        loaded_mb = resources.high_water_mb()
        with self._runtime.failures("run"):
            for _ in range(1 + runs):
                network.infer()
        after_mb = resources.high_water_mb()
        if before_mb is None or loaded_mb is None or after_mb is None:
            return {"mb": None, "loading_mb": None, "method": method}
        return {"mb": after_mb - before_mb, "loading_mb": loaded_mb - before_mb, "method": method}

    def _loaded(self, path: str, images: ImageArray, choices: dict[str, Any]) -> LoadedNetwork:
        runtime, execution = self._runtime.chosen(self._execution, choices)
        if runtime != self._runtime:
            runtime.start()
        with runtime.failures("load"):
            return runtime.load(Path(path), images, execution)


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer every line of `requests` with a line of `answers`."""

    def write(line: dict[str, Any]) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    with contextlib.ExitStack() as opened:
        worker = Worker(opened, lambda text: write({"notice": text}))
        for line in requests:
            _limit_silence(0)
            request = json.loads(line)
            operation = getattr(worker, request.pop("op"))
            try:
                answer = operation(**request)
            except (ModelError, HwnasError) as error:
                answer = {"error": str(error)}
            write(answer)
            if worker.leased:
                _limit_silence(SILENCE_SECONDS)


def _limit_silence(seconds: int) -> None:
    """End this process after `seconds` without another call; 0 lifts the limit.

    A connection may be lost without a word, and a lost client must not keep the machine.
    """
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _end(number: int, frame: object) -> None:
    del frame
    raise SystemExit(f"ended by {signal.Signals(number).name}")


def main() -> None:
    """Serve the standard streams."""
    for name in ("SIGALRM", "SIGHUP", "SIGTERM"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _end)
    # A library that prints must not get between the answers, so standard output is moved away.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    gc.disable()  # a collection would fall into a timed block
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
