"""Latency predictors, each calibrated by measurements on one device.

Predictors that share most of their code stand in one file, as in `additive` and `regression`; what
all share stands in `calibration`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.errors import ConfigError
from nas.core.prediction import FloatArray, LatencyPredictor
from nas.core.records import decoding, read_json
from nas.core.registry import Registry
from nas.core.space import Genotype

if TYPE_CHECKING:
    from nas.core.measurement import Device
    from nas.devices.store import MeasurementStore
    from nas.network.space import SearchSpace


AGAIN = "restore it from a copy, or delete the predictor's folder and run the same command again"
"""What to do about a predictor whose files are damaged: it is fitted to the measurements again."""

LEAST_SAMPLES = 4
"""Networks to which every predictor can be fitted."""


@dataclass(frozen=True, kw_only=True)
class PredictorSettings:
    """The settings of a predictor, from which one is fitted.

    Attributes:
        samples: Networks that a calibration measures.
        seconds_per_sample: Most seconds of timed inference of each.
    """

    samples: int = 40
    seconds_per_sample: float = 0.5

    def __post_init__(self) -> None:
        if self.samples < LEAST_SAMPLES:
            expected = f"{LEAST_SAMPLES} or more"
            raise ConfigError("latency_predictor.samples", self.samples, expected)
        if not self.seconds_per_sample > 0:
            got = self.seconds_per_sample
            raise ConfigError("latency_predictor.seconds_per_sample", got, "more than 0")

    def first_samples(self, space: SearchSpace, seed: int) -> list[Genotype]:
        """Choose the networks that are measured before anything is known of the device.

        Raises:
            ConfigError: The space holds fewer architectures.
        """
        from latency_predictors.calibration.sampling import SPREAD_SHARE, choose

        spread = max(round(SPREAD_SHARE * self.samples), LEAST_SAMPLES)
        return choose(space, spread, seed)[: self.samples]

    @abstractmethod
    def fit(
        self, space: SearchSpace, genotypes: Sequence[Genotype], latency_ms: FloatArray
    ) -> LatencyPredictor:
        """Fit a predictor to measured latencies, shape `(n,)`, in milliseconds."""

    def refit(
        self,
        predictor: LatencyPredictor,
        space: SearchSpace,
        genotypes: Sequence[Genotype],
        latency_ms: FloatArray,
    ) -> LatencyPredictor:
        """Fit `predictor`, which these settings have fitted, again to more samples.

        What takes long to find and changes little, such as hyperparameters, may be kept. The
        samples are all that there are, those that `predictor` was fitted to among them.
        """
        del predictor
        return self.fit(space, genotypes, latency_ms)

    @classmethod
    @abstractmethod
    def load(cls, path: Path) -> LatencyPredictor:
        """Read a predictor that `LatencyPredictor.save` wrote."""


registry: Registry[PredictorSettings] = Registry("latency predictor", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = ["PredictorSettings", "calibrate", "component", "get", "load", "names", "register"]


def calibrate(
    space: SearchSpace,
    device: Device,
    *,
    samples: int = 100,
    seed: int = 0,
    predictor: str = "auto",
    store: MeasurementStore | None = None,
    **fields: Any,
) -> LatencyPredictor:
    """Measure some networks of `space` on `device` and fit a predictor to them.

    Args:
        space: Where the networks come from.
        device: Where they are measured.
        samples: How many are measured.
        seed: Of the choice of networks.
        predictor: Name of the predictor.
        store: Measurements that need not be taken again, and where new ones are kept.
        fields: Other settings of the predictor.
    """
    from latency_predictors.calibration.sampling import measure_samples

    settings = get(predictor, samples=samples, **fields)
    genotypes, measurements = measure_samples(space, device, settings, seed, store)
    return settings.fit(space, genotypes, np.array([m.latency_ms for m in measurements]))


def load(path: Path | str) -> LatencyPredictor:
    """Read the predictor that was saved in the folder `path`.

    Raises:
        ConfigError: There is no predictor in it.
        HwnasError: A file is damaged.
    """
    file = Path(path) / "predictor.json"
    if not file.exists():
        raise ConfigError("path", str(path), "a folder with a saved predictor")
    record = read_json(file, {"predictor": str}, AGAIN)
    with decoding(file, AGAIN):
        cls, compared = component(record["predictor"]), dict(record.get("compared", {}))
    with decoding(file.with_name("predictor.npz"), AGAIN):
        loaded = cls.load(Path(path))
        loaded.compared = compared
        loaded.held_out_errors()  # which says whether the arrays fit together
        return loaded
