"""A trained network: module, preprocessing, provenance and metrics."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from nas.core.dataset import Examples
from nas.core.errors import ConfigError, HwnasError, one_line
from nas.core.files import json_values, write_bytes_atomically, write_json_atomically
from nas.core.records import decoding, read_json

WEIGHTS, FACTS = "weights.safetensors", "network.json"

DIGEST = "weights_sha256"
"""Of the weights, among the facts."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How pixels become the network's input: `(pixels / scale - mean) / std`, per channel.

    Attributes:
        mean: Of the scaled pixels, one value a channel.
        std: Standard deviation of the scaled pixels, one value a channel.
        image_size: Height and width of the images, in pixels.
        scale: What the uint8 pixels are divided by first.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: tuple[int, int]
    scale: float = 255.0

    def __post_init__(self) -> None:
        """Turn the values into Python numbers and check them."""
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        height, width = self.image_size
        object.__setattr__(self, "image_size", (int(height), int(width)))
        if not self.mean or len(self.mean) != len(self.std):
            raise ConfigError("preprocessing.std", self.std, f"{len(self.mean)} values, as in mean")
        if not all(value > 0 for value in (*self.std, *self.image_size, self.scale)):
            raise ConfigError("preprocessing", asdict(self), "positive std, image size and scale")

    @classmethod
    def of(cls, images: Examples) -> Preprocessing:
        """Take the mean and standard deviation of every channel of `images`."""
        # Counting the 256 byte values is exact, whatever parts the images are read in.
        counts = torch.zeros(images.pixels.shape[1], 256, dtype=torch.int64)
        for part in images.parts():
            for channel, found in enumerate(counts):
                values = torch.from_numpy(part[:, channel].reshape(-1).copy())
                found += torch.bincount(values, minlength=256)
        levels = torch.arange(256, dtype=torch.float64) / 255
        mean, std = [], []
        for found in counts:
            share = found.double() / found.sum()
            centre = float((share * levels).sum())
            mean.append(centre)
            std.append(max(float((share * (levels - centre) ** 2).sum()) ** 0.5, 1 / 255))
        height, width = images.pixels.shape[2:]
        return cls(mean=tuple(mean), std=tuple(std), image_size=(height, width))

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return pixels, `(N, C, H, W)` uint8, as the network's input in float32."""
        mean, std = (_by_channel(values, pixels.device) for values in (self.mean, self.std))
        x = pixels.to(torch.float32, copy=True)  # changed in place, as memory is what takes time
        return x.div_(self.scale).sub_(mean).div_(std)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(channels, height, width)` of the network's input."""
        return len(self.mean), *self.image_size


def check_digest(folder: Path, facts: Mapping[str, Any], found: str, fix: str) -> None:
    """Check that weights are those that `TrainedNetwork.save` has written with some facts.

    Raises:
        HwnasError: They have another SHA-256 than the facts say; studies of former releases do not.
    """
    if facts.get(DIGEST, found) != found:
        line = f"{folder / WEIGHTS}: has another SHA-256 than {folder / FACTS} says"
        raise HwnasError(f"{line}; {fix}")


@functools.lru_cache(maxsize=16)
def _by_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Return one value a channel for `(N, C, H, W)` on a device, which every batch needs."""
    with torch.inference_mode(False):  # evaluation and training share it
        return torch.tensor(values, device=device).view(1, -1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A network with its trained weights and the facts about it.

    Attributes:
        module: Maps images `(N, C, H, W)` to outputs; its state dict is the trained weights. It
            need not be what a search space builds: a compressed network is one as well.
        preprocessing: How pixels become the module's input.
        outputs: Name of every output, in the module's order; of a classifier, the classes.
        provenance: Plain JSON: where the network comes from, `arch_id`, `space`, `recipe`, `seed`
            and `study` among it.
        metrics: Numbers by unit-named column, such as `error_test` in percent.
    """

    module: nn.Module
    preprocessing: Preprocessing
    outputs: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return a copy of every tensor of the state dict, on the processor."""
        state = self.module.state_dict()
        return {name: t.detach().cpu().clone().contiguous() for name, t in state.items()}

    def save(self, folder: Path) -> Path:
        """Write `weights.safetensors` and `network.json` into an existing folder; return it.

        The module's code is not written: `load` is given the module.

        Raises:
            HwnasError: A file cannot be written.
            TypeError: Provenance or metrics are not plain JSON values.
        """
        facts = {
            "preprocessing": asdict(self.preprocessing),
            "outputs": self.outputs,
            "provenance": dict(self.provenance),
            "metrics": dict(self.metrics),
        }
        plain = json_values(facts)
        weights = save(self.weights())
        plain[DIGEST] = hashlib.sha256(weights).hexdigest()
        write_bytes_atomically(folder / WEIGHTS, weights)
        write_json_atomically(folder / FACTS, plain)
        return folder

    @classmethod
    def load(cls, folder: Path, module: nn.Module) -> TrainedNetwork:
        """Return what `save` wrote into `folder`, with its weights in `module`.

        Args:
            folder: Which was written by `save`.
            module: Of the same structure, as `space.build(genotype)` returns it; gets the weights
                and is put into evaluation mode.

        Raises:
            HwnasError: A file is missing or damaged, or the weights are not those of `module`.
        """
        fix = f"restore it from a copy, or delete {folder} and run the same search again"
        kinds = {"preprocessing": dict, "outputs": list, "provenance": dict, "metrics": dict}
        facts = read_json(folder / FACTS, kinds, fix)
        with decoding(folder / FACTS, fix):
            preprocessing = Preprocessing(**facts["preprocessing"])
        try:
            with decoding(folder / WEIGHTS, fix):
                weights = (folder / WEIGHTS).read_bytes()
                module.load_state_dict(load(weights))
        except (SafetensorError, RuntimeError) as error:
            line = f"cannot be loaded ({one_line(error)})"
            raise HwnasError(f"{folder / WEIGHTS}: {line}; {fix}") from error
        check_digest(folder, facts, hashlib.sha256(weights).hexdigest(), fix)
        return cls(
            module=module.eval(),
            preprocessing=preprocessing,
            outputs=tuple(facts["outputs"]),
            provenance=facts["provenance"],
            metrics=facts["metrics"],
        )
