"""Runs an exported folder where nothing of this project can be imported.

`nas.export.package.verify` runs this file as a script in a fresh interpreter; it therefore imports
nothing of this project itself. Arguments: the folder, then the packages that must not be
imported. The last line of its output is the largest difference of a logit.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

IMAGES = 4
SEED = 0


class Blocker(MetaPathFinder):
    """Refuses to import some packages, wherever they are installed."""

    def __init__(self, packages: Sequence[str]) -> None:
        """Refuse `packages`, which are top-level names."""
        self._packages = frozenset(packages)

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raise ImportError for a refused package; leave every other to the next finder."""
        del path, target
        if fullname.partition(".")[0] in self._packages:
            raise ImportError(f"{fullname!r} must not be needed by an exported network")
        return None


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
    """Return the largest difference of a logit between `model.py` and `model.onnx`.

    Raises:
        ValueError: The folder's files contradict each other.
    """
    import numpy as np
    import onnxruntime
    import torch

    record: dict[str, Any] = json.loads((folder / "architecture.json").read_text("utf-8"))
    model = load_module(folder / "model.py")
    network = model.load()
    channels, height, width = record["input_shape"]
    got = [[name, type(block).__name__] for name, block in network.named_children()]
    expect("blocks", got, [[b["name"], b["class"].split(".")[-1]] for b in record["blocks"]])
    for name, constant in (("scale", model.PIXEL_SCALE), ("std", list(model.PIXEL_STD))):
        expect(f"preprocessing {name}", constant, record["preprocessing"][name])
    expect("preprocessing mean", list(model.PIXEL_MEAN), record["preprocessing"]["mean"])

    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    expect("shape of images", session.get_inputs()[0].shape, [1, channels, height, width])
    generator = torch.Generator().manual_seed(SEED)
    shape = (IMAGES, channels, height, width)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    images = model.preprocess(pixels)
    with torch.inference_mode():
        logits = network(images).numpy()
    runs = [session.run(["logits"], {"images": image[None].numpy()})[0] for image in images]
    expect("shape of logits", logits.shape, (IMAGES, len(record["class_names"])))
    return float(np.max(np.abs(logits - np.concatenate(runs))))


def main(folder: str, packages: Sequence[str]) -> None:
    """Block the packages, compare, and write the difference to standard output."""
    sys.meta_path.insert(0, Blocker(packages))
    difference = compare(Path(folder))
    imported = sorted({name.partition(".")[0] for name in sys.modules} & set(packages))
    if imported:
        raise ImportError(f"{imported} were imported, expected none of the project's packages")
    sys.stdout.write(f"\n{difference!r}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
