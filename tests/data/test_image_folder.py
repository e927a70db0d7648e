from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, ExifTags, Image

from nas.core.errors import ConfigError, DataError
from nas.data import decoding
from nas.data.image_folder import ImageFolder

WriteImage = Callable[..., Path]


def load(root: Path, **settings: int | bool | float):
    return ImageFolder(path=str(root), **settings).search_splits()


def write_splits(root: Path, write_image: WriteImage, images: int = 1) -> None:
    """Write classes a and b in three splits, each with `images` images, numbered from 1 or 0."""
    for split in ("train", "validation", "test"):
        for name in ("a", "b"):
            for number in range(images):
                write_image(root / split / name / f"{number if images > 1 else 1}.png")


# --- Good folders --------------------------------------------------------------------------------


def test_shares_and_classes(image_root: Path) -> None:
    dataset = ImageFolder(path=str(image_root))
    search, test = dataset.search_splits(), dataset.test_split()
    assert search.task.class_names == ("cat", "dog", "owl")
    assert np.bincount(search.train.targets).tolist() == [6, 9, 12]
    assert np.bincount(search.validation.targets).tolist() == [2, 3, 4]
    assert np.bincount(test.targets).tolist() == [2, 3, 4]
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
    assert load(image_root).task.class_names == ("dog", "owl", "train")


def test_other_and_hidden_files_are_passed_over(image_root: Path) -> None:
    (image_root / "notes.txt").write_text("x")
    (image_root / "cat" / "notes.txt").write_text("x")
    (image_root / "cat" / "._1.png").write_text("x")
    (image_root / ".thumbnails").mkdir()
    for name in ("__MACOSX", "lost+found", "System Volume Information", "$RECYCLE.BIN"):
        (image_root / name).mkdir()
    shutil.copytree(image_root / "dog", image_root / "cat" / ".cache")
    shutil.copytree(image_root / "dog", image_root / "cat" / "__MACOSX")
    search = load(image_root)
    assert len(search.train) == 27
    assert search.task.class_names == ("cat", "dog", "owl")


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


@pytest.mark.parametrize("suffix", ["jfif", "JFIF", "jpe", "jp2", "tga", "dib", "avif"])
def test_every_suffix_that_pillow_decodes_is_read(image_root: Path, suffix: str) -> None:
    if f".{suffix.lower()}" not in Image.registered_extensions():
        pytest.skip(f"this Pillow does not decode .{suffix}")
    for file in image_root.glob("owl/*.png"):
        with Image.open(file) as image:
            image.save(file.with_suffix(f".{suffix}"))
        file.unlink()
    search = load(image_root)
    assert np.bincount(search.train.targets).tolist() == [6, 9, 12]
    assert "20" in search.notes[0]


def test_images_in_subfolders_belong_to_their_class(
    image_root: Path, write_image: WriteImage
) -> None:
    flat = load(image_root)
    for number in range(10):
        write_image(image_root / "cat" / "black" / "old" / f"{number}.png")
    search = load(image_root)
    assert np.bincount(search.train.targets).tolist() == [12, 9, 12]
    assert search.task.class_names == flat.task.class_names
    assert "cat 20" in search.notes[0]


def test_links_that_lead_back_or_to_another_class(image_root: Path) -> None:
    (image_root / "cat" / "loop").symlink_to(image_root / "cat")
    (image_root / "cat" / "up").symlink_to(image_root.parent)
    (image_root / "cat" / "other").symlink_to(image_root / "dog")
    (image_root / "cat" / "self").symlink_to("self")
    (image_root / "dog" / "a").mkdir()
    (image_root / "dog" / "b").mkdir()
    (image_root / "dog" / "a" / "b").symlink_to(image_root / "dog" / "b")
    (image_root / "dog" / "b" / "a").symlink_to(image_root / "dog" / "a")
    search = load(image_root)
    assert np.bincount(search.train.targets).tolist() == [6, 9, 12]
    assert re.search(r"5 linked to what is read elsewhere", search.notes[0])


def test_links_to_files_and_folders_elsewhere_are_followed(
    image_root: Path, tmp_path: Path
) -> None:
    shutil.move(image_root / "cat", tmp_path / "elsewhere")
    (image_root / "cat").symlink_to(tmp_path / "elsewhere")
    (image_root / "dog" / "0.png").rename(tmp_path / "blob")
    (image_root / "dog" / "0.png").symlink_to(tmp_path / "blob")
    followed = load(image_root, follow_links=True)
    assert np.bincount(followed.train.targets).tolist() == [6, 9, 12]
    with pytest.raises(DataError, match=r"cat: leads out.*elsewhere.*follow_links"):
        load(image_root)


@pytest.mark.parametrize("link", ["folder", "file", "class", "split"])
def test_links_out_of_the_folder_are_refused(image_root: Path, tmp_path: Path, link: str) -> None:
    shutil.move(image_root / "cat", tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere", image_root / "cat")
    at, to = {
        "folder": (image_root / "cat" / "more", tmp_path / "elsewhere"),
        "file": (image_root / "cat" / "more.png", tmp_path / "elsewhere" / "0.png"),
        "class": (image_root / "fox", tmp_path / "elsewhere"),
        "split": (image_root / "train", tmp_path),
    }[link]
    at.symlink_to(to)
    with pytest.raises(DataError, match=rf"{at}: leads out of {image_root}, to {to}") as refused:
        load(image_root)
    assert "\n" not in str(refused.value)


def test_what_a_link_leads_to_is_not_listed(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "elsewhere" / "without" / "images"
    inner.mkdir(parents=True)
    (image_root / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    listed = list[str]()
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda at: (listed.append(str(at)), scan(at))[1])
    with pytest.raises(DataError, match=r"cat/more: leads out of"):
        load(image_root)
    assert str(image_root / "cat") in listed
    assert not [at for at in listed if "without" in at or at.endswith("more")]


def test_a_folder_that_is_reached_by_a_link(image_root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(image_root)
    (image_root / "cat" / "again.png").symlink_to("0.png")
    assert len(load(tmp_path / "link").train) == 28


def test_note_says_what_was_read_and_passed_over(image_root: Path) -> None:
    assert load(image_root).notes == (f"{image_root}: 45 images (cat 10, dog 15, owl 20)",)
    for name in ("cat/.1.png", "cat/a.heic", "dog/b.HEIC", "owl/c.txt", "owl/none", "loose.png"):
        (image_root / name).write_bytes(b"")
    (note,) = load(image_root).notes
    for part in ("6 files", "1 hidden", "1 outside the class folders", "2 .heic", "1 .txt"):
        assert part in note
    assert "\n" not in note


def test_note_of_many_classes_names_the_smallest_and_the_largest(
    tmp_path: Path, write_image: WriteImage
) -> None:
    for number in range(30):
        for image in range(3 + (number == 4) * 2):
            write_image(tmp_path / f"class{number}" / f"{image}.png")
    (note,) = load(tmp_path, validation_share=0.34, test_share=0.33).notes
    assert re.search(r"92 images \(30 classes, from class0 3 to class4 5\)", note)


def test_case_tells_classes_apart(image_root: Path) -> None:
    (image_root / "owl").rename(image_root / "Cat")
    assert load(image_root).task.class_names == ("Cat", "cat", "dog")


# --- Bad folders ---------------------------------------------------------------------------------


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder.*data\.path"):
        load(tmp_path / "nowhere")


def test_no_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got 0 class folder\(s\).*expected 2 or more"):
        load(tmp_path)


def test_images_without_class_folders(image_root: Path, tmp_path: Path) -> None:
    for file in list(image_root.rglob("*.*")):
        file.rename(tmp_path / f"{file.parent.name}_{file.name}")
    shutil.rmtree(image_root)
    with pytest.raises(DataError, match=r"image\(s\) lie outside of class folders.*data=csv"):
        load(tmp_path)


def test_one_class(image_root: Path) -> None:
    shutil.rmtree(image_root / "cat")
    shutil.rmtree(image_root / "dog")
    with pytest.raises(DataError, match=r"got 1 class folder\(s\) \['owl'\], expected 2"):
        load(image_root)


def test_class_without_images(image_root: Path) -> None:
    (image_root / "empty").mkdir()
    with pytest.raises(DataError, match=r"pictures.*: class 'empty' has 0 image"):
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
    (image_root / "dog" / "itself.png").symlink_to("itself.png")
    with pytest.raises(DataError, match=r"gone\.png: cannot be read"):
        load(image_root)


def test_16_bit_image(image_root: Path) -> None:
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(image_root / "dog" / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png: got pixel mode 'I;16'.*expected .*8 bits"):
        load(image_root)


def test_test_images_of_another_size_are_resized(tmp_path: Path, write_image: WriteImage) -> None:
    write_splits(tmp_path, write_image)
    write_image(tmp_path / "test" / "a" / "1.png", width=12)
    dataset = ImageFolder(path=str(tmp_path))
    assert dataset.search_splits().input_shape == dataset.test_split().pixels.shape[1:]
    assert "1 of 6 images are resized to 8x8" in dataset.search_splits().notes[1]


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tif", "jp2", "tga"])
def test_damaged_images_of_any_format(tmp_path: Path, write_image: WriteImage, suffix: str) -> None:
    """Damaged files are read or refused by name; no decoder's own error comes through."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for number in range(20):
            write_image(tmp_path / name / f"{number}.{suffix}")
    for file in tmp_path.glob("b/1*"):
        content = np.frombuffer(file.read_bytes(), np.uint8).copy()
        at = rng.integers(4, len(content), 8)
        content[at] = rng.integers(0, 256, 8)
        file.write_bytes(content.tobytes()[: rng.integers(8, len(content))])
    with pytest.raises(DataError, match=rf"b/1\d?\.{suffix}: cannot be read"):
        load(tmp_path, image_size=8)


def test_all_broken_images_of_all_splits_are_found_at_once(
    tmp_path: Path, write_image: WriteImage
) -> None:
    write_splits(tmp_path, write_image, images=40)
    broken = [f"train/a/{number}.png" for number in (0, 7, 39)]
    broken += ["validation/b/3.png", "test/b/2.png", "test/b/30.png", "test/b/31.png"]
    for name in broken:
        content = (tmp_path / name).read_bytes()
        # The header of a truncated image is intact.
        (tmp_path / name).write_bytes(content[:-60])
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert "7 images" in message
    assert "2 more" in message
    assert all(str(tmp_path / name) in message for name in broken[:5])
    assert "\n" not in message


def test_nothing_but_broken_images(image_root: Path) -> None:
    for file in image_root.glob("*/*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"images cannot be used: .*cat/\d\.png: cannot be read"):
        load(image_root)


def test_images_are_decoded_by_several_threads_at_once(
    image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "usable_cores", lambda: 2)
    for number in range(64):
        shutil.copy(image_root / "owl" / "0.png", image_root / "owl" / f"more{number}.png")
    together, met, convert = (
        threading.Barrier(2, timeout=30),
        threading.Event(),
        Image.Image.convert,
    )

    def wait_and_convert(image: Image.Image, *args: Any) -> Image.Image:
        if not met.is_set():
            together.wait()
            met.set()
        return convert(image, *args)

    monkeypatch.setattr(Image.Image, "convert", wait_and_convert)
    load(image_root)
    assert met.is_set()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["pipe", "folder"])
def test_what_is_called_like_an_image_and_is_none(
    image_root: Path, make: Callable[[Path], None]
) -> None:
    make(image_root / "dog" / "odd.png")
    if make is Path.mkdir:
        assert len(load(image_root).train) == 27
    else:
        with pytest.raises(DataError, match=r"dog/odd\.png: cannot be read"):
            load(image_root)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/tty", "/dev/null"])
def test_a_device_among_the_images(image_root: Path, device: str) -> None:
    (image_root / "dog" / "odd.png").symlink_to(device)
    for follow_links in (False, True):
        with pytest.raises(DataError, match=r"dog/odd\.png: (cannot be read|leads out)") as refused:
            load(image_root, follow_links=follow_links)
        assert "\n" not in str(refused.value)


def test_no_other_program_is_started_for_an_image(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pillow has Ghostscript draw PostScript, whatever the file is called.
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/it_ran\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    (image_root / "dog" / "odd.png").write_text(text)
    with pytest.raises(DataError, match=r"dog/odd\.png: cannot be read"):
        load(image_root)
    assert not (tmp_path / "it_ran").exists()


def test_class_folder_whose_name_is_not_utf8(image_root: Path) -> None:
    (image_root / "cat").rename(os.fsdecode(os.fsencode(image_root) + b"/caf\xe9"))
    with pytest.raises(DataError, match=r"caf.*xe9.*not UTF-8") as caught:
        load(image_root)
    str(caught.value).encode()


def test_image_whose_name_is_not_utf8(image_root: Path) -> None:
    name = Path(os.fsdecode(os.fsencode(image_root) + b"/cat/caf\xe9.png"))
    (image_root / "cat" / "0.png").rename(name)
    dataset = ImageFolder(path=str(image_root))
    dataset.fingerprint(dataset.search_splits())
    name.write_bytes(b"")
    with pytest.raises(DataError, match=r"caf.*xe9") as caught:
        load(image_root)
    str(caught.value).encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folder_that_may_not_be_read(image_root: Path) -> None:
    (image_root / "dog" / "more").mkdir(mode=0)
    with pytest.raises(DataError, match=r"dog/more: cannot be listed"):
        load(image_root)


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "val", "test")])
def test_splits_of_other_names_are_no_classes(
    tmp_path: Path, write_image: WriteImage, names: tuple[str, ...]
) -> None:
    for name in names:
        for number in range(5):
            write_image(tmp_path / name / "cat" / f"{number}.png")
            write_image(tmp_path / name / "dog" / f"{number}.png")
    with pytest.raises(DataError, match=rf"{names[0]}.*names of splits.*train, validation, test"):
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
