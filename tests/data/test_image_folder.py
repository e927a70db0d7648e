from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from nas.core.errors import ConfigError, DataError
from nas.data.image_folder import ImageFolder

WriteImage = Callable[..., Path]


def load(root: Path, **settings: int | bool | float):
    return ImageFolder(path=str(root), **settings).search_splits()


# --- Good folders --------------------------------------------------------------------------------


def test_shares_and_classes(image_root: Path) -> None:
    dataset = ImageFolder(path=str(image_root))
    search, test = dataset.search_splits(), dataset.test_split()
    assert search.class_names == ("cat", "dog", "owl")
    assert np.bincount(search.train.labels).tolist() == [6, 9, 12]
    assert np.bincount(search.validation.labels).tolist() == [2, 3, 4]
    assert np.bincount(test.labels).tolist() == [2, 3, 4]
    assert search.input_shape == (3, 8, 8)


def test_pixels_are_those_of_the_file(tmp_path: Path, write_image: WriteImage) -> None:
    for split in ("train", "validation", "test"):
        for name in ("a", "b"):
            write_image(tmp_path / split / name / "1.png", width=6, height=4)
    test = ImageFolder(path=str(tmp_path)).test_split()
    with Image.open(tmp_path / "test/b/1.png") as image:
        expected = np.asarray(image).transpose(2, 0, 1)
    assert test.pixels.shape == (2, 3, 4, 6)
    assert np.array_equal(test.pixels[1], expected)


def test_split_folders_are_taken_whole(tmp_path: Path, write_image: WriteImage) -> None:
    for split, count in {"train": 5, "validation": 3, "test": 2}.items():
        for name in ("a", "b"):
            for number in range(count):
                write_image(tmp_path / split / name / f"{number}.jpg")
    dataset = ImageFolder(path=str(tmp_path))
    search = dataset.search_splits()
    sizes = (len(search.train), len(search.validation), len(dataset.test_split()))
    assert sizes == (10, 6, 4)


def test_split_without_folder_is_cut_from_train(tmp_path: Path, write_image: WriteImage) -> None:
    for split, count in {"train": 10, "test": 2}.items():
        for name in ("a", "b"):
            for number in range(count):
                write_image(tmp_path / split / name / f"{number}.png")
    dataset = ImageFolder(path=str(tmp_path), validation_share=0.3)
    search = dataset.search_splits()
    sizes = (len(search.train), len(search.validation), len(dataset.test_split()))
    assert sizes == (14, 6, 4)


def test_train_may_be_the_name_of_a_class(image_root: Path) -> None:
    (image_root / "cat").rename(image_root / "train")
    assert load(image_root).class_names == ("dog", "owl", "train")


def test_other_and_hidden_files_are_passed_over(image_root: Path) -> None:
    (image_root / "notes.txt").write_text("x")
    (image_root / "cat" / "notes.txt").write_text("x")
    (image_root / "cat" / "._1.png").write_text("x")
    (image_root / ".thumbnails").mkdir()
    assert len(load(image_root).train) == 27


def test_grayscale_gives_one_channel(image_root: Path) -> None:
    assert load(image_root, grayscale=True).input_shape == (1, 8, 8)


def test_image_size_resizes_and_crops_the_centre(image_root: Path, write_image: WriteImage) -> None:
    write_image(image_root / "cat" / "large.png", width=40, height=20)
    assert load(image_root, image_size=16).input_shape == (3, 16, 16)

    # Black at the left and right, white in the centre: the crop must be white alone.
    stripes = np.zeros((20, 40, 3), dtype=np.uint8)
    stripes[:, 6:34] = 255
    for file in image_root.glob("*/*.png"):
        Image.fromarray(stripes).save(file)
    assert load(image_root, image_size=10).train.pixels.min() == 255


def test_photos_are_turned_upright(image_root: Path) -> None:
    quarter_turned = Image.Exif()
    quarter_turned[ExifTags.Base.Orientation] = 6
    for file in image_root.glob("*/*.png"):
        pixels = np.zeros((12, 8, 3), dtype=np.uint8)
        pixels[:, 4:] = 255
        Image.fromarray(pixels).save(file, exif=quarter_turned)
    images = load(image_root).train.pixels
    assert images.shape[1:] == (3, 8, 12)
    # A quarter turn clockwise brings the left half to the top.
    assert images[:, :, :4].max() == 0
    assert images[:, :, 4:].min() == 255


def test_palette_grey_and_transparent_images_become_rgb(image_root: Path) -> None:
    for number, mode in enumerate(("P", "L", "RGBA", "LA", "1", "CMYK")):
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.new(mode, (8, 8)).save(image_root / "cat" / f"mode{number}.{suffix}")
    assert load(image_root).input_shape == (3, 8, 8)


# --- Bad folders ---------------------------------------------------------------------------------


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder.*data\.path"):
        load(tmp_path / "nowhere")


def test_no_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got 0 class folder\(s\).*expected 2 or more"):
        load(tmp_path)


def test_one_class(image_root: Path) -> None:
    shutil.rmtree(image_root / "cat")
    shutil.rmtree(image_root / "dog")
    with pytest.raises(DataError, match=r"got 1 class folder\(s\) \['owl'\], expected 2"):
        load(image_root)


def test_class_without_images(image_root: Path) -> None:
    (image_root / "empty").mkdir()
    with pytest.raises(DataError, match=r"pictures: class 'empty' has 0 image"):
        load(image_root)


def test_class_with_too_few_images(image_root: Path, write_image: WriteImage) -> None:
    write_image(image_root / "bat" / "1.png")
    write_image(image_root / "bat" / "2.png")
    with pytest.raises(DataError, match=r"class 'bat' has 2 image.*expected 3 or more"):
        load(image_root)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_file_that_is_no_image(image_root: Path, content: bytes) -> None:
    (image_root / "dog" / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"dog/bad\.png: cannot be read"):
        load(image_root)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp"])
def test_truncated_image(image_root: Path, write_image: WriteImage, suffix: str) -> None:
    for folder in ("cat", "dog", "owl"):
        for file in (image_root / folder).iterdir():
            if folder == "dog":
                file.unlink()
                file = write_image(file.with_suffix(f".{suffix}"))
                content = file.read_bytes()
                file.write_bytes(content[: int(len(content) * 0.7)])
    with pytest.raises(DataError, match=rf"dog/\d+\.{suffix}: cannot be read"):
        load(image_root)


def test_link_to_nothing(image_root: Path) -> None:
    (image_root / "dog" / "gone.png").symlink_to(image_root / "nothing.png")
    with pytest.raises(DataError, match=r"gone\.png: cannot be read"):
        load(image_root)


def test_16_bit_image(image_root: Path) -> None:
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(image_root / "dog" / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png: got pixel mode 'I;16', expected 8 bits"):
        load(image_root)


def test_sizes_that_differ_name_both_files(image_root: Path, write_image: WriteImage) -> None:
    write_image(image_root / "owl" / "wide.png", width=9)
    with pytest.raises(DataError) as caught:
        load(image_root)
    message = str(caught.value)
    assert "cat/0.png has 8x8" in message
    assert "owl/wide.png 9x8" in message
    assert "set data.image_size" in message


def test_test_images_are_checked_before_the_search(tmp_path: Path, write_image: WriteImage) -> None:
    for split in ("train", "validation", "test"):
        for name in ("a", "b"):
            write_image(tmp_path / split / name / "1.png")
    write_image(tmp_path / "test" / "a" / "1.png", width=12)
    with pytest.raises(DataError, match=r"test/a/1\.png 12x8"):
        load(tmp_path)


def test_class_folders_that_differ_between_splits(tmp_path: Path, write_image: WriteImage) -> None:
    for split in ("train", "validation", "test"):
        for name in ("a", "b"):
            write_image(tmp_path / split / name / "1.png")
    write_image(tmp_path / "test" / "c" / "1.png")
    with pytest.raises(DataError, match=r"test: got other class folders.*differ in c"):
        load(tmp_path)


def test_folder_beside_train_that_is_no_split(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "train" / "a" / "1.png")
    write_image(tmp_path / "val" / "a" / "1.png")
    with pytest.raises(DataError, match="'val' beside 'train', expected only train, validation"):
        load(tmp_path)


def test_image_size_of_nothing() -> None:
    with pytest.raises(ConfigError, match=r"data\.image_size: got 0"):
        ImageFolder(path="anywhere", image_size=0)
