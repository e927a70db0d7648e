"""At which rank two factors are faster than one layer, and at which they are only smaller.

Run `python experiments/compression/low_rank.py` on a machine that does nothing else. Layers with
random weights are measured alone, in ONNX Runtime on one thread, whole and as two factors with
shares of the rank at which both have as many weights. The table goes to `low_rank.md`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
from _shared.markdown import markdown
from torch import nn

from nas import devices
from nas.compression.layers import CompressedConvolution, CompressedLinear
from nas.network.onnx import export_onnx

HERE = Path(__file__).resolve().parent
RANKS = (1.0, 0.75, 0.5, 0.25)
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


def layer(shape: tuple[int, int, int], outputs: int, kernel: int, rank: float) -> nn.Module:
    """Return a layer, factorised below rank 1."""
    if not kernel:
        return nn.Sequential(nn.Flatten(), CompressedLinear(shape[:1], outputs, rank=rank))
    pair, padding = (kernel, kernel), (kernel // 2, kernel // 2)
    return CompressedConvolution(shape, outputs, pair, (1, 1), padding, (1, 1), rank=rank)


def main() -> None:
    """Measure all layers and write the table."""
    device, rows = devices.get("cpu", threads=1), []
    for name, (shape, outputs, kernel) in LAYERS.items():
        with tempfile.TemporaryDirectory() as folder:
            made = [layer(shape, outputs, kernel, rank) for rank in RANKS]
            files = [
                export_onnx(each.eval(), shape, Path(folder) / f"{i}.onnx")
                for i, each in enumerate(made)
            ]
            timed = [each.latency_ms for each in device.measure_files(files, shape)]
            sizes = [sum(p.numel() for p in each.parameters()) for each in made]
        row = {"layer": name, "ms": f"{timed[0]:.4f}"}
        for rank, ms, size in list(zip(RANKS, timed, sizes, strict=True))[1:]:
            row[f"rank {rank}: size"] = f"{size / sizes[0]:.2f}"
            row[f"time at {rank}"] = f"{ms / timed[0]:.2f}"
        print(row, flush=True)
        rows.append(row)
    (HERE / "low_rank.md").write_text(markdown(pd.DataFrame(rows)) + "\n")


if __name__ == "__main__":
    main()
