"""What is handed in to be exported: a trained network and the facts about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.errors import ConfigError
from nas.core.measurement import Measurement
from nas.core.space import Architecture, Genotype
from nas.network.space import SearchSpace

if TYPE_CHECKING:
    from torch import nn


DEPLOYED = "deployed"
"""Name of a deployed file; its suffix is that of the runtime's files."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How pixels become the network's input: `(pixels / scale - mean) / std`, per channel.

    Attributes:
        mean: Of the scaled pixels, one value a channel.
        std: Standard deviation of the scaled pixels, one value a channel.
        scale: What the uint8 pixels are divided by first.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0

    def __post_init__(self) -> None:
        """Turn the values into Python floats and check them."""
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if not self.mean or len(self.mean) != len(self.std):
            raise ConfigError("preprocessing.std", self.std, f"{len(self.mean)} values, as in mean")
        if not all(value > 0 for value in (*self.std, self.scale)):
            raise ConfigError("preprocessing", (self.std, self.scale), "positive std and scale")


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """A trained network with everything that is known of it.

    Attributes:
        space: The search space that it comes from.
        genotype: Its genotype; need not be canonical.
        network: The network with its trained weights, as `space.build(genotype)` made it.
        class_names: Name of every class, in the order of the logits.
        preprocessing: How pixels become the network's input.
        figures: Numbers by unit-named column, as in tables of trials (`latency_ms_predicted`,
            `params_m`); `error_test` is in percent of the `test_images` images of the test split,
            `error_final` of the `validation_images` of the validation split. They are of what the
            device runs; with `_fp32` behind their names, of `network` where that differs.
        measurement: Latency and peak memory as measured on the device, where they were.
        deployed: The file that was measured, where that is not the network's ONNX file.
        provenance: Plain JSON: where the network comes from. `dataset`, `training` and `study`
            are sections of the model card; each is a text or a mapping. Others follow them.
    """

    space: SearchSpace
    genotype: Genotype
    network: nn.Module
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    figures: Mapping[str, float] = field(default_factory=dict)
    measurement: Measurement | None = None
    deployed: Path | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the parts belong together.

        Raises:
            ConfigError: Class names, channels or the network are not those of the space.
            GenotypeError: The genotype does not belong to the space.
        """
        if len(self.class_names) != self.space.num_classes:
            expected = f"{self.space.num_classes} names, one a logit"
            raise ConfigError("class_names", len(self.class_names), expected)
        channels = self.space.input_shape[0]
        if len(self.preprocessing.mean) != channels:
            expected = f"{channels} values, one a channel"
            raise ConfigError("preprocessing.mean", self.preprocessing.mean, expected)
        blocks = {b.name: b.module.__name__ for b in self.space.place(self.genotype)}
        children = {name: type(child).__name__ for name, child in self.network.named_children()}
        for name in [*blocks, *children]:
            if children.get(name) != blocks.get(name):
                fix = "hand in what space.build(genotype) returned, without auxiliary classifiers"
                got = children.get(name)
                raise ConfigError(f"network, block {name}", got, str(blocks.get(name)), fix)

    @property
    def deployed_name(self) -> str | None:
        """Name of the deployed file in the exported folder; `None` where it is `model.onnx`."""
        return None if self.deployed is None else f"{DEPLOYED}{self.deployed.suffix}"

    @property
    def architecture(self) -> Architecture:
        """The space and the canonical genotype."""
        return self.space.architecture(self.genotype)
