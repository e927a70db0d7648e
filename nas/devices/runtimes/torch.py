"""PyTorch on the processor, eager or compiled."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas.core.errors import ExportError
from nas.core.measurement import ImageArray
from nas.devices.measuring.runtime import (
    SENTINEL_SHAPE,
    Execution,
    LoadedNetwork,
    Runtime,
    check_input,
)
from nas.devices.runtimes import register
from nas.devices.runtimes.torch_program import checked_program

if TYPE_CHECKING:
    from torch import nn

_SENTINEL_LAYERS = 4


@register("torch")
@dataclass(frozen=True, kw_only=True)
class Torch(Runtime):
    """Runs programs of `torch.export` in PyTorch.

    What ONNX says of a network is not what PyTorch runs: normalisations are folded in it and
    attention is taken apart. So the network itself is needed, not its ONNX file.

    Attributes:
        compiled: Whether `torch.compile` makes kernels of it, which needs a C++ compiler and takes
            from seconds to minutes a network.
    """

    package: ClassVar[str] = "torch"
    extra: ClassVar[str | None] = "search"
    takes: ClassVar[str] = "pt2"
    takes_onnx: ClassVar[bool] = False
    constants: ClassVar[dict[str, Any]] = {"inter_op_threads": 1}

    compiled: bool = False

    def prepare(
        self,
        model: nn.Module | Path,
        input_shape: tuple[int, int, int],
        stem: Path,
        images: ImageArray | None,
        execution: Execution,
    ) -> Path:
        """Write a network as a program of `torch.export`; see `Runtime.prepare`.

        Raises:
            ExportError: `torch.export` cannot express it, or it is an ONNX file.
        """
        del images, execution
        if isinstance(model, Path):
            raise ExportError(
                "runtime torch: got a file, expected the network as an nn.Module, or a .pt2 file "
                "of torch.export; an ONNX file says what other runtimes run, so use one of those"
            )
        from nas.network.onnx import export_program

        return export_program(model, input_shape, stem.with_suffix(f".{self.takes}"))

    def load(self, path: Path, images: ImageArray, execution: Execution) -> LoadedNetwork:
        torch = self._configured(execution.threads)
        program = torch.export.load(checked_program(path))
        module = program.module(check_guards=False)
        check_input(_inputs(program), images, "torch.float32")
        if self.compiled:
            module = torch.compile(module, fullgraph=True, dynamic=False)
        return _Program(module, images, self)

    def sentinel(self, execution: Execution) -> LoadedNetwork:
        # It runs eagerly in any case.
        torch = self._configured(execution.threads)
        channels = SENTINEL_SHAPE[0]
        layers = [
            layer
            for _ in range(_SENTINEL_LAYERS)
            for layer in (torch.nn.Conv2d(channels, channels, 3, padding=1), torch.nn.ReLU())
        ]
        images = np.ones((1, *SENTINEL_SHAPE), np.float32)
        return _Program(torch.nn.Sequential(*layers).eval(), images, self)

    def _configured(self, threads: int) -> Any:
        # Otherwise a pool of compilers stays beside the networks that are timed.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        import torch

        torch.set_num_threads(threads)
        # It can be set only once, before anything has run.
        if torch.get_num_interop_threads() != self.constants["inter_op_threads"]:
            torch.set_num_interop_threads(self.constants["inter_op_threads"])
        return torch


class _Program(LoadedNetwork):
    def __init__(self, module: Any, images: ImageArray, runtime: Torch) -> None:
        import torch

        self._module, self._runtime = module, runtime
        self._from_numpy = torch.from_numpy
        self._images = torch.from_numpy(images.copy())
        self._inference_mode = torch.inference_mode
        self._threads = torch.get_num_threads()
        self._outputs: Any = None

    def infer(self) -> None:
        with self._inference_mode():
            self._outputs = self._module(self._images)

    def run(self, images: ImageArray) -> ImageArray:
        self._images.copy_(self._from_numpy(images))
        self.infer()
        outputs: ImageArray = self._outputs.numpy().copy()
        return outputs

    def inspect(self) -> dict[str, Any]:
        provider = "inductor" if self._runtime.compiled else "eager"
        return {"provider": provider, "threads": self._threads}


def _inputs(program: Any) -> list[tuple[str, list[Any], str]]:
    names = set(program.graph_signature.user_inputs)
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.name in names}
    return [
        (name, [s if isinstance(s, int) else str(s) for s in value.shape], str(value.dtype))
        for name, value in values.items()
    ]
