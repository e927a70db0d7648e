"""The layers that a compressed network is made of.

Each takes the shape of what it reads, so that a network with fewer channels follows from the layers
that make channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from nas.compression.functions import run_calls
from nas.network.compact import FakeQuantisation

OF_CHANNELS = {"BatchNorm1d": "num_features", "BatchNorm2d": "num_features"}
"""Argument of a layer's constructor that is the number of channels that it reads."""


class CompressedBlock(nn.Module):
    """A block whose output may be quantised to 8 bits, as a runtime stores it.

    Attributes:
        output: What quantises it; `None` where nothing does.
    """

    def __init__(self, quantised_output: bool) -> None:
        super().__init__()
        self.output = FakeQuantisation() if quantised_output else None

    def quantised(self, x: torch.Tensor) -> torch.Tensor:
        """Return an output as it is stored."""
        if self.output is None:
            return x
        quantised: torch.Tensor = self.output(x)
        return quantised


class CompressedConvolution(CompressedBlock):
    """A convolution, which may be factorised.

    With a rank below 1 it is two convolutions: one along the height to fewer channels, then one
    along the width (Jaderberg et al., Speeding up Convolutional Neural Networks with Low Rank
    Expansions, BMVC 2014). Where the stride along the width is above 1, the first would compute
    columns that the second skips; there the two are one with the whole kernel to fewer channels,
    then a pointwise one.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int] | str,
        dilation: Sequence[int],
        groups: int | str = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        rank: float = 1.0,
        quantised_output: bool = False,
    ) -> None:
        super().__init__(quantised_output)
        inputs = input_shape[0]
        outputs = inputs if groups == "depthwise" else outputs
        sides = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
        whole: dict[str, Any] = {
            **{name: tuple(pair) for name, pair in sides.items()},
            "padding": padding if isinstance(padding, str) else tuple(padding),
            "padding_mode": padding_mode,
        }
        self.second: nn.Conv2d | None = None
        if rank < 1:
            before, behind = whole, dict[str, Any](kernel_size=(1, 1))
            if stride[1] == 1:
                before = whole | {name: (pair[0], 1) for name, pair in sides.items()}
                behind = whole | {name: (1, pair[1]) for name, pair in sides.items()}
                if not isinstance(padding, str):
                    before["padding"], behind["padding"] = (padding[0], 0), (0, padding[1])
            rows, columns = (math.prod(each["kernel_size"]) for each in (before, behind))
            between = rank_of(inputs * rows, outputs * columns, rank)
            self.first = nn.Conv2d(inputs, between, **before, bias=False)
            self.second = nn.Conv2d(between, outputs, **behind, bias=bias)
        else:
            number = inputs if groups == "depthwise" else int(groups)
            self.first = nn.Conv2d(inputs, outputs, **whole, groups=number, bias=bias)

    @property
    def last(self) -> nn.Conv2d:
        """The convolution that computes the outputs."""
        return self.first if self.second is None else self.second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to `(N, outputs, H', W')`."""
        x = self.first(x)
        return self.quantised(x if self.second is None else self.second(x))

    def fill(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Take the weights of a convolution, factorised where there are two."""
        if self.second is None:
            _set_weights(self.first, weight, bias)
            return
        outputs, (high, before) = len(weight), self.first.kernel_size
        behind = self.second.kernel_size[1]
        split = weight.view(outputs, -1, high, before, behind).permute(1, 2, 3, 0, 4)
        left, right = _factors(split.reshape(-1, outputs * behind), self.first.out_channels)
        second = right.reshape(-1, outputs, behind).permute(1, 0, 2).unsqueeze(2)
        _set_weights(self.first, left.T.reshape(self.first.weight.shape), None)
        _set_weights(self.second, second, bias)


class CompressedLinear(nn.Module):
    """A linear layer, which may be factorised into two, with a rank below 1."""

    def __init__(
        self, input_shape: Sequence[int], outputs: int, bias: bool = True, rank: float = 1.0
    ) -> None:
        super().__init__()
        inputs = input_shape[-1]
        self.second: nn.Linear | None = None
        if rank < 1:
            between = rank_of(inputs, outputs, rank)
            self.first = nn.Linear(inputs, between, bias=False)
            self.second = nn.Linear(between, outputs, bias=bias)
        else:
            self.first = nn.Linear(inputs, outputs, bias=bias)

    @property
    def last(self) -> nn.Linear:
        """The layer that computes the outputs."""
        return self.first if self.second is None else self.second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, ..., inputs)` to `(N, ..., outputs)`."""
        x = self.first(x)
        return x if self.second is None else self.second(x)

    def fill(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Take the weights of a linear layer, factorised where there are two."""
        if self.second is None:
            _set_weights(self.first, weight, bias)
            return
        left, right = _factors(weight.T, self.first.out_features)
        _set_weights(self.first, left.T, None)
        _set_weights(self.second, right.T, bias)


def rank_of(rows: int, columns: int, share: float) -> int:
    """Return a rank, as a share of the one from which two factors have as many values as one."""
    return max(math.floor(share * rows * columns / (rows + columns)), 1)


def _factors(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return factors of the nearest matrix of a rank, `(rows, rank)` and `(rank, columns)`."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * v[:rank]


def _set_weights(
    layer: nn.Conv2d | nn.Linear, weight: torch.Tensor, bias: torch.Tensor | None
) -> None:
    if weight.shape != layer.weight.shape:  # copying would repeat what is too short
        raise ValueError(f"got weights {weight.shape}, expected {layer.weight.shape}")
    layer.weight.copy_(weight)
    if bias is not None:
        assert layer.bias is not None
        layer.bias.copy_(bias)


class UnchangedLayer(CompressedBlock):
    """A layer of torch.nn."""

    def __init__(
        self,
        input_shape: Sequence[int],
        target: str,
        arguments: Mapping[str, Any],
        quantised_output: bool = False,
    ) -> None:
        super().__init__(quantised_output)
        own = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
        if target in OF_CHANNELS:
            own[OF_CHANNELS[target]] = input_shape[0]
        self.layer: nn.Module = getattr(nn, target)(**own)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the layer returns."""
        return self.quantised(self.layer(x))


class TracedFunctions(CompressedBlock):
    """Functions of torch and methods of tensors, one behind the other.

    `tensors` are the parameters and buffers that they read, by name: `shape`, `dtype`, and whether
    it is a `parameter`.
    """

    def __init__(
        self,
        *input_shapes: Sequence[int],
        calls: Sequence[Mapping[str, Any]],
        tensors: Mapping[str, Mapping[str, Any]] | None = None,
        quantised_output: bool = False,
    ) -> None:
        super().__init__(quantised_output)
        del input_shapes
        self.calls, self.names = calls, tuple(tensors or {})
        for name, like in (tensors or {}).items():
            zeros = torch.zeros(like["shape"], dtype=getattr(torch, like["dtype"]))
            if like["parameter"]:
                self.register_parameter(name, nn.Parameter(zeros))
            else:
                self.register_buffer(name, zeros)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return what the last function returns."""
        # Asked for one by one, so that a trace sees them.
        tensors = {name: getattr(self, name) for name in self.names}
        return self.quantised(run_calls(self.calls, inputs, tensors))
