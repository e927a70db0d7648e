"""ExecuTorch, PyTorch's runtime for phones and boards, on the processor by XNNPACK."""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nas.core.errors import ExportError, one_line
from nas.core.measurement import CALIBRATION_KEY, INT8, ImageArray
from nas.devices.measuring.runtime import (
    Execution,
    LoadedNetwork,
    ModelError,
    Runtime,
    check_input,
)
from nas.devices.runtimes import register

if TYPE_CHECKING:
    from torch import nn

_METHOD = "forward"
_KINDS = {6: "float32"}
"""Types of tensors by their numbers in PyTorch's `ScalarType`."""


@register("executorch")
@dataclass(frozen=True, kw_only=True)
class ExecuTorch(Runtime):
    """Runs what ExecuTorch's compiler makes of networks; XNNPACK runs the operators that it has.

    The compiler takes programs of `torch.export`, so the network itself is needed, not its ONNX
    file. 8 bits are the static quantisation of torchao, with XNNPACK's quantiser and a scale for
    every channel of a weight.
    """

    package: ClassVar[str] = "executorch"
    extra: ClassVar[str | None] = "executorch"
    takes: ClassVar[str] = "pte"
    takes_onnx: ClassVar[bool] = False
    precisions: ClassVar[tuple[str, ...]] = ("fp32", INT8)
    constants: ClassVar[dict[str, Any]] = {"delegate": "XnnpackBackend"}

    def prepare(
        self,
        model: nn.Module | Path,
        input_shape: tuple[int, int, int],
        stem: Path,
        images: ImageArray | None,
        execution: Execution,
    ) -> Path:
        if isinstance(model, Path):
            raise ExportError(
                "runtime executorch: got a file, expected the network as an nn.Module, or a .pte "
                "file; ExecuTorch's compiler reads no ONNX files"
            )
        self.version()  # which fails where ExecuTorch, whose compiler is needed here, is missing
        from nas.network.quantisation import calibration_batch

        batch = origin = None
        if execution.precision == INT8:
            batch, origin = calibration_batch(input_shape, images)
        path = stem.with_suffix(f".{self.takes}")
        try:
            path.write_bytes(_compiled(model, input_shape, batch))
        except Exception as error:  # of the compiler's passes, which raise whatever they like
            said = f"{type(error).__name__}: {one_line(error)}"
            raise ExportError(f"ExecuTorch cannot compile it ({said[:300]})") from error
        if origin is not None:
            # ExecuTorch reads as many bytes as the program's header says.
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(CALIBRATION_KEY, origin)
        return path

    def load(self, path: Path, images: ImageArray, execution: Execution) -> LoadedNetwork:
        from executorch.runtime import Runtime as Loader
        from executorch.runtime import Verification

        threads = _with_threads(execution.threads)
        program = Loader.get().load_program(path, verification=Verification.InternalConsistency)
        if _METHOD not in program.method_names:
            raise ModelError(f"has no method {_METHOD!r}, which is what a network's file has")
        method = program.load_method(_METHOD)
        metas = [method.metadata.input_tensor_meta(i) for i in range(method.metadata.num_inputs())]
        inputs = [
            (f"input {i}", list(meta.sizes()), _KINDS.get(meta.dtype(), f"type {meta.dtype()}"))
            for i, meta in enumerate(metas)
        ]
        check_input(inputs, images, "float32")
        facts = {"provider": "XNNPACK", "threads": threads}
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                facts["calibration"] = archive.read(CALIBRATION_KEY).decode()
        return _Program(program, method, images, execution, facts)


def _compiled(
    model: nn.Module, input_shape: tuple[int, int, int], batch: ImageArray | None
) -> bytes:
    """Compile a network; with images, quantise it to 8 bits."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their own use of what PyTorch will change
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        example = (torch.zeros(1, *input_shape),)
        program = torch.export.export(model.eval(), example)
        if batch is not None:
            module = _quantised(program.module(check_guards=False), torch.from_numpy(batch))
            program = torch.export.export(module, example)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        return bytes(lowered.to_executorch().buffer)


def _quantised(module: Any, images: Any) -> Any:
    """Return a module with 8 bits, whose ranges of activations are those on images."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    scheme = get_symmetric_quantization_config(is_per_channel=True)
    prepared = prepare_pt2e(module, XNNPACKQuantizer().set_global(scheme))
    for image in images:
        prepared(image[None])
    return convert_pt2e(prepared)


def _with_threads(threads: int) -> int:
    """Set the number of threads of this process; return how many there are.

    Raises:
        ModelError: There are others, as this release sets them in another way.
    """
    # Without it there are as many as the processor has fast cores; there is no public function.
    from executorch.extension.pybindings import portable_lib

    if portable_lib._threadpool_get_thread_count() != threads:
        portable_lib._unsafe_reset_threadpool(threads)
    found = int(portable_lib._threadpool_get_thread_count())
    if found != threads:
        raise ModelError(f"runs with {found} threads, expected {threads}")
    return found


class _Program(LoadedNetwork):
    def __init__(
        self,
        program: Any,
        method: Any,
        images: ImageArray,
        execution: Execution,
        facts: dict[str, Any],
    ) -> None:
        import torch

        # The method does not keep its program alive.
        self._program, self._method = program, method
        self._execution, self._facts = execution, facts
        self._images = torch.from_numpy(images.copy())
        self._outputs: Any = None

    def infer(self) -> None:
        (self._outputs,) = self._method.execute([self._images])

    def run(self, images: ImageArray) -> ImageArray:
        import torch

        self._images.copy_(torch.from_numpy(images))
        self.infer()
        outputs: ImageArray = self._outputs.numpy().copy()
        return outputs

    def inspect(self) -> dict[str, Any]:
        if self._execution.precision == INT8 and "calibration" not in self._facts:
            raise ModelError("does not say that it is quantised; measure it with precision fp32")
        return self._facts
