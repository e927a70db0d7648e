"""One study from its settings to its files: at each end the numbers are the same."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from nas_command import SMALL, Ended
from PIL import Image
from scipy import special

from nas import data
from nas.cluster.connection import connected
from nas.devices import runtimes
from nas.export.parity import TOLERANCE
from nas.results import study as results
from nas.results.plot import pareto_figure

pytestmark = pytest.mark.slow

Here = Callable[..., Ended]
FloatArray = npt.NDArray[np.float32]


@pytest.fixture(scope="module", autouse=True)
def workers() -> Iterator[None]:
    with connected(None):
        yield


def error(logits: FloatArray, labels: npt.NDArray[np.int64]) -> float:
    return float(100 * np.mean(logits.argmax(axis=1) != labels))


def run_openvino(file: Path, images: FloatArray) -> FloatArray:
    import openvino

    compiled = openvino.Core().compile_model(
        str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    )
    return np.concatenate([compiled(image[None])[0] for image in images])


def run_onnxruntime(file: Path, images: FloatArray) -> FloatArray:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"images": image[None]})[0] for image in images])


BY_HAND = {"onnxruntime": run_onnxruntime, "openvino": run_openvino}


def plain_pytorch(folder: Path, pixels: npt.NDArray[np.uint8]) -> tuple[FloatArray, FloatArray]:
    """Return images and logits as the exported `model.py` makes them."""
    spec = importlib.util.spec_from_file_location("exported_model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules["exported_model"] = module
    spec.loader.exec_module(module)
    with torch.inference_mode():
        images = module.preprocess(torch.from_numpy(pixels))
        return images.numpy(), module.load()(images).numpy()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_numbers_of_every_file_agree(
    here: Here, tmp_path: Path, runtime: str, precision: str
) -> None:
    runtimes.component(runtime).version()
    device = (f"device.runtime={runtime}", f"device.precision={precision}")
    settings = ("search.evaluations=4", "finalise.recipe.epochs=4", "finalise.refit=true")
    ended = here("search", *SMALL, *device, *settings)
    assert ended.returncode == 0, ended.stderr
    study = results.StudyResults(tmp_path / "runs" / "small")
    front = study.pareto()
    assert front["verified"].all()
    row = study.pick("best")
    assert row["error_final"] == front["error_final"].min()

    # The picture shows these points, and the table and `pareto.csv` these rows.
    axes = pareto_figure(study).axes[0]
    drawn = [c for c in axes.containers if str(c.get_label()).startswith("verified front")]
    points = front.sort_values("latency_ms_measured")[["latency_ms_measured", "error_final"]]
    assert drawn[0].lines[0].get_xydata().tolist() == points.to_numpy().tolist()
    with (study.path / "pareto.csv").open() as file:
        rows = {line["arch_id"]: line for line in csv.DictReader(file)}
    assert set(rows) == set(front["arch_id"])
    for column in ("error", "error_final", "error_test", "latency_ms_measured", "model_size_mb"):
        assert float(rows[row["arch_id"]][column]) == row[column]
    with Image.open(study.path / "pareto.png") as picture:
        assert min(picture.size) > 300
    lines = [line.split() for line in ended.stdout.splitlines()]
    shown = [line for line in lines if line[:1] == [row["arch_id"]]][-1]
    assert {f"{row[name]:.2f}" for name in ("error", "error_final", "error_test")} <= set(shown)

    # The exported files, run by hand on the images of the splits.
    out = tmp_path / "out"
    pick = ("--pick", "error_final < 100, min error_final")
    further = ("--pixels", "--dynamic-batch")
    exported = here("export", "small", *pick, *further, "--out", str(out))
    assert exported.returncode == 0, exported.stderr
    digits = data.get("digits")
    test, validation = digits.test_split(), digits.search_splits().validation
    images, logits = plain_pytorch(out, test.pixels)
    in_fp32 = error(logits, test.targets)
    assert np.abs(run_onnxruntime(out / "model.onnx", images) - logits).max() <= TOLERANCE
    deployed = out / ("deployed.onnx" if precision == "int8" else "model.onnx")
    run = BY_HAND[runtime]
    assert error(run(deployed, images), test.targets) == pytest.approx(row["error_test"])
    seen, _ = plain_pytorch(out, validation.pixels)
    assert error(run(deployed, seen), validation.targets) == pytest.approx(row["error_final"])
    assert deployed.stat().st_size == pytest.approx(row["model_size_mb"] * 1e6)
    measured_file = study.path / "finalised" / row["arch_id"] / deployed.name
    assert deployed.read_bytes() == measured_file.read_bytes()

    session = onnxruntime.InferenceSession(out / "pixels.onnx")
    found = [session.run(None, {"pixels": pixels[None]})[0] for pixels in test.pixels[:8]]
    assert np.allclose(np.concatenate(found), run_onnxruntime(deployed, images[:8]), atol=1e-4)
    session = onnxruntime.InferenceSession(out / "batches.onnx")
    assert np.abs(session.run(None, {"images": images})[0] - logits).max() <= TOLERANCE

    # From image files the network sees the same, by the command and by the exported script alone.
    files = [str(tmp_path / f"{i}.png") for i in range(8)]
    for file, pixels in zip(files, test.pixels, strict=False):
        Image.fromarray(pixels[0]).save(file)
    by_hand = run_onnxruntime(deployed, images[: len(files)])
    predicted = here("predict", str(out), *files, "--json")
    assert predicted.returncode == 0, predicted.stderr
    outputs = [list(image["outputs"].values()) for image in json.loads(predicted.stdout)]
    assert np.allclose(outputs, special.softmax(by_hand, axis=1), atol=1e-5)
    of_study = here("predict", "small", *files, "--pick", "best", "--json")
    assert of_study.stdout == predicted.stdout
    script = [sys.executable, "-I", str(out / "predict.py"), *files]
    said = subprocess.run(script, capture_output=True, text=True, check=True, cwd="/").stdout
    first = [line.split(": ")[1].split()[0] for line in said.splitlines()]
    assert first == [str(number) for number in by_hand.argmax(axis=1)]

    # The card says the same of the same files, and its id can be picked.
    card = (out / "MODEL_CARD.md").read_text()
    record = json.loads((out / "architecture.json").read_text())
    assert f"| test error (%) | {row['error_test']:.6g} |" in card
    assert f"| test images | {len(test)} |" in card
    assert record["arch_id"] == row["arch_id"]
    assert study.pick(record["arch_id"])["number"] == row["number"]
    assert record["figures"]["error_final"] == row["error_final"]
    assert record["measurement"]["latency_ms"] == row["latency_ms_measured"]
    assert record["measurement"]["device"]["precision"] == precision
    assert (out / "deployed.onnx").exists() == (precision == "int8")
    if precision == "int8":
        assert in_fp32 == pytest.approx(row["error_test_fp32"])
        assert f"| {row['error_test_fp32']:.6g} |" in card
        low_ms = row["latency_ms_measured"] - row["latency_ms_measured_ci"]
        slower = low_ms > row["latency_ms_measured_fp32"] + row["latency_ms_measured_fp32_ci"]
        assert ("slower quantised than in fp32" in card) == slower
        before_refit = ended.stdout.partition("refitting")[0]
        assert (f"{row['arch_id']} is slower quantised" in before_refit) == slower
    else:
        assert in_fp32 == pytest.approx(row["error_test"])
        assert "fp32" not in card.partition("## Latency")[0]
        assert np.isnan(row["error_test_fp32"])

    # The refitted network is another one, with numbers of its own.
    refitted = here("export", "small", "--pick", "best", "--refit", "--out", str(out))
    assert refitted.returncode == 0, refitted.stderr
    images, _ = plain_pytorch(out, test.pixels)
    assert error(run(deployed, images), test.targets) == pytest.approx(row["error_test_refit"])
    again = json.loads((out / "architecture.json").read_text())["figures"]
    assert again["error_test"] == row["error_test_refit"]
    assert "error_final" not in again, "it was trained on the validation images"
