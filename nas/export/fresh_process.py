"""Runs an exported folder where nothing of this project can be imported.

`nas.export.folder.verify` runs this file as a script in a fresh interpreter; it therefore imports
nothing of this project itself. Arguments: the folder, then the packages that must not be
imported. The last line of its output is the largest difference of an output.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

IMAGES = 4
SEED = 0


def load_module(path: Path) -> ModuleType:
    """Import a Python file that is on no import path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: cannot be imported, expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def expect(what: str, got: object, expected: object) -> None:
    """Raise ValueError where a fact is not as `architecture.json` says."""
    if got != expected:
        raise ValueError(f"{what}: got {got!r}, expected {expected!r} as in architecture.json")


def compare(folder: Path) -> float:
    """Return the largest difference of an output between `model.py` and `model.onnx`.

    Raises:
        ValueError: The folder's files contradict each other.
    """
    import numpy as np
    import onnxruntime
    import torch

    record: dict[str, Any] = json.loads((folder / "architecture.json").read_text("utf-8"))
    model = load_module(folder / "model.py")
    network = model.load()
    for part in network.modules():
        if hasattr(part, "disabled"):  # model.onnx is not quantised
            part.disabled = True
    channels, height, width = record["input_shape"]
    got = [[name, type(block).__name__] for name, block in network.named_children()]
    expect("blocks", got, [[b["name"], b["class"].split(".")[-1]] for b in record["blocks"]])
    for name in ("scale", "mean", "std"):
        constant = getattr(model, f"PIXEL_{name.upper()}")
        constant = list(constant) if isinstance(constant, tuple) else constant
        expect(f"preprocessing {name}", constant, record["preprocessing"][name])

    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    expect("shape of images", session.get_inputs()[0].shape, [1, channels, height, width])
    generator = torch.Generator().manual_seed(SEED)
    shape = (IMAGES, channels, height, width)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    images = model.preprocess(pixels)
    with torch.inference_mode():
        expected = network(images).numpy()
    runs = [session.run(["outputs"], {"images": image[None].numpy()})[0] for image in images]
    expect("number of outputs", expected.shape[1], len(record["outputs"]))
    return float(np.max(np.abs(expected - np.concatenate(runs))))


def main(folder: str, packages: Sequence[str]) -> None:
    """Compare with the packages out of reach, and write the difference to standard output."""
    # An import of a module that is None here raises ModuleNotFoundError.
    sys.modules.update(dict.fromkeys(packages))  # type: ignore[arg-type]
    sys.stdout.write(f"\n{compare(Path(folder))!r}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
