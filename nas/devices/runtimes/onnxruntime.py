"""ONNX Runtime, with any of the execution providers of the installed build."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from nas.core.errors import ConfigError
from nas.core.files import temporary_folder
from nas.core.measurement import CALIBRATION_KEY, UNKNOWN_CALIBRATION, ImageArray
from nas.devices.measuring.runtime import (
    Execution,
    LoadedNetwork,
    ModelError,
    Runtime,
    check_input,
)
from nas.devices.runtimes import register

CPU_PROVIDER = "CPUExecutionProvider"
QUANTISED_OPERATORS = ("QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat")
"""What ONNX Runtime makes of quantised convolutions and products."""
_LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_THREAD_OPTIONS = {"xnnpack": "intra_op_num_threads", "openvino": "num_of_threads"}
"""Providers with a pool of threads of their own, which the session's setting does not reach."""


@register("onnxruntime")
@dataclass(frozen=True, kw_only=True)
class OnnxRuntime(Runtime):
    """Runs ONNX files with a provider of ONNX Runtime.

    Attributes:
        provider: Short name of an execution provider: `cpu`, `cuda`, `tensorrt`, `openvino`,
            `coreml`, `xnnpack`, `qnn`, ... Which there are depends on the installed build.
        allow_spinning: Whether idle threads wait busily.
        graph_optimization: Level: `disable`, `basic`, `extended` or `all`.
    """

    package: ClassVar[str] = "onnxruntime"
    extra: ClassVar[str | None] = "agent"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8")
    mixes_precisions: ClassVar[bool] = True
    constants: ClassVar[dict[str, Any]] = {"execution_mode": "sequential", "inter_op_threads": 1}

    provider: str = "cpu"
    allow_spinning: bool = False
    graph_optimization: str = "all"

    def __post_init__(self) -> None:
        if self.graph_optimization not in _LEVELS:
            expected = "one of " + ", ".join(_LEVELS)
            raise ConfigError(
                "device.runtime.graph_optimization", self.graph_optimization, expected
            )

    @classmethod
    def providers(cls) -> tuple[str, ...]:
        return tuple(sorted(_providers()))

    def load(self, path: Path, images: ImageArray, execution: Execution) -> LoadedNetwork:
        import onnxruntime

        # A report that is sent must not fall into a timed block.
        onnxruntime.disable_telemetry_events()
        return _Session(self, path, images, execution)

    def _session(self, path: Path, threads: int, profile: Path | None = None) -> Any:
        """Return a session, everything that bears on speed set explicitly.

        What it runs is written to a file whose name begins with `profile`, unless that is `None`.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = self.constants["inter_op_threads"]
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[self.graph_optimization])
        options.graph_optimization_level = level
        spinning = "1" if self.allow_spinning else "0"
        options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
        options.enable_profiling = profile is not None
        if profile is not None:
            options.profile_file_prefix = str(profile)
        options.log_severity_level = 4  # errors become exceptions, which say the same
        name, option = _providers()[self.provider], _THREAD_OPTIONS.get(self.provider)
        session = onnxruntime.InferenceSession(
            str(path),
            options,
            providers=[(name, {option: str(threads)} if option else {})],
            enable_fallback=0,
        )
        # ONNX Runtime drops a provider whose own libraries are missing, and says so in its log.
        if name not in session.get_providers():
            raise ModelError(f"got {session.get_providers()}, expected {name} to start")
        return session


class _Session(LoadedNetwork):
    def __init__(
        self, runtime: OnnxRuntime, path: Path, images: ImageArray, execution: Execution
    ) -> None:
        self._runtime, self._path, self._images = runtime, path, images
        self._execution = execution
        self._session = runtime._session(path, execution.threads)
        inputs = [(each.name, each.shape, each.type) for each in self._session.get_inputs()]
        check_input(inputs, images, "tensor(float)")
        self._binding = self._bind(self._session)
        self._run = self._session.run_with_iobinding

    def infer(self) -> None:
        self._run(self._binding)

    def run(self, images: ImageArray) -> ImageArray:
        self._images = images  # the binding holds no reference
        self._binding.bind_cpu_input(self._session.get_inputs()[0].name, images)
        self.infer()
        outputs: ImageArray = self._binding.copy_outputs_to_cpu()[0]
        return outputs

    def inspect(self) -> dict[str, Any]:
        """Say what runs; see `LoadedNetwork.inspect`.

        The processor's provider can run everything and nothing else can get in its way. Of any
        other, and of a quantised network, one run of a second session with the same settings is
        profiled: the timed session never is.
        """
        integers = self._execution.precision == "int8" or "int8" in self._execution.layers
        name = _providers()[self._runtime.provider]
        facts = {
            "provider": name,
            "threads": self._session.get_session_options().intra_op_num_threads,
        }
        if integers:
            metadata = self._session.get_modelmeta().custom_metadata_map
            facts["calibration"] = metadata.get(CALIBRATION_KEY, UNKNOWN_CALIBRATION)
        if name == CPU_PROVIDER and not integers:
            return facts
        nodes = self._profiled()
        placed = Counter(provider for _, provider in nodes)
        if not placed[name]:
            where = ", ".join(f"{n} on {provider}" for provider, n in placed.items())
            raise ModelError(f"no operator runs on {name} ({where}); it fell back silently")
        operators = Counter(operator for operator, _ in nodes)
        # Of other providers one cannot look into the operators that they fuse.
        quantised = sum(operators[operator] for operator in QUANTISED_OPERATORS)
        if self._execution.precision == "int8" and name == CPU_PROVIDER and not quantised:
            ran = ", ".join(sorted(operators))
            raise ModelError(f"runs no quantised operator ({ran}); measure it with precision fp32")
        return facts | {"operators_by_provider": dict(placed), "operators": dict(operators)}

    def _bind(self, session: Any) -> Any:
        binding = session.io_binding()
        binding.bind_cpu_input(session.get_inputs()[0].name, self._images)
        for output in session.get_outputs():
            binding.bind_output(output.name)
        return binding

    def _profiled(self) -> list[tuple[str, str]]:
        """Return operator and provider of everything that one inference runs."""
        with temporary_folder() as folder:
            session = self._runtime._session(
                self._path, self._execution.threads, folder / "profile"
            )
            session.run_with_iobinding(self._bind(session))
            events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
        nodes = [event["args"] for event in events if event.get("cat") == "Node"]
        return [(node["op_name"], node["provider"]) for node in nodes if "provider" in node]


def _providers() -> dict[str, str]:
    """Return ONNX Runtime's names of the providers that this build has, by short names."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return {name.removesuffix("ExecutionProvider").lower(): name for name in available}
