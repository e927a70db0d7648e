"""What 8 bits cost and win for a MobileNet, beside ONNX Runtime's quantiser with its defaults.

Run `python experiments/compression/int8.py [--seeds N]` on a machine that does nothing else. A
network like MobileNetV2 is trained on Fashion-MNIST for every seed, quantised after training, and
judged on the test split by ONNX Runtime. Rows go to `int8.csv`, the table to `int8.md`; seeds that
are there are not done again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from base_networks import folder_of, space_of
from deployed import calibration_images, error_of, latencies_ms, written
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from recipes import TUNED, append_row, compressed, genotype_of, markdown, mean_and_deviation

HERE = Path(__file__).resolve().parent


class _Images(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        images = calibration_images()
        self._left = iter([{"images": images[i : i + 1]} for i in range(len(images))])

    def get_next(self) -> dict[str, object] | None:
        """Return the next image."""
        return next(self._left, None)


def files(seed: int, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files that are compared, by what they are."""
    space = space_of(folder_of("mobilenet", seed), channels=(1.0,), precisions=("fp32", "int8"))
    quantised = genotype_of(space, {"precision": "int8"})
    base, _ = compressed(space, genotype_of(space), seed=seed)
    plain = written(base, folder / "base.onnx")
    yield "fp32", plain
    layers = space.deployment(quantised)["layers"]
    for epochs, name in ((0, "int8"), (TUNED, f"int8, {TUNED} epochs of training")):
        network, _ = compressed(space, quantised, seed=seed, epochs=epochs)
        yield name, written(network, folder / f"int8_{epochs}.onnx", layers)
    prepared = folder / "prepared.onnx"
    quant_pre_process(str(plain), str(prepared))
    static, dynamic = folder / "static.onnx", folder / "dynamic.onnx"
    quantization.quantize_static(str(prepared), str(static), _Images())
    yield "ONNX Runtime, quantize_static", static
    quantization.quantize_dynamic(str(prepared), str(dynamic))
    yield "ONNX Runtime, quantize_dynamic", dynamic


def main() -> None:
    """Do what is missing and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    file = HERE / "int8.csv"
    done = set(pd.read_csv(file)["seed"]) if file.is_file() else set()
    for seed in set(range(parser.parse_args().seeds)) - done:
        with tempfile.TemporaryDirectory() as folder:
            found = dict(files(seed, Path(folder)))
            timed = latencies_ms(list(found.values()))
            for (name, path), (ms, ci) in zip(found.items(), timed, strict=True):
                row = {"file": name, "seed": seed, "error": error_of(path)}
                size = path.stat().st_size / 1e6
                append_row(file, {**row, "size_mb": size, "latency_ms": ms, "latency_ms_ci": ci})
    rows = pd.read_csv(file)
    plain = rows[rows["file"] == "fp32"].set_index("seed")
    rows["lost, points"] = rows["error"] - rows["seed"].map(plain["error"])
    rows["size, share of fp32"] = rows["size_mb"] / rows["seed"].map(plain["size_mb"])
    rows["latency, share of fp32"] = rows["latency_ms"] / rows["seed"].map(plain["latency_ms"])
    groups = rows.groupby("file", sort=False)
    table = pd.DataFrame(
        {
            "accuracy, %": (100 - groups["error"].mean()).map("{:.2f}".format),
            "lost, points": mean_and_deviation(groups["lost, points"]),
            "size, MB": groups["size_mb"].mean().map("{:.3f}".format),
            "of fp32": groups["size, share of fp32"].mean().map("{:.0%}".format),
            "latency, ms": groups["latency_ms"].mean().map("{:.3f}".format),
            "its share of fp32": groups["latency, share of fp32"].mean().map("{:.2f}".format),
        }
    )
    text = markdown(table.reset_index())
    (HERE / "int8.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
