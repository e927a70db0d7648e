"""The network that is compressed: its layers, its weights, and its outputs for two images.

Once it is saved, the module that it was traced from is needed no more: layers and functions are
plain values in a JSON file, and weights are in a safetensors file.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from nas.compression.functions import check_calls
from nas.compression.tracing import Shape, Traced, traced
from nas.core.errors import ConfigError, HwnasError, one_line
from nas.core.files import hashed, json_values, write_bytes_atomically, write_json_atomically
from nas.core.records import decoding, read_json

RECORD, WEIGHTS = "traced.json", "model.safetensors"
ANSWER = ":answer"
"""Name of the outputs among the tensors of a folder, which is no path in a module."""


@dataclass(frozen=True)
class Base:
    """A traced network with its weights.

    Attributes:
        layers: Its layers and functions, in their order.
        input_shape: `(C, H, W)` of the images that it was traced for.
        tensors: Its parameters and buffers, by their path in the module.
        parameters: Paths of those that are trained.
        answer: What it returns for `images`, `(2, outputs)`.
    """

    layers: tuple[Traced, ...]
    input_shape: Shape
    tensors: Mapping[str, torch.Tensor]
    parameters: frozenset[str]
    answer: torch.Tensor

    @classmethod
    def of(cls, module: nn.Module, input_shape: Shape) -> Base:
        """Trace a copy of a module, in evaluation mode.

        Raises:
            ConfigError: It cannot be traced, or does not take such images.
        """
        try:
            module = copy.deepcopy(module).cpu().eval()
        except (RuntimeError, TypeError) as error:
            expected = "a module that can be copied"
            fix = f"{one_line(error)}; remove parametrisations and masks of its layers"
            got = type(module).__name__
            raise ConfigError("search_space.base", got, expected, fix) from error
        layers = tuple(traced(module, input_shape))
        parameters = dict(module.named_parameters())
        with torch.no_grad():
            answer = module(images(input_shape))
        tensors = {**parameters, **dict(module.named_buffers())}
        for path in (path for layer in layers for path in layer.tensors.values()):
            owner, _, name = path.rpartition(".")
            tensors[path] = getattr(module.get_submodule(owner), name)
        return cls(
            layers=layers,
            input_shape=tuple(input_shape),
            tensors={
                path: tensor.detach().clone(memory_format=torch.contiguous_format)
                for path, tensor in tensors.items()
            },
            parameters=frozenset(parameters),
            answer=answer,
        )

    @cached_property
    def sha256(self) -> str:
        """Digest of the layers and the weights, in hexadecimal digits."""
        digest = hashlib.sha256(hashed(self._record, 64).encode())
        for path, tensor in sorted(self.tensors.items()):
            digest.update(path.encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def name(self) -> str:
        """Of its folder: the beginning of the digest."""
        return self.sha256[:12]

    def state(self, path: str) -> dict[str, torch.Tensor]:
        """Return the tensors of a layer of the module, by their names in it."""
        own = f"{path}."
        return {n.removeprefix(own): t for n, t in self.tensors.items() if n.startswith(own)}

    @property
    def _record(self) -> dict[str, Any]:
        """All but the tensors, in plain values."""
        return {
            "input_shape": list(self.input_shape),
            "layers": [json_values(dataclasses.asdict(layer)) for layer in self.layers],
            "parameters": sorted(self.parameters),
        }

    def save(self, parent: Path) -> Path:
        """Write it into the folder `name` of `parent`; return that folder."""
        folder = parent / self.name
        folder.mkdir(parents=True, exist_ok=True)
        content = save({**self.tensors, ANSWER: self.answer.contiguous()})
        write_bytes_atomically(folder / WEIGHTS, content)
        write_json_atomically(folder / RECORD, self._record)
        return folder

    @classmethod
    def load(cls, folder: Path, input_shape: Shape) -> Base:
        """Read what `save` wrote.

        Raises:
            HwnasError: A file is missing or damaged.
            ConfigError: It was traced for other images.
        """
        record = read_json(
            folder / RECORD, {"input_shape": list, "layers": list, "parameters": list}
        )
        shape = tuple(record["input_shape"])
        if shape != tuple(input_shape):
            expected = f"a network for images of {tuple(input_shape)}, as the data has"
            raise ConfigError("search_space.base", str(folder), expected, f"it takes {shape}")
        with decoding(folder / RECORD):
            layers = tuple(_read_layer(values) for values in record["layers"])
        weights = folder / WEIGHTS
        try:
            with decoding(weights):
                tensors = load_file(weights)
                answer = tensors.pop(ANSWER)
        except SafetensorError as error:
            line = f"is damaged ({one_line(error)})"
            raise HwnasError(f"{weights}: {line}; restore it from a copy") from error
        return cls(layers, shape, tensors, frozenset(record["parameters"]), answer)


def images(shape: Shape) -> torch.Tensor:
    """Return the two random images by whose outputs a network is recognised."""
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))


def _read_layer(values: Mapping[str, Any]) -> Traced:
    layer = Traced(
        **{
            **values,
            "inputs": tuple(values["inputs"]),
            "shape": tuple(values["shape"]),
            "calls": tuple(values["calls"]),
        }
    )
    known = getattr(nn, layer.target, None) if layer.target else nn.Module
    if not (isinstance(known, type) and issubclass(known, nn.Module)):
        raise ValueError(f"{layer.name}: got {layer.target!r}, expected a layer of torch.nn")
    check_calls(layer.calls)
    return layer
