"""What a network sees in images: `python predict.py IMAGE ...` in the folder of an export.

It needs NumPy, ONNX Runtime and Pillow. Images are brought to the network's size as those that it
was trained on: the shorter side is scaled, then the centre is cropped. It prints the three most
probable classes of each image, or all outputs of a network that is no classifier.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

SHOWN = 3


def read_pixels(path: str | Path, channels: int, height: int, width: int) -> np.ndarray:
    """Return the pixels of an image file, shape `(channels, height, width)`, from 0 to 255.

    Raises:
        ValueError: The network takes no images.
        Exception: Whatever Pillow raises of a file that is missing, damaged or no image.
    """
    if channels not in (1, 3):
        raise ValueError(f"the network takes {channels} channels, an image has 1 or 3")
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if channels == 1 else "RGB")
        found = np.asarray(ImageOps.fit(image, (width, height)))
    return found.reshape(height, width, channels).transpose(2, 0, 1)


def predict(folder: Path, images: Iterable[str | Path]) -> Iterator[dict[str, float]]:
    """Yield the outputs of an export's network for image files, by name; of a classifier shares.

    Raises:
        OSError: The export lacks a file.
        ValueError: A file of the export is damaged, or an image cannot be read.
    """
    record = json.loads((folder / "architecture.json").read_text("utf-8"))
    deployed = (record["deployed"] or {}).get("file", "")
    file = folder / (deployed if deployed.endswith(".onnx") else "model.onnx")
    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    except Exception as error:  # of the runtime's own kinds
        raise ValueError(f"{file}: cannot be loaded ({error})") from error
    steps = record["preprocessing"]
    mean, std = (np.array(steps[name], np.float32)[:, None, None] for name in ("mean", "std"))
    for path in images:
        try:
            pixels = read_pixels(path, *record["input_shape"])
        except Exception as error:  # a damaged file may fail a decoder in any way
            raise ValueError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
        scaled = pixels.astype(np.float32) / steps["scale"]
        inputs = ((scaled - mean) / std).astype(np.float32)[None]
        outputs = session.run(["outputs"], {"images": inputs})[0][0]
        if record["task"] == "classification":
            outputs = np.exp(outputs - outputs.max())
            outputs = outputs / outputs.sum()
        yield dict(zip(record["outputs"], map(float, outputs), strict=True))


if __name__ == "__main__":
    names = sys.argv[1:]
    for name, found in zip(names, predict(Path(__file__).parent, names), strict=True):
        best = sorted(found.items(), key=lambda item: -item[1])[:SHOWN]
        listed = ", ".join(f"{output} {value:.3f}" for output, value in best)
        sys.stdout.write(f"{name}: {listed}\n")
