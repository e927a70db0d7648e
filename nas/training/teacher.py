"""What a network learns from beside the targets: another trained network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from nas.core.dataset import Examples
from nas.core.host import training_step
from nas.network.trained import Preprocessing

CACHING_BATCH = 250
"""Images that a teacher sees at a time where its outputs are kept."""


class TeacherOutputs(NamedTuple):
    """What a teacher says of a batch, without a gradient.

    Attributes:
        outputs: As the task has them, `(n, ...)`.
        features: What its last linear layer has read, `(n, features)`; `None` where nobody asked.
    """

    outputs: torch.Tensor
    features: torch.Tensor | None = None


Teacher = Callable[[torch.Tensor, torch.Tensor], TeacherOutputs]
"""A teacher at work: of positions `(n,)` among the training examples and of their augmented pixels
`(n, C, H, W)`, on the device of the training."""


@dataclass(frozen=True, kw_only=True)
class TeacherNetwork(ABC):
    """A teacher as it is sent to workers.

    Attributes:
        provenance: Plain JSON: which network this is; `source` as in the settings, and the
            `sha256` of its weights where they are known.
    """

    provenance: Mapping[str, Any]

    @abstractmethod
    def start(self, device: torch.device, threads: int = 1, *, features: bool = False) -> Teacher:
        """Return the teacher at work.

        Args:
            device: Of the training.
            threads: Of a runtime other than torch.
            features: Whether it tells its features as well.

        Raises:
            ValueError: It has none, as no linear layer runs in it, or it is no `nn.Module`.
        """


@dataclass(frozen=True, kw_only=True)
class ModuleTeacher(TeacherNetwork):
    """A teacher in PyTorch.

    Attributes:
        module: Maps preprocessed images to outputs; a `nn.Module` is put into evaluation mode.
        preprocessing: Of its images, which are resized bilinearly where its `image_size` is another
            one.
    """

    module: Callable[[torch.Tensor], torch.Tensor]
    preprocessing: Preprocessing

    def start(self, device: torch.device, threads: int = 1, *, features: bool = False) -> Teacher:
        del threads
        module = self.module
        if isinstance(module, nn.Module):
            module = module.to(device).eval()
        last = None
        if features:
            if not isinstance(module, nn.Module):
                raise ValueError("it is no torch.nn.Module")
            shape = self.preprocessing.input_shape
            last = LastLinear(module, torch.zeros(1, *shape, device=device))

        def teach(positions: torch.Tensor, pixels: torch.Tensor) -> TeacherOutputs:
            del positions
            x = _input(pixels, self.preprocessing)
            with torch.no_grad(), nullcontext([None]) if last is None else last.reading() as read:
                outputs = module(x).float()
            return TeacherOutputs(outputs, read[0])

        return teach


@dataclass(frozen=True, kw_only=True)
class OnnxTeacher(TeacherNetwork):
    """A teacher in an ONNX file, which ONNX Runtime runs on the processor.

    Attributes:
        model: The file's bytes, `(n,)` uint8; its first input is images and its first output is
            learned from.
        preprocessing: As of `ModuleTeacher`.
        one_by_one: Whether it takes one image at a time.
    """

    model: npt.NDArray[np.uint8]
    preprocessing: Preprocessing
    one_by_one: bool

    def start(self, device: torch.device, threads: int = 1, *, features: bool = False) -> Teacher:
        import onnxruntime

        if features:
            raise ValueError("it is an ONNX file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(
            self.model.tobytes(), options, providers=["CPUExecutionProvider"]
        )
        images, outputs = session.get_inputs()[0].name, session.get_outputs()[0].name

        def teach(positions: torch.Tensor, pixels: torch.Tensor) -> TeacherOutputs:
            del positions
            x = _input(pixels, self.preprocessing).cpu()
            parts = torch.split(x, 1 if self.one_by_one else len(x))
            run = [session.run([outputs], {images: part.numpy()})[0] for part in parts]
            return TeacherOutputs(torch.from_numpy(np.concatenate(run)).to(device, torch.float32))

        return teach


@dataclass(frozen=True, kw_only=True)
class CachedTeacher(TeacherNetwork):
    """A teacher that has seen every training image once, as it is.

    Attributes:
        outputs: `(n, ...)` float32, of all training examples in their order.
    """

    outputs: npt.NDArray[np.float32]

    @classmethod
    def of(cls, teacher: TeacherNetwork, images: Examples, threads: int) -> CachedTeacher:
        """Let a teacher see images, on a GPU if there is one."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        teach, outputs = teacher.start(device, threads), []
        for start in range(0, len(images), CACHING_BATCH):
            with training_step():
                positions = np.arange(start, min(start + CACHING_BATCH, len(images)))
                pixels = torch.from_numpy(images.pixels[positions]).to(device)
                outputs.append(teach(torch.from_numpy(positions), pixels).outputs.cpu().numpy())
        return cls(provenance=teacher.provenance, outputs=np.concatenate(outputs))

    def start(self, device: torch.device, threads: int = 1, *, features: bool = False) -> Teacher:
        del threads
        if features:
            raise ValueError("its outputs alone are kept")

        def teach(positions: torch.Tensor, pixels: torch.Tensor) -> TeacherOutputs:
            del pixels
            return TeacherOutputs(torch.from_numpy(self.outputs[positions.numpy()]).to(device))

        return teach


class LastLinear:
    """The linear layer that gives a network's outputs, and what it reads.

    Attributes:
        size: Number of features that it reads.
    """

    def __init__(self, network: nn.Module, example: torch.Tensor) -> None:
        """Find the layer by running the network, whose mode and buffers are left as they are.

        Args:
            network: Maps images to outputs.
            example: `(1, C, H, W)`, on the device of `network`.

        Raises:
            ValueError: The outputs are not those of a linear layer that reads a vector an image.
        """
        last: list[Any] = [None, None]

        def note(module: nn.Module, _: Any, output: torch.Tensor) -> None:
            last[:] = module, output

        linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
        modes = {module: module.training for module in network.modules()}
        hooks = [module.register_forward_hook(note) for module in linear]
        with torch.no_grad():
            outputs = network.eval()(example)
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
        self._layer, found = last
        if found is not outputs or outputs.dim() != 2:
            raise ValueError("its outputs are not those of a linear layer")
        self.size: int = self._layer.in_features

    @contextmanager
    def reading(self) -> Iterator[list[torch.Tensor]]:
        """Return a list that gets the features `(n, size)` of every batch in a `with` block."""
        read: list[torch.Tensor] = []
        hook = self._layer.register_forward_pre_hook(lambda _, x: read.append(x[0].float()))
        try:
            yield read
        finally:
            hook.remove()


class FeatureMatch(nn.Module):
    """A learned linear map from a network's features to its teacher's (FitNets)."""

    def __init__(self, network: nn.Module, example: torch.Tensor, taught: torch.Tensor) -> None:
        """Begin with a random map; for the arguments see `LastLinear`; `taught` are features."""
        super().__init__()
        self.own = LastLinear(network, example)
        self.map = nn.Linear(self.own.size, taught.shape[1], bias=False, device=taught.device)

    def forward(self, own: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """Return the mean squared difference between features of the same images."""
        return F.mse_loss(self.map(own), taught)


def _input(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Return a network's input in its size, which of the images may be another one."""
    x, size = preprocessing(pixels), preprocessing.image_size
    if tuple(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", antialias=True)
