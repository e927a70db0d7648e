"""ncnn, Tencent's runtime for phones and boards, on the processor."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas.core.errors import DeviceError, ExportError, last_lines, one_line
from nas.core.files import temporary_folder
from nas.core.measurement import ImageArray
from nas.devices.measuring.runtime import (
    Execution,
    LoadedNetwork,
    ModelError,
    Runtime,
    check_input,
    random_images,
)
from nas.devices.runtimes import register

if TYPE_CHECKING:
    from torch import nn

_CONVERT_SECONDS = 300.0
_PARAM, _BIN, _FACTS = "network.param", "network.bin", "facts.json"
"""Members of a prepared file: ncnn's two files, and what the network takes and answers."""
_COMPARED, _TOLERANCE = 100, 1e-3
"""Values of an output that are compared, and by how much of the largest one they may differ."""


@register("ncnn")
@dataclass(frozen=True, kw_only=True)
class Ncnn(Runtime):
    """Runs what its converter, pnnx, makes of ONNX files.

    The converter may write a file that does not load, or that computes something else, and report
    success. A prepared file therefore has the outputs of ONNX Runtime for one image with it, and
    is refused on a device that computes others.
    """

    package: ClassVar[str] = "ncnn"
    extra: ClassVar[str | None] = "ncnn"
    takes: ClassVar[str] = "ncnn"
    # ncnn's own default stores and calculates in 16 bits wherever the processor can.
    constants: ClassVar[dict[str, Any]] = {"fp16": False, "bf16": False, "vulkan": False}

    def prepare(
        self,
        model: nn.Module | Path,
        input_shape: tuple[int, int, int],
        stem: Path,
        images: ImageArray | None,
        execution: Execution,
    ) -> Path:
        del images
        converter = _converter_program()
        source = self.onnx_of(model, input_shape, stem, execution)
        image = random_images((1, *input_shape))
        outputs = _outputs(source, image)
        facts = {"input": image.shape, "output": outputs.shape, "sample": _sample(outputs).tolist()}
        path = stem.with_suffix(f".{self.takes}")
        with (
            _converted(converter, source, image.shape) as (param, weights),
            zipfile.ZipFile(path, "w") as file,
        ):
            file.writestr(_FACTS, json.dumps(facts))
            file.write(param, _PARAM)
            file.write(weights, _BIN)
        return path

    def load(self, path: Path, images: ImageArray, execution: Execution) -> LoadedNetwork:
        import ncnn

        network = ncnn.Net()
        options = network.opt
        options.num_threads = execution.threads
        options.use_vulkan_compute = self.constants["vulkan"]
        options.use_bf16_storage = options.use_bf16_packed = self.constants["bf16"]
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(options, name, self.constants["fp16"])
        # It reads files only, and these in parts, so that no copy counts as memory of the network.
        with zipfile.ZipFile(path) as file, temporary_folder() as folder:
            facts = json.loads(file.read(_FACTS))
            check_input([("in0", facts["input"], "float32")], images, "float32")
            for member in (_PARAM, _BIN):
                with file.open(member) as source, (folder / member).open("wb") as target:
                    shutil.copyfileobj(source, target)
            failed = network.load_param(str(folder / _PARAM))
            if failed or network.load_model(str(folder / _BIN)):
                raise ModelError("ncnn cannot load it, as it lacks one of its operators")
        loaded = _NcnnNetwork(network, tuple(facts["output"]))
        expected = np.array(facts["sample"], np.float32)
        difference = np.abs(_sample(loaded.run(random_images(images.shape))) - expected).max()
        if not difference <= _TOLERANCE * np.abs(expected).max():
            said = f"its outputs differ by {difference:.2g} of {np.abs(expected).max():.2g}"
            raise ModelError(f"ncnn computes something else than ONNX Runtime: {said}")
        loaded.put(images)
        return loaded


def _converter_program() -> Path:
    """Return the program that converts networks."""
    found = importlib.util.find_spec("pnnx")
    if found is None or found.origin is None:
        raise DeviceError("pnnx is not installed; pip install 'hwnas[ncnn]'")
    return Path(found.origin).with_name("pnnx")


@contextmanager
def _converted(
    converter: Path, source: Path, shape: tuple[int, ...]
) -> Iterator[tuple[Path, Path]]:
    """Convert an ONNX file in a folder that lasts as long as a `with` block; give both files."""
    with temporary_folder() as folder:
        shutil.copyfile(source, folder / "network.onnx")  # it writes beside what it reads
        sizes = ",".join(map(str, shape))
        try:
            done = subprocess.run(
                [converter, "network.onnx", f"inputshape=[{sizes}]", "fp16=0"],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_CONVERT_SECONDS,
                check=False,
                cwd=folder,
            )
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"pnnx did not convert it within {_CONVERT_SECONDS:g} s") from error
        param, weights = folder / "network.ncnn.param", folder / "network.ncnn.bin"
        said = done.stdout + done.stderr
        # Operators that ncnn lacks stay in the file under their names in PyTorch.
        left = [line for line in said.splitlines() if line.startswith("ignore ")]
        if done.returncode or left or not (param.is_file() and weights.is_file()):
            words = left[0] if left else last_lines(said) or f"exit {done.returncode}"
            raise ExportError(f"pnnx cannot convert it ({words[:300]})")
        yield param, weights


def _outputs(path: Path, images: ImageArray) -> ImageArray:
    """Return the outputs of an ONNX file."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        outputs: ImageArray = session.run(None, {session.get_inputs()[0].name: images})[0]
    except Exception as error:  # which have no common base
        raise ExportError(f"ONNX Runtime cannot run it ({one_line(error)})") from error
    return outputs


def _sample(outputs: ImageArray) -> ImageArray:
    """Return values of an output, `_COMPARED` at most, at equal distances."""
    flat = outputs.ravel()
    return flat[:: -(-len(flat) // _COMPARED)]


class _NcnnNetwork(LoadedNetwork):
    def __init__(self, network: Any, shape: tuple[int, ...]) -> None:
        self._network, self._shape = network, shape

    def put(self, images: ImageArray) -> None:
        """Put images in place."""
        import ncnn

        self._input = ncnn.Mat(np.ascontiguousarray(images[0])).clone()

    def infer(self) -> None:
        extractor = self._network.create_extractor()
        extractor.input("in0", self._input)
        code, self._output = extractor.extract("out0")
        if code:
            raise ModelError(f"ncnn cannot run it (code {code})")

    def run(self, images: ImageArray) -> ImageArray:
        self.put(images)
        self.infer()
        values = np.array(self._output, np.float32)
        if values.size != np.prod(self._shape):
            raise ModelError(f"ncnn returns {list(values.shape)}, expected {list(self._shape)}")
        return values.reshape(self._shape)

    def inspect(self) -> dict[str, Any]:
        return {"provider": "CPU", "threads": self._network.opt.num_threads}
