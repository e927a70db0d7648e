"""Small data sets of made-up images, no two alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from parquet_files import write_parquet
from PIL import Image

WriteImage = Callable[..., Path]


@pytest.fixture
def write_image() -> WriteImage:
    rng = np.random.default_rng(0)

    def write(path: Path, width: int = 8, height: int = 8) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def image_root(tmp_path: Path, write_image: WriteImage) -> Path:
    """Three classes of 10, 15 and 20 images."""
    root = tmp_path / "pictures"
    for name, count in {"cat": 10, "dog": 15, "owl": 20}.items():
        for number in range(count):
            write_image(root / name / f"{number}.png")
    return root


@pytest.fixture
def csv_path(image_root: Path) -> Path:
    """A table of the images of `image_root`."""
    files = sorted(image_root.glob("*/*.png"))
    lines = [f"{file.relative_to(image_root)},{file.parent.name}" for file in files]
    path = image_root / "labels.csv"
    path.write_text("\n".join(["path,label", *lines]) + "\n")
    return path


@pytest.fixture
def hugging_face_root(tmp_path: Path, image_root: Path) -> Path:
    """The images of `image_root` in a Parquet file, as the library `datasets` writes it."""
    root = tmp_path / "parquet"
    write_parquet(root / "data" / "train-00000-of-00001.parquet", sorted(image_root.glob("*/*")))
    return root


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """60 colour images `(60, 8, 8, 3)` of three classes."""
    x = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    return {"x": x, "y": np.arange(60) % 3}


@pytest.fixture
def npz_path(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return path
