"""How images of any form become arrays, and where these are kept."""

from __future__ import annotations

import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from nas.core.dataset import Examples
from nas.core.errors import ConfigError, DataError
from nas.core.host import child_environment, usable_memory
from nas.core.pixels import StoredPixels
from nas.data.image_folder import ImageFolder

WriteImage = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hwnas" / "images"


def all_pixels(dataset: ImageFolder) -> np.ndarray:
    splits = dataset.search_splits()
    parts = (splits.train, splits.validation, dataset.test_split())
    return np.concatenate([part.pixels[:] for part in parts])


def saved_alike(root: Path, image: Image.Image, suffix: str = "png", **parameters: object) -> None:
    """Replace every image by the same one."""
    for file in list(root.glob("*/*.png")):
        file.unlink()
        image.save(file.with_suffix(f".{suffix}"), **parameters)


# --- Size ----------------------------------------------------------------------------------------


def test_images_of_one_size_keep_it(tmp_path: Path, write_image: WriteImage) -> None:
    for number in range(12):
        write_image(tmp_path / "ab"[number % 2] / f"{number}.png", width=6, height=4)
    splits = ImageFolder(path=str(tmp_path)).search_splits()
    assert splits.input_shape == (3, 4, 6)
    assert len(splits.notes) == 1


@pytest.mark.parametrize(("scale", "side"), [(1, 9), (40, 224)])
def test_images_of_several_sizes_get_the_median_of_the_shorter_sides(
    tmp_path: Path, write_image: WriteImage, scale: int, side: int
) -> None:
    # Shorter sides 5, 5, 9, 9, 9, 20; only one image is a square of 9.
    sizes = [(5, 30), (30, 5), (9, 9), (9, 12), (12, 9), (20, 20)]
    for split in ("train", "validation", "test"):
        for name in ("a", "b"):
            for number, (width, height) in enumerate(sizes):
                file = tmp_path / split / name / f"{number}.png"
                write_image(file, width=width * scale, height=height * scale)
    splits = ImageFolder(path=str(tmp_path)).search_splits()
    assert splits.input_shape == (3, side, side)
    (note,) = (line for line in splits.notes if "resized" in line)
    resized = 30 if scale == 1 else 36
    assert f"{resized} of 36 images" in note
    assert f"{side}x{side}" in note
    assert "median" in note
    assert "crop" in note


def test_the_seed_of_the_split_does_not_change_the_size(
    tmp_path: Path, write_image: WriteImage
) -> None:
    for number in range(30):
        write_image(tmp_path / "ab"[number % 2] / f"{number}.png", width=5 + number, height=40)
    shapes = {
        ImageFolder(path=str(tmp_path), split_seed=seed).search_splits().input_shape
        for seed in range(5)
    }
    assert shapes == {(3, 19, 19)}


def test_height_and_width_can_be_set_apart(image_root: Path) -> None:
    stripes = np.zeros((20, 40, 3), np.uint8)
    stripes[:, 15:25] = 255
    saved_alike(image_root, Image.fromarray(stripes))
    dataset = ImageFolder(path=str(image_root), image_size=(20, 10))
    assert dataset.search_splits().input_shape == (3, 20, 10)
    assert all_pixels(dataset).min() == 255


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "64", (8,), (8, 0), (8, 8, 8), (8, "8")])
def test_a_size_that_is_none_is_refused(size: object) -> None:
    with pytest.raises(ConfigError, match=r"data\.image_size: got .*\[HEIGHT,WIDTH\]"):
        ImageFolder(path="anywhere", image_size=size)


# --- Colours -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_images_have_one_channel_unless_told_otherwise(image_root: Path, mode: str) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    saved_alike(image_root, Image.fromarray(grey).convert(mode))
    splits = ImageFolder(path=str(image_root)).search_splits()
    assert splits.input_shape == (1, 8, 8)
    assert any("grey" in note and "data.grayscale" in note for note in splits.notes)
    assert ImageFolder(path=str(image_root), grayscale=False).search_splits().input_shape[0] == 3
    with Image.open(next(image_root.glob("cat/*"))) as image:
        expected = np.asarray(image.convert("L"))
    assert np.array_equal(all_pixels(ImageFolder(path=str(image_root)))[0, 0], expected)


def test_one_image_in_colour_gives_all_three_channels(image_root: Path) -> None:
    saved_alike(image_root, Image.new("L", (8, 8), 77))
    Image.new("RGB", (8, 8), (1, 2, 3)).save(image_root / "owl" / "colour.png")
    splits = ImageFolder(path=str(image_root)).search_splits()
    assert splits.input_shape == (3, 8, 8)
    assert (splits.train.pixels[0] == 77).all()
    colour = all_pixels(ImageFolder(path=str(image_root), grayscale=True))
    assert colour.shape[1] == 1


def transparent_palette() -> tuple[Image.Image, dict[str, object]]:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(0, (0, 0, 4, 8))
    return image, {"transparency": 0}


def transparent_colour() -> tuple[Image.Image, dict[str, object]]:
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    image.paste((10, 20, 30), (0, 0, 4, 8))
    return image, {"transparency": (10, 20, 30)}


def alpha() -> tuple[Image.Image, dict[str, object]]:
    image = Image.new("RGBA", (8, 8), (200, 100, 50, 255))
    image.paste((10, 20, 30, 0), (0, 0, 4, 8))
    return image, {}


@pytest.mark.parametrize("make", [transparent_palette, transparent_colour, alpha])
def test_transparent_parts_are_white(
    image_root: Path, make: Callable[[], tuple[Image.Image, dict[str, object]]]
) -> None:
    image, parameters = make()
    saved_alike(image_root, image, **parameters)
    dataset = ImageFolder(path=str(image_root))
    pixels = all_pixels(dataset)
    assert (pixels[:, :, :, :4] == 255).all()
    assert (pixels[:, :, :, 4:] == np.array([200, 100, 50])[:, None, None]).all()
    assert any("45 images have an alpha channel" in note for note in dataset.search_splits().notes)


def test_half_transparent_is_half_white(image_root: Path) -> None:
    saved_alike(image_root, Image.new("RGBA", (8, 8), (0, 100, 200, 128)))
    found = all_pixels(ImageFolder(path=str(image_root)))[0, :, 0, 0]
    assert np.abs(found - np.array([127, 177, 227])).max() <= 1


def test_cmyk_becomes_rgb(image_root: Path) -> None:
    saved_alike(image_root, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "jpg", quality=95)
    pixels = all_pixels(ImageFolder(path=str(image_root))).astype(int)
    assert np.abs(pixels - np.array([255, 0, 0])[:, None, None]).max() < 12


def test_an_orientation_behind_the_pixels_of_a_png(image_root: Path) -> None:
    """The header of such a file has another size than the image that is decoded."""
    quarter_turned = Image.Exif()
    quarter_turned[ExifTags.Base.Orientation] = 6
    saved_alike(image_root, Image.new("RGB", (8, 12)))
    chunk = b"eXIf" + quarter_turned.tobytes().removeprefix(b"Exif\0\0")
    framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    for file in image_root.glob("*/*.png"):
        content = file.read_bytes()
        file.write_bytes(content[:-12] + framed + content[-12:])
    with pytest.raises(DataError, match=r"got 12x8 pixels where its header says 8x12"):
        ImageFolder(path=str(image_root)).search_splits()
    assert all_pixels(ImageFolder(path=str(image_root), image_size=8)).shape == (45, 3, 8, 8)


# --- Images in a file ----------------------------------------------------------------------------


def same(first: Examples, second: Examples) -> bool:
    return first.fingerprint() == second.fingerprint()


def test_large_data_is_kept_in_a_file_and_decoded_once(
    image_root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = ImageFolder(path=str(image_root))
    assert isinstance(held.search_splits().train.pixels, np.ndarray)
    assert not cache.exists()
    stored = ImageFolder(path=str(image_root), memory_share=0)
    splits = stored.search_splits()
    assert isinstance(splits.train.pixels, StoredPixels)
    assert same(splits.train, held.search_splits().train)
    assert same(splits.validation, held.search_splits().validation)
    assert same(stored.test_split(), held.test_split())
    assert any(str(cache) in note and "memory_share" in note for note in splits.notes)
    assert not list(cache.glob(".*"))
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("was decoded again"))
    again = ImageFolder(path=str(image_root), memory_share=0, mirrors=False)
    assert same(again.search_splits().train, splits.train)
    assert again.search_splits().notes == splits.notes


def test_changed_images_are_decoded_anew(image_root: Path, write_image: WriteImage) -> None:
    dataset = ImageFolder(path=str(image_root), memory_share=0)
    before = dataset.search_splits().train
    for file in image_root.glob("*/*.png"):
        write_image(file)
    assert not same(dataset.search_splits().train, before)
    assert same(
        dataset.search_splits().train, ImageFolder(path=str(image_root)).search_splits().train
    )


def test_another_decoding_is_another_file(image_root: Path) -> None:
    for settings in ({"image_size": 4}, {"grayscale": True}, {"split_seed": 1}):
        stored = ImageFolder(path=str(image_root), memory_share=0, **settings).search_splits()
        assert same(
            stored.train, ImageFolder(path=str(image_root), **settings).search_splits().train
        )


def test_nothing_is_kept_of_broken_images(image_root: Path, cache: Path) -> None:
    broken = image_root / "dog" / "3.png"
    intact = broken.read_bytes()
    broken.write_bytes(intact[:-60])
    dataset = ImageFolder(path=str(image_root), memory_share=0)
    with pytest.raises(DataError, match=r"dog/3\.png: cannot be read"):
        all_pixels(dataset)
    assert not list(cache.glob("*.json"))
    broken.write_bytes(intact)
    assert len(all_pixels(dataset)) == 45


DECODE = """
import sys
from nas.data.image_folder import ImageFolder
ImageFolder(path=sys.argv[1], memory_share=0, image_size=1000).search_splits()
"""


def test_a_decoding_that_was_killed_is_not_taken_for_whole(image_root: Path, cache: Path) -> None:
    command = [sys.executable, "-c", DECODE, str(image_root)]
    process = subprocess.Popen(command, env=child_environment())
    until = time.monotonic() + 60
    while not list(cache.glob(".*.part")) and time.monotonic() < until:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (part,) = cache.glob(".*.part")
    assert not list(cache.glob("*.u8"))
    time.sleep(max(part.stat().st_ctime + 2.1 - time.time(), 0))
    settings = {"path": str(image_root), "image_size": 1000}
    stored = ImageFolder(**settings, memory_share=0).search_splits()
    assert same(stored.train, ImageFolder(**settings).search_splits().train)
    assert not list(cache.glob(".*.part"))


@pytest.fixture
def small_files() -> Iterator[None]:
    """Let the system refuse files of more than 4000 bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_disk_that_is_too_small_is_told_with_the_space_that_is_needed(
    image_root: Path, cache: Path
) -> None:
    dataset = ImageFolder(path=str(image_root), memory_share=0)
    with pytest.raises(
        DataError, match=r"images: 5\.18e-06 GB .*cannot be written.*XDG_CACHE_HOME"
    ):
        dataset.search_splits()
    assert not list(cache.glob("*"))


def test_a_cache_folder_that_cannot_be_made(image_root: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(DataError, match=r"images: .* GB .*cannot be written \(.*XDG_CACHE_HOME"):
        ImageFolder(path=str(image_root), memory_share=0).search_splits()


@pytest.mark.parametrize("share", [-0.1, float("nan")])
def test_a_share_of_memory_that_is_none(share: float) -> None:
    with pytest.raises(ConfigError, match=r"data\.memory_share"):
        ImageFolder(path="anywhere", memory_share=share)


def test_the_share_is_of_the_memory_that_the_process_may_use(image_root: Path) -> None:
    size = 45 * 3 * 8 * 8
    for factor, kind in ((0.5, StoredPixels), (2.0, np.ndarray)):
        dataset = ImageFolder(path=str(image_root), memory_share=factor * size / usable_memory())
        assert isinstance(dataset.search_splits().train.pixels, kind)
