"""A network with what only its training needs, which no exported file holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from nas.network.module import Dropout, DropPath, Network


class TrainableNetwork(Network):
    """A network as a search space builds it.

    Attributes:
        recompute: Whether training keeps the inputs of blocks only, and computes what is inside of
            blocks again for their gradients, which takes less memory and about a third more time
            (Chen et al., arXiv:1604.06174). Gradients and batch statistics are the same.
    """

    recompute = False

    @property
    def has_drop_path(self) -> bool:
        """Whether a residual branch can be dropped."""
        return any(isinstance(module, DropPath) for module in self.modules())

    @property
    def has_dropout(self) -> bool:
        """Whether the classifier can drop features."""
        return any(isinstance(module, Dropout) for module in self.modules())

    def regularise(self, *, drop_path: float = 0.0, dropout: float = 0.0) -> None:
        """Set the rates at which training drops what there is of residual branches and features.

        Args:
            drop_path: Rate of the last residual branch. Of `L` branches the `l`-th one has
                `l / L` of it (Huang et al., ECCV 2016, equation 4).
            dropout: Rate before the classifier's last layer.

        Raises:
            ValueError: A rate is not from 0 to below 1.
        """
        paths = [module for module in self.modules() if isinstance(module, DropPath)]
        dropouts = [module for module in self.modules() if isinstance(module, Dropout)]
        for name, rate in (("drop_path", drop_path), ("dropout", dropout)):
            if not 0 <= rate < 1:
                raise ValueError(f"{name}: got {rate}, expected 0 or more and less than 1")
        for position, path in enumerate(paths, 1):
            path.rate = drop_path * position / len(paths)
        for layer in dropouts:
            layer.rate = dropout

    def _call(self, name: str, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        if not (self.recompute and self.training):
            return super()._call(name, inputs)
        block: nn.Module = getattr(self, name)
        recomputed: torch.Tensor = checkpoint(
            block,
            *inputs,
            use_reentrant=False,
            preserve_rng_state=True,
            context_fn=lambda: (nullcontext(), on_copied_buffers(block)),
        )
        return recomputed


@contextmanager
def on_copied_buffers(module: nn.Module) -> Iterator[None]:
    """Let a module work on copies of its buffers for a while.

    Batch normalisation updates its statistics when it is run. A recomputation must not do so a
    second time, and must save as many tensors for the gradients as the first run, so it has
    statistics that are thrown away.
    """
    owners = [(owner, dict(owner.named_buffers(recurse=False))) for owner in module.modules()]
    for owner, buffers in owners:
        for name, buffer in buffers.items():
            setattr(owner, name, buffer.clone())
    try:
        yield
    finally:
        for owner, buffers in owners:
            for name, buffer in buffers.items():
                setattr(owner, name, buffer)
