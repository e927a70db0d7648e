"""Networks in ONNX Runtime, on the processor, ready to be timed."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

PROVIDER = "CPUExecutionProvider"
INPUT_SEED = 0
OPTIMIZATION_LEVELS = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
ORT_ERRORS = (
    ort_state.EPFail,
    ort_state.EngineError,
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NoModel,
    ort_state.NoSuchFile,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
)


class ModelError(Exception):
    """A model file cannot be loaded or does not have the expected input."""


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """How ONNX Runtime runs a network.

    Attributes:
        threads: Threads that work on one operator.
        allow_spinning: Whether idle threads wait busily.
        graph_optimization: One of `OPTIMIZATION_LEVELS`.
    """

    threads: int
    allow_spinning: bool
    graph_optimization: str

    def options(self) -> ort.SessionOptions:
        """Return the session options, everything that bears on speed set explicitly."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = OPTIMIZATION_LEVELS[self.graph_optimization]
        spinning = "1" if self.allow_spinning else "0"
        options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
        options.enable_profiling = False
        options.log_severity_level = 3  # errors only
        return options


class Runner:
    """One loaded network with its input and output bound.

    Binding spares the copies that a plain `run` makes (about 8 microseconds a call), which belong
    to the caller and not to the network.
    """

    def __init__(self, path: str, input_shape: list[int], settings: SessionSettings) -> None:
        """Load a network.

        Args:
            path: An ONNX file.
            input_shape: `[1, channels, height, width]`, the shape that its only input must have.
            settings: How to run it.

        Raises:
            ModelError: It cannot be loaded, or its input is another one.
        """
        try:
            self._session = ort.InferenceSession(path, settings.options(), providers=[PROVIDER])
        except ORT_ERRORS as error:
            raise ModelError(f"ONNX Runtime cannot load it ({_one_line(error)})") from error
        self.providers = list(self._session.get_providers())
        if self.providers != [PROVIDER]:
            raise ModelError(f"runs on {self.providers}, expected [{PROVIDER!r}]")
        name = _check_input(self._session.get_inputs(), input_shape)
        images = np.random.default_rng(INPUT_SEED).standard_normal(input_shape, dtype=np.float32)
        self._binding = self._session.io_binding()
        self._binding.bind_cpu_input(name, images)
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name)

    def run(self) -> None:
        """Run one inference.

        Raises:
            ModelError: It cannot be run.
        """
        try:
            self._session.run_with_iobinding(self._binding)
        except ORT_ERRORS as error:
            raise ModelError(f"ONNX Runtime cannot run it ({_one_line(error)})") from error

    def time_ms(self) -> float:
        """Run one inference; return its milliseconds."""
        start = time.perf_counter_ns()
        self.run()
        return (time.perf_counter_ns() - start) / 1e6

    def warm_up(self, seconds: float, block_ms: float) -> int:
        """Run for `seconds`; return how many inferences fill a block of `block_ms`."""
        times_ms: list[float] = []
        deadline = time.perf_counter() + seconds
        while len(times_ms) < 2 or time.perf_counter() < deadline:
            times_ms.append(self.time_ms())
        return max(1, math.ceil(block_ms / statistics.median(times_ms)))

    def block_ms(self, inferences: int) -> float:
        """Return the median time of `inferences` inferences, in milliseconds.

        One more inference goes before them untimed: after another network has run it takes twice
        as long, because the caches hold the other one's weights.
        """
        self.run()
        return statistics.median(self.time_ms() for _ in range(inferences))


def _check_input(inputs: list[Any], input_shape: list[int]) -> str:
    """Return the name of the only input, which must be float32 of `input_shape`."""
    if len(inputs) != 1:
        names = ", ".join(repr(each.name) for each in inputs) or "none"
        raise ModelError(f"has {len(inputs)} inputs ({names}), expected one of shape {input_shape}")
    (only,) = inputs
    shape = list(only.shape)
    if not all(isinstance(size, int) for size in shape):
        raise ModelError(
            f"input {only.name!r} has the dynamic shape {shape}, expected the fixed shape "
            f"{input_shape}; export it with fixed sizes and batch 1"
        )
    if shape != input_shape:
        raise ModelError(f"input {only.name!r} has shape {shape}, expected {input_shape}")
    if only.type != "tensor(float)":
        raise ModelError(f"input {only.name!r} is a {only.type}, expected tensor(float)")
    return str(only.name)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
