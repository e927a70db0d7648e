"""Layers whose weights take fewer bits, in a file or in the arithmetic of a runtime.

In PyTorch they compute in floating point with the values that are left: quantised (fake
quantisation, Jacob et al., Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference, CVPR 2018), zero (magnitude pruning, Han et al., NeurIPS 2015) or
shared (Han et al., Deep Compression, ICLR 2016). A network is judged, and trained, as it will be
deployed. Gradients pass to the full weights unchanged (straight-through estimator, Bengio et al.,
2013), so that a weight that is zero may come back. An ONNX file gets zero and shared values as they
are, and integers when it is quantised; see `nas.network.quantisation`.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nas.core.measurement import FP32, INT8

INT8_WEIGHTS, INT4_WEIGHTS = "int8_weights", "int4_weights"

PRECISIONS = (FP32, INT8, INT8_WEIGHTS, INT4_WEIGHTS)
"""What a layer may compute in: floating point; 8-bit weights and inputs; 8-bit weights, with a
scale an output; 4-bit weights, of linear layers, with a scale for `BLOCK` inputs of an output."""

BITS = {FP32: 32, INT8: 8, INT8_WEIGHTS: 8, INT4_WEIGHTS: 4}
"""Bits of a weight."""

BLOCK = 32
"""Weights that share a scale in 4 bits."""

OF_FOUR = "2:4"
"""Sparsity of which every four weights in a row keep the two largest (Mishra et al., 2021)."""

SETTINGS: Mapping[str, Any] = {"precision": FP32, "sparsity": 0.0, "clusters": 0}
"""Arguments that each block of a space may have beside its module's, with their defaults."""

_SCALE_BYTES = 4
_FOLLOWED = 0.01
"""Share of a batch's range in the range that training has seen."""

_ROUNDS = 20
"""Of Lloyd's algorithm."""


class FakeQuantisation(nn.Module):
    """Quantises values to 8 bits, in the range that was seen, and back to floating point.

    Attributes:
        low: Smallest value on calibration images, a number; infinite before.
        high: Largest one.
        disabled: Whether nothing is quantised; see `without_quantisation`.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.observing = self.disabled = False
        self.register_buffer("low", torch.tensor(torch.inf))
        self.register_buffer("high", torch.tensor(-torch.inf))

    def observe(self) -> None:
        """Take the range of all values from now on."""
        self.low.fill_(torch.inf)
        self.high.fill_(-torch.inf)
        self.observing = True

    def keep_range(self) -> None:
        """Keep the range that was seen."""
        self.observing = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Quantise values of any shape, and return them in floating point."""
        if self.disabled or x.is_meta:
            return x
        low, high = x.detach().amin().float(), x.detach().amax().float()
        if self.observing:
            self.low.copy_(torch.minimum(self.low, low))
            self.high.copy_(torch.maximum(self.high, high))
            return x
        if self.training:
            for known, new in ((self.low, low), (self.high, high)):
                followed = known.float().lerp(new, _FOLLOWED)
                known.copy_(torch.where(torch.isinf(known), new, followed))
        # Before any image was seen, the range is that of the batch.
        low = torch.where(torch.isinf(self.low), low, self.low.float()).clamp(max=0)
        high = torch.where(torch.isinf(self.high), high, self.high.float()).clamp(min=0)
        scale = ((high - low) / 255).clamp(min=1e-12)
        zero = (-low / scale).round().to(torch.int32)
        quantised = torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, 255)
        return quantised.to(torch.promote_types(x.dtype, torch.float32))


class CompactLayer(nn.Module):
    """A layer with weights that are quantised, zero or shared.

    Attributes:
        precision: One of `PRECISIONS`.
        sparsity: Share of the weights that are zero, or `OF_FOUR`.
        grown: Share of these that are zero so far; see `growing`.
        clusters: How many values the weights have; 0 for any number.
        codebook: The values of the weights, ascending; infinite before they were found.
        input_quantisation: Of the inputs, where they have 8 bits.
        disabled: Whether nothing is quantised; see `without_quantisation`.
    """

    weight: Any
    bias: Any
    codebook: torch.Tensor
    input_quantisation: FakeQuantisation | None

    def set_up(self, precision: str, sparsity: float | str, clusters: int) -> None:
        """Set what the layer is like, once."""
        self.precision, self.sparsity, self.clusters = precision, sparsity, clusters
        self.disabled, self.grown = False, 1.0
        device = self.weight.device
        self.input_quantisation = FakeQuantisation().to(device) if precision == INT8 else None
        if clusters:
            self.register_buffer("codebook", torch.full((clusters,), torch.inf, device=device))

    def share_values(self) -> None:
        """Find the values that the weights share; weights that are zero or shared are so then.

        Values that were found before stay: others after a training were not those of the training.
        """
        with torch.no_grad():
            weight = self._sparse()
            if self.clusters and bool(torch.isinf(self.codebook).any()):
                self.codebook.copy_(_clustered(weight.flatten(), self.clusters))
            self.weight.copy_(self._shared(weight))

    def deployed_weight(self) -> torch.Tensor:
        """Return the weights as they will be deployed, in floating point."""
        if self.disabled or self.weight.is_meta:
            full: torch.Tensor = self.weight
            return full
        weight = self._shared(self._sparse())
        if self.precision == FP32:
            return weight
        if self.precision == INT4_WEIGHTS:
            quantised = _through(weight, quantised_in_blocks(weight.detach()))
        else:
            quantised = quantised_by_channel(weight)
        return quantised.to(torch.promote_types(self.weight.dtype, torch.float32))

    def stored_weight(self) -> torch.Tensor:
        """Return the weights as they are before they are quantised, without gradients."""
        with torch.no_grad():
            return self._shared(self._sparse()).detach()

    def quantised_input(self, x: torch.Tensor) -> torch.Tensor:
        """Return the inputs as they will be, in floating point."""
        if self.input_quantisation is None:
            return x
        quantised: torch.Tensor = self.input_quantisation(x)
        return quantised

    def _sparse(self) -> torch.Tensor:
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        weight: torch.Tensor = self.weight.to(dtype)
        if not self.sparsity:
            return weight
        size = weight.detach().abs()
        if self.sparsity == OF_FOUR:
            fours = size.flatten(1)
            fours = nn.functional.pad(fours, (0, -fours.shape[1] % 4)).view(len(size), -1, 4)
            kept = torch.zeros_like(fours, dtype=torch.bool)
            kept.scatter_(2, fours.topk(2, dim=2).indices, True)
            mask = kept.flatten(1)[:, : size[0].numel()].view_as(size)
        else:
            zeros = round(self.grown * float(self.sparsity) * size.numel())
            if not zeros:
                return weight
            mask = size > size.flatten().kthvalue(zeros).values
        return _through(weight, weight.detach() * mask)

    def _shared(self, weight: torch.Tensor) -> torch.Tensor:
        if not self.clusters:
            return weight
        between = (self.codebook[1:] + self.codebook[:-1]) / 2
        shared = self.codebook[torch.bucketize(weight.detach().contiguous(), between)]
        return _through(weight, torch.where(torch.isinf(shared), weight.detach(), shared))


class CompactConv2d(CompactLayer, nn.Conv2d):
    """A convolution with compact weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` as `torch.nn.Conv2d` does."""
        weight, bias = self.deployed_weight(), self.bias
        y: torch.Tensor = self._conv_forward(self.quantised_input(x), weight, bias)
        return y


class CompactLinear(CompactLayer, nn.Linear):
    """A linear layer with compact weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, ..., inputs)` as `torch.nn.Linear` does."""
        return nn.functional.linear(self.quantised_input(x), self.deployed_weight(), self.bias)


def quantised_by_channel(weight: torch.Tensor) -> torch.Tensor:
    """Return weights on 255 steps from minus to plus the largest one of each output.

    Args:
        weight: `(outputs, ...)`, in float32.
    """
    largest = weight.detach().flatten(1).abs().amax(1)
    scale = (largest / 127).clamp(min=1e-12)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight.float(), scale.float(), zero, 0, -127, 127)


def quantised_in_blocks(weight: torch.Tensor) -> torch.Tensor:
    """Return weights on 16 steps in blocks of `BLOCK` inputs.

    The largest value of a block is 8 steps away from 0, on its side; the other side has 7.

    Args:
        weight: `(outputs, inputs)`, in float32.
    """
    steps, scales = _steps_in_blocks(weight)
    return (steps * scales).flatten(1)[:, : weight.shape[1]]


def packed_4_bits(
    weight: torch.Tensor,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Return weights as ONNX Runtime's operator `MatMulNBits` reads them.

    Args:
        weight: `(outputs, inputs)`, in float32.

    Returns:
        Two steps a byte, 8 added to each, `(outputs, blocks, BLOCK / 2)`; and the scale of every
        block, `(outputs, blocks)`.
    """
    steps, scales = _steps_in_blocks(weight)
    codes = (steps + 8).to(torch.uint8).numpy()
    return codes[..., ::2] | codes[..., 1::2] << 4, scales[..., 0].numpy()


def _steps_in_blocks(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return steps, `(outputs, blocks, BLOCK)`, and their sizes, `(outputs, blocks, 1)`.

    The last block is filled up with zeros.
    """
    missing = -weight.shape[1] % BLOCK
    blocks = nn.functional.pad(weight, (0, missing)).view(len(weight), -1, BLOCK)
    scales = blocks.gather(2, blocks.abs().argmax(2, keepdim=True)) / -8
    steps = (blocks / torch.where(scales == 0, 1, scales)).round().clamp(-8, 7)
    return steps, scales


def compact(
    module: nn.Module, *, precision: str = FP32, sparsity: float | str = 0.0, clusters: int = 0
) -> nn.Module:
    """Give all layers with weights of a module compact ones; return the module, or its substitute.

    4-bit weights are those of linear layers: convolutions have 8-bit ones then.
    """
    if precision == FP32 and not sparsity and not clusters:
        return module
    if isinstance(module, nn.Conv2d | nn.Linear):
        return _compact(module, precision, sparsity, clusters)
    for name, child in module.named_children():
        made = compact(child, precision=precision, sparsity=sparsity, clusters=clusters)
        setattr(module, name, made)
    return module


def with_plain_layers(module: nn.Module) -> nn.Module:
    """Give a module layers of PyTorch in place of compact ones, with the same weights; return it.

    Weights that are zero or shared stay so, until they are trained. Those of a layer in 8 or 4 bits
    lose their precision.
    """
    for name, child in module.named_children():
        if isinstance(child, CompactConv2d | CompactLinear):
            made = _empty_layer(child, nn.Conv2d, nn.Linear)
            made.weight, made.bias = nn.Parameter(child.stored_weight()), child.bias
            setattr(module, name, made)
        else:
            with_plain_layers(child)
    return module


def compact_layers(network: nn.Module) -> Iterator[CompactLayer]:
    """Yield the layers of a network that have compact weights."""
    return (layer for layer in network.modules() if isinstance(layer, CompactLayer))


@contextlib.contextmanager
def calibrating(network: nn.Module) -> Iterator[bool]:
    """Let a network take the ranges of quantised values for a while, and keep them at the end.

    Weights that are zero or share values are so from the beginning.

    Yields:
        Whether there are any such values, so that it needs to be run.
    """
    quantisations = [each for each in network.modules() if isinstance(each, FakeQuantisation)]
    for layer in compact_layers(network):
        layer.share_values()
    for quantisation in quantisations:
        quantisation.observe()
    try:
        yield bool(quantisations)
    finally:
        for quantisation in quantisations:
            quantisation.keep_range()


@contextlib.contextmanager
def without_quantisation(network: nn.Module) -> Iterator[None]:
    """Let a network quantise nothing for a while; weights that are zero or shared are so."""
    layers = list(compact_layers(network))
    parts = [
        each for each in network.modules() if isinstance(each, CompactLayer | FakeQuantisation)
    ]
    weights = [layer.weight for layer in layers]
    for layer in layers:
        if not layer.weight.is_meta:  # which has a shape alone
            layer.weight = nn.Parameter(layer.stored_weight())
    for part in parts:
        part.disabled = True
    try:
        yield
    finally:
        for part in parts:
            part.disabled = False
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight = weight


@contextlib.contextmanager
def growing(network: nn.Module, share: float) -> Iterator[None]:
    """Let only a share of a network's zero weights be zero for a while; not of those of `2:4`."""
    layers = list(compact_layers(network)) if share < 1 else []
    for layer in layers:
        layer.grown = share
    try:
        yield
    finally:
        for layer in layers:
            layer.grown = 1.0


def plain_class(layer: nn.Module) -> type[nn.Module]:
    """Return the class of a layer, without regard to whether its weights are compact."""
    of_torch = {CompactConv2d: nn.Conv2d, CompactLinear: nn.Linear}
    return of_torch.get(type(layer), type(layer))


def layer_precision(layer: nn.Module) -> str:
    """Return the precision of a layer."""
    return layer.precision if isinstance(layer, CompactLayer) else FP32


def weight_bytes(layer: CompactLayer) -> int:
    """Return the bytes that the weights of a layer take in a file, with their scales."""
    weight = layer.weight
    if layer.precision == FP32:
        return int(weight.numel() * weight.element_size())
    scales = int(weight.shape[0])
    if layer.precision == INT4_WEIGHTS:
        scales *= int(-(-weight.shape[1] // BLOCK))
    codes = int(-(-weight.numel() * BITS[layer.precision] // 8))
    return codes + scales * _SCALE_BYTES


def compressed_bytes(network: nn.Module) -> int:
    """Return the bytes of a network's tensors in a compressed file (zlib, level 9).

    Weights are written in as many bits as they have; where that takes less, as a bit for each that
    says whether it is zero, and the others.
    """
    compacts = {
        f"{name}.weight".lstrip("."): layer for name, layer in _named_compact_layers(network)
    }
    total = 0
    for name, tensor in network.state_dict().items():
        layer = compacts.get(name)
        codes = tensor.detach().cpu().contiguous().numpy() if layer is None else _codes(layer)
        forms = [codes.tobytes()]
        if not codes.all():
            forms.append(np.packbits(codes != 0).tobytes() + codes[codes != 0].tobytes())
        total += min(len(zlib.compress(form, 9)) for form in forms)
    return total


def _named_compact_layers(network: nn.Module) -> Iterator[tuple[str, CompactLayer]]:
    for name, layer in network.named_modules():
        if isinstance(layer, CompactLayer):
            yield name, layer


def _codes(layer: CompactLayer) -> npt.NDArray[Any]:
    """Return the weights of a layer as a file has them, without scales."""
    with torch.no_grad():
        weight = layer.deployed_weight().detach().cpu().float()
    if layer.precision == FP32:
        return weight.contiguous().numpy()
    if layer.precision == INT4_WEIGHTS:
        return packed_4_bits(weight)[0]
    largest = weight.flatten(1).abs().amax(1).clamp(min=1e-12)
    scale = (largest / 127).view(-1, *(1 for _ in weight.shape[1:]))
    return (weight / scale).round().to(torch.int8).numpy()


def _compact(
    layer: nn.Conv2d | nn.Linear, precision: str, sparsity: float | str, clusters: int
) -> CompactLayer:
    made: CompactLayer = _empty_layer(layer, CompactConv2d, CompactLinear)
    if isinstance(layer, nn.Conv2d) and precision == INT4_WEIGHTS:
        precision = INT8_WEIGHTS
    made.weight, made.bias = layer.weight, layer.bias
    made.set_up(precision, sparsity, clusters)
    return made


def _empty_layer(layer: nn.Conv2d | nn.Linear, of_conv: type[Any], of_linear: type[Any]) -> Any:
    """Return a layer of one of two classes with the settings of another layer, on `meta`."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return of_linear(layer.in_features, layer.out_features, bias, device="meta")
    return of_conv(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        bias,
        layer.padding_mode,
        device="meta",
    )


def _through(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return a value whose gradient is that of the weight that it was made of."""
    return value + (weight - weight.detach()) if weight.requires_grad else value


def _clustered(weights: torch.Tensor, clusters: int) -> torch.Tensor:
    """Return the means that Lloyd's algorithm finds, ascending; they begin at equal distances.

    Equal distances keep large weights, of which there are few (Han et al., 2016, section 3.2).
    """
    means = torch.linspace(float(weights.min()), float(weights.max()), clusters)
    means = means.to(weights.device)
    for _ in range(_ROUNDS):
        nearest = torch.bucketize(weights.contiguous(), (means[1:] + means[:-1]) / 2)
        sums = torch.zeros_like(means).index_add_(0, nearest, weights)
        counts = torch.bincount(nearest, minlength=clusters)
        means = torch.where(counts > 0, sums / counts.clamp(min=1), means)
    return means
