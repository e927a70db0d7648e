"""At which rank factors are faster than one layer, and which factors lose least.

Run `python experiments/compression/low_rank.py [--seeds N]` on a machine that does nothing else.
Layers with random weights are measured alone, in ONNX Runtime on one thread, whole and factorised
with shares of their weights: latencies go to `low_rank.md`. The convolutions of ResNet-18 are
replaced by what three kinds of factors with as many weights make of them: errors on validation
images, without training and with batch statistics estimated anew, go to `factors.md`.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from base_networks import built, folder_of
from recipes import markdown, splits
from torch import nn

from nas import devices
from nas.compression.base import Base
from nas.compression.layers import CompressedConvolution, CompressedLinear, rank_of
from nas.network.onnx import export_onnx
from nas.network.trained import Preprocessing
from nas.training.trainer import evaluate

HERE = Path(__file__).resolve().parent
SHARES = (0.75, 0.5, 0.25)
IMAGES = 5000
LAYERS: dict[str, tuple[tuple[int, int, int], int, int]] = {
    "3 x 3, 16 channels of 28 x 28": ((16, 28, 28), 16, 3),
    "3 x 3, 64 channels of 14 x 14": ((64, 14, 14), 64, 3),
    "3 x 3, 256 channels of 7 x 7": ((256, 7, 7), 256, 3),
    "pointwise, 32 to 192 of 14 x 14": ((32, 14, 14), 192, 1),
    "pointwise, 256 of 14 x 14": ((256, 14, 14), 256, 1),
    "linear, 256": ((256, 1, 1), 256, 0),
    "linear, 1024": ((1024, 1, 1), 1024, 0),
}
"""Input, outputs and size of the kernel; 0 for a linear layer."""


def svd(weight: torch.Tensor, share: float) -> torch.Tensor:
    """Return a convolution to fewer channels and a pointwise one, as one weight."""
    rank = rank_of(weight[0].numel(), len(weight), share)
    return _nearest(weight.flatten(1), rank).view_as(weight)


def along_and_across(weight: torch.Tensor, share: float) -> torch.Tensor:
    """Return a convolution along the height and one along the width, as one weight."""
    outputs, inputs, high, wide = weight.shape
    rows = weight.permute(1, 2, 0, 3).reshape(inputs * high, outputs * wide)
    nearest = _nearest(rows, rank_of(*rows.shape, share))
    return nearest.view(inputs, high, outputs, wide).permute(2, 0, 1, 3)


def tucker(weight: torch.Tensor, share: float) -> torch.Tensor:
    """Return Tucker's decomposition over channels (Kim et al., ICLR 2016), as one weight."""
    outputs, inputs = weight.shape[:2]
    core, sides = weight.numel(), inputs**2 + outputs**2
    kept = (math.sqrt(sides**2 + 4 * core * core * share) - sides) / (2 * core)
    of_inputs, of_outputs = max(int(kept * inputs), 1), max(int(kept * outputs), 1)
    left = _basis(weight, of_outputs)
    for _ in range(3):
        right = _basis(torch.einsum("oikl,or->irkl", weight, left), of_inputs)
        left = _basis(torch.einsum("oikl,ir->orkl", weight, right), of_outputs)
    return torch.einsum("oikl,or,is,pr,qs->pqkl", weight, left, right, left, right)


WAYS: Mapping[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "along the height, across the width": along_and_across,
    "to fewer channels, pointwise (SVD)": svd,
    "pointwise, fewer channels, pointwise (Tucker)": tucker,
}


def _nearest(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] * s[:rank] @ v[:rank]


def _basis(tensor: torch.Tensor, rank: int) -> torch.Tensor:
    return torch.linalg.svd(tensor.flatten(1), full_matrices=False)[0][:, :rank]


def error(seed: int, way: str, share: float) -> float:
    """Return the error of ResNet-18 with factorised convolutions, in percent."""
    network, own = built("resnet18"), splits()
    network.load_state_dict(Base.load(folder_of("resnet18", seed), own.input_shape).tensors)
    preprocessing = Preprocessing.of(own.train)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d) and layer.in_channels > 1 and layer.kernel_size[0] > 1:
                layer.weight.copy_(WAYS[way](layer.weight, share))
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
                layer.momentum = None
        images = np.array(own.train.sample(1024, seed).pixels[:])
        network.train()(preprocessing(torch.from_numpy(images)))
    judged = own.validation.drawn(IMAGES, 0)
    return float(evaluate(network.eval(), judged, preprocessing)["error"])


def layer(shape: tuple[int, int, int], outputs: int, kernel: int, rank: float) -> nn.Module:
    """Return a layer, factorised below rank 1."""
    if not kernel:
        return nn.Sequential(nn.Flatten(), CompressedLinear(shape[:1], outputs, rank=rank))
    pair, padding = (kernel, kernel), (kernel // 2, kernel // 2)
    return CompressedConvolution(shape, outputs, pair, (1, 1), padding, (1, 1), rank=rank)


def latencies() -> pd.DataFrame:
    """Measure all layers; return a row for each."""
    device, rows = devices.get("cpu", threads=1), []
    for name, (shape, outputs, kernel) in LAYERS.items():
        with tempfile.TemporaryDirectory() as folder:
            made = [layer(shape, outputs, kernel, rank) for rank in (1.0, *SHARES)]
            files = [
                export_onnx(each.eval(), shape, Path(folder) / f"{i}.onnx")
                for i, each in enumerate(made)
            ]
            timed = [each.latency_ms for each in device.measure_files(files, shape)]
        shares = zip(SHARES, timed[1:], strict=True)
        times = {
            f"time with {share} of the weights": f"{ms / timed[0]:.2f}" for share, ms in shares
        }
        rows.append({"layer": name, "whole, ms": f"{timed[0]:.4f}", **times})
    return pd.DataFrame(rows)


def main() -> None:
    """Measure, count errors, and write the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    seeds, rows = range(parser.parse_args().seeds), []
    for way in WAYS:
        found = {share: [error(seed, way, share) for seed in seeds] for share in SHARES}
        cells = {
            f"error with {share} of the weights, %": f"{np.mean(each):.1f} ± {np.std(each):.1f}"
            for share, each in found.items()
        }
        rows.append({"factors": way, **cells})
    for name, table in (("factors", pd.DataFrame(rows)), ("low_rank", latencies())):
        (HERE / f"{name}.md").write_text(markdown(table) + "\n")
        print(markdown(table))


if __name__ == "__main__":
    main()
