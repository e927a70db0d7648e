"""The process that runs networks, so that nothing else of ours runs beside them.

`python -m nas.devices.measuring.worker` reads one request a line from standard input and writes
one answer a line to standard output, both JSON objects. A request names its operation as `op`;
the other entries are the operation's arguments. An answer with an `error` says what was wrong
with a model; any other failure ends the process. It ends when its input ends.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from nas.devices import runtimes
from nas.devices.measuring import energy, high_water
from nas.devices.measuring.runner import Runner, random_images
from nas.devices.measuring.runtime import ModelError, Runtime


class Worker:
    """The operations; each method is one and returns its answer."""

    def __init__(self) -> None:
        """Begin without networks."""
        self._runtime: Runtime
        self._runners: list[Runner] = []

    def start(self, module: str, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Choose the runtime of all networks; `module` registers it, which may be a user's own."""
        importlib.import_module(module)
        self._runtime = runtimes.get(name, **settings)
        self._runtime.start()
        return {"python": platform.python_version()}

    def load(self, path: str, input_shape: list[int]) -> dict[str, Any]:
        """Load one more network, whose index is the number of those loaded before."""
        runner = Runner(self._runtime.load(Path(path), random_images((1, *input_shape))))
        facts = runner.network.inspect()
        self._runners.append(runner)
        return facts

    def load_sentinel(self) -> dict[str, Any]:
        """Load the sentinel as one more network."""
        self._runners.append(Runner(self._runtime.sentinel()))
        return {}

    def outputs(self, index: int, images: str, outputs: str) -> dict[str, Any]:
        """Run a network on each image of the NumPy file `images`; write the file `outputs`."""
        network, made = self._runners[index].network, []
        for image in np.load(images, allow_pickle=False):
            network.put(image[None])
            network.run()
            made.append(network.logits())
        np.save(outputs, np.concatenate(made))
        return {}

    def warm_up(self, index: int, seconds: float, block_ms: float) -> dict[str, Any]:
        """Warm a network up; say how many inferences fill a block."""
        return {"inferences": self._runners[index].warm_up(seconds, block_ms)}

    def block(self, index: int, inferences: int) -> dict[str, Any]:
        """Time one block of a network."""
        return {"ms": self._runners[index].block_ms(inferences)}

    def energy(self, index: int, seconds: float, provider: str) -> dict[str, Any]:
        """Say what one inference of a network costs in energy, `None` where nothing counts it."""
        before = energy.read(provider)
        if before is None:
            return {"mj": None, "source": None}
        inferences = len(self._runners[index].run_for(seconds))
        after = energy.read(provider)
        spent_mj = None if after is None else after.since(before) / inferences
        return {"mj": spent_mj, "source": before.source}

    def peak_memory(self, path: str, input_shape: list[int], runs: int) -> dict[str, Any]:
        """Say by how much loading and running a network raises the process's high-water mark.

        The mark only rises, so this is for a process that has loaded nothing but the sentinel.
        """
        images = random_images((1, *input_shape))
        gc.collect()
        method = high_water.method() + (" after reset" if high_water.reset() else "")
        before_mb = high_water.high_water_mb()
        network = self._runtime.load(Path(path), images)
        loaded_mb = high_water.high_water_mb()
        runner = Runner(network)
        for _ in range(runs):
            runner.run()
        after_mb = high_water.high_water_mb()
        if before_mb is None or loaded_mb is None or after_mb is None:
            return {"mb": None, "loading_mb": None, "method": method}
        return {"mb": after_mb - before_mb, "loading_mb": loaded_mb - before_mb, "method": method}


OPERATIONS = (
    "start",
    "load",
    "load_sentinel",
    "outputs",
    "warm_up",
    "block",
    "energy",
    "peak_memory",
)


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer every line of `requests` with a line of `answers`."""
    worker = Worker()
    for line in requests:
        request = json.loads(line)
        operation = request.pop("op")
        if operation not in OPERATIONS:
            raise ValueError(f"op: got {operation!r}, expected one of {OPERATIONS}")
        try:
            answer = getattr(worker, operation)(**request)
        except ModelError as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Serve the standard streams."""
    # A library that prints must not get between the answers, so standard output is moved away.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    gc.disable()  # a collection would fall into a timed block
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
