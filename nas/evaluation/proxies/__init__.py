"""Zero-cost proxies: what an untrained network and some images tell of it, one proxy a file."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.core.prediction import FloatArray
from nas.core.registry import Registry
from nas.core.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nas.network.module import Network


@dataclass(frozen=True)
class Batch:
    """Examples as a network takes them.

    Attributes:
        images: `(n, C, H, W)`, float32, normalised as for training.
        targets: `(n, ...)`, as the task has them, on the same device.
        task: What is predicted.
    """

    images: torch.Tensor
    targets: torch.Tensor
    task: Task

    def loss(self, network: nn.Module) -> torch.Tensor:
        """Return the mean loss of a network's outputs, with a gradient."""
        return self.task.losses(network(self.images), self.targets, 0.0).mean()

    def split(self, parts: int) -> Iterator[Batch]:
        """Yield so many batches of about equal size."""
        pairs = zip(self.images.chunk(parts), self.targets.chunk(parts), strict=True)
        return (Batch(images, targets, self.task) for images, targets in pairs)


@dataclass(frozen=True, kw_only=True)
class Proxy(ABC):
    """Scores an untrained network.

    Example:
        >>> space = search_spaces.get("nasbench201", input_shape=(1, 8, 8), num_classes=10)
        >>> network = space.build(space.references()["residual"])
        >>> images = nas.data.get("digits").search_splits().train.sample(16, seed=0)
        >>> pixels, targets = map(torch.from_numpy, images.batch(slice(None)))
        >>> batch = Batch(pixels / 255, targets, images.task)
        >>> nas.evaluation.proxies.get("params")(network, batch)
        {'params': 78010.0}
    """

    def __call__(self, network: Network, batch: Batch) -> Mapping[str, float]:
        """Return the proxy's score by name; larger is better.

        Of a proxy that ranks networks by several numbers together these are several. The network
        is left as it is. What is random follows torch's random state.

        Args:
            network: With its initial weights, on the device of the images.
            batch: Examples of the train split.

        Raises:
            CandidateFailure: The proxy has no value for such a network.
        """
        import torch

        with torch.enable_grad():
            return self.scores(copy.deepcopy(network).train(), batch)

    @abstractmethod
    def scores(self, network: Network, batch: Batch) -> Mapping[str, float]:
        """Return the scores of a network in training mode, which may be changed."""


def combined(scores: FloatArray) -> FloatArray:
    """Return one number for each of `n` networks from their `k` scores, shape `(n, k)`.

    A single score is that number. Of several it is the sum over scores of `log(rank / n)`, where
    the best has rank `n` and equal ones their mean rank (AZ-NAS, Lee and Ham, CVPR 2024).
    """
    from scipy.stats import rankdata

    if scores.shape[1] == 1:
        return scores[:, 0]
    shares: FloatArray = np.log(rankdata(scores, axis=0) / len(scores)).sum(axis=1)
    return shares


registry: Registry[Proxy] = Registry("proxy", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = ["Batch", "Proxy", "combined", "component", "get", "names", "register", "registry"]
