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
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

SHOWN = 3
"""Classes of an image that are printed."""

FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "JPEG",
    "JPEG2000",
    "PCX",
    "PNG",
    "PPM",
    "QOI",
    "SGI",
    "SUN",
    "TGA",
    "TIFF",
    "WEBP",
)
"""Pillow's names of the formats that are read; for others it may start other programs."""


def read_pixels(path: str | Path, channels: int, height: int, width: int) -> np.ndarray:
    """Return the pixels of an image file, shape `(channels, height, width)`, from 0 to 255.

    Raises:
        ValueError: The network takes no images, or the file has no 8 bits per channel.
        Exception: Whatever Pillow raises of a file that is missing, damaged or no image.
    """
    if channels not in (1, 3):
        raise ValueError(f"the network takes {channels} channels, an image has 1 or 3")
    if Path(path).exists() and not Path(path).is_file():  # opening a pipe would wait for ever
        raise ValueError("is no regular file")
    with Image.open(path, formats=FORMATS) as opened:
        if opened.mode in ("I", "F") or opened.mode.startswith("I;"):  # Pillow would clip them
            raise ValueError(f"has pixels of mode {opened.mode!r}, expected 8 bits per channel")
        image = ImageOps.exif_transpose(opened)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if channels == 1 else "RGB")
        found = np.asarray(ImageOps.fit(image, (width, height)))
    return found.reshape(height, width, channels).transpose(2, 0, 1)


def read_record(folder: Path) -> dict[str, Any]:
    """Return what the `architecture.json` of an export holds.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged.
    """
    file = folder / "architecture.json"
    try:
        record: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: is not JSON ({error})") from error
    return record


def predict(folder: Path, images: Iterable[str | Path]) -> Iterator[dict[str, float]]:
    """Yield the outputs of an export's network for image files, by name.

    Those of a classifier are the probabilities of the classes.

    Raises:
        OSError: The export lacks a file.
        ValueError: A file of the export is damaged, an image cannot be read, or the network gives
            more than a number for each name.
    """
    record = read_record(folder)
    deployed = (record["deployed"] or {}).get("file", "")
    if deployed != Path(deployed).name:
        raise ValueError(
            f"{folder / 'architecture.json'}: names {deployed!r}, expected a file in it"
        )
    file = folder / (deployed if deployed.endswith(".onnx") else "model.onnx")
    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    except Exception as error:  # of the runtime's own kinds
        raise ValueError(f"{file}: cannot be loaded ({error})") from error
    steps, (channels, height, width) = record["preprocessing"], record["input_shape"]
    mean, std = (np.array(steps[name], np.float32)[:, None, None] for name in ("mean", "std"))
    for path in images:
        try:
            pixels = read_pixels(path, channels, height, width)
        except Exception as error:  # a damaged file may fail a decoder in any way
            raise ValueError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
        scaled = pixels.astype(np.float32) / steps["scale"]
        inputs = ((scaled - mean) / std).astype(np.float32)[None]
        outputs = session.run(["outputs"], {"images": inputs})[0][0]
        if outputs.shape != (len(record["outputs"]),):
            expected = f"a number for each of {len(record['outputs'])} names"
            raise ValueError(f"{file}: gives outputs of shape {outputs.shape}, expected {expected}")
        if record["task"] == "classification":
            outputs = np.exp(outputs - outputs.max())
            outputs = outputs / outputs.sum()
        yield dict(zip(record["outputs"], map(float, outputs), strict=True))


def listed(record: dict[str, Any], outputs: dict[str, float]) -> list[tuple[str, float]]:
    """Return what is printed of an image: its most probable classes, or all outputs."""
    if record["task"] != "classification":
        return list(outputs.items())
    return sorted(outputs.items(), key=lambda output: -output[1])[:SHOWN]


if __name__ == "__main__":
    names, here = sys.argv[1:], Path(__file__).parent
    if not names:
        sys.exit("usage: python predict.py IMAGE ...")
    try:
        for name, found in zip(names, predict(here, names), strict=True):
            line = ", ".join(f"{o} {value:.3f}" for o, value in listed(read_record(here), found))
            sys.stdout.write(f"{name}: {line}\n")
    except (OSError, ValueError) as error:
        sys.exit(str(error))
