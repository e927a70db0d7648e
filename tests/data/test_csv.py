"""A table of paths and labels."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nas.core.dataset import fingerprint_difference
from nas.core.errors import DataError
from nas.data.csv import Csv
from nas.data.image_folder import ImageFolder

WriteImage = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, write_image: WriteImage) -> Path:
    """A folder with 30 images, `0.png` to `29.png`, beside which a table is written."""
    folder = tmp_path / "mixed"
    for number in range(30):
        write_image(folder / f"{number}.png")
    return folder


def table(folder: Path, text: str, encoding: str = "utf-8") -> str:
    (folder / "labels.csv").write_bytes(text.encode(encoding))
    return str(folder / "labels.csv")


def lines(label: Callable[[int], object], header: str = "path,label") -> str:
    return "\n".join([header, *(f"{number}.png,{label(number)}" for number in range(30))])


def refused(path: str, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        Csv(path=path, **settings).search_splits()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_table_of_a_folder_of_classes_gives_the_same_data(
    csv_path: Path, image_root: Path
) -> None:
    listed, found = Csv(path=str(csv_path)), ImageFolder(path=str(image_root))
    splits, expected = listed.search_splits(), found.search_splits()
    records = (listed.fingerprint(splits), found.fingerprint(expected))
    assert fingerprint_difference(*records) is None
    assert splits.notes == (f"{csv_path}: 45 images (cat 10, dog 15, owl 20)",)


def test_columns_quotes_order_and_a_byte_order_mark(folder: Path) -> None:
    rows = "\r\n".join(f'"x, y", b{n % 2} ,{n}.png' for n in range(30))
    path = table(folder, f"comment,kind,file\r\n{rows}\r\n\r\n", "utf-8-sig")
    splits = Csv(path=path, image_column="file", label_column="kind").search_splits()
    assert splits.task.class_names == ("b0", "b1")
    assert len(splits.train) == 18


def test_labels_that_are_numbers_are_sorted_as_numbers(folder: Path) -> None:
    splits = Csv(path=table(folder, lines(lambda n: 9 + n % 3))).search_splits()
    assert splits.task.class_names == ("9", "10", "11")


def test_splits_of_a_column(folder: Path) -> None:
    split = ["train", "train", "validation", "test"]
    text = lines(lambda n: f"{'ab'[n % 2]},{split[n // 2 % 4]}", "path,label,part")
    dataset = Csv(path=table(folder, text), split_column="part")
    splits = dataset.search_splits()
    sizes = (len(splits.train), len(splits.validation), len(dataset.test_split()))
    assert sizes == (16, 8, 6)
    text = lines(lambda n: f"{'ab'[n % 2]},{'test' if n < 10 else 'train'}", "path,label,part")
    cut = Csv(path=table(folder, text), split_column="part", validation_share=0.5)
    assert [len(part) for part in (cut.search_splits().validation, cut.test_split())] == [10, 10]


def test_a_changed_label_is_another_stamp(folder: Path) -> None:
    dataset = Csv(path=table(folder, lines(lambda n: n % 2)))
    before = dataset.stamp()
    table(folder, lines(lambda n: n % 3))
    assert dataset.stamp() != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"got columns none, expected one 'path'"),
        ("file,label\n0.png,a\n", r"got columns file, label, expected one 'path'.*image_column"),
        ("path;label\n0.png;a\n", r"got columns path;label, expected one 'path'"),
        ("path,label,label\n0.png,a,a\n", r"expected one 'label'"),
        ("path,label\n0.png\n", r"line 2: got 1 values, expected 2"),
        ("path,label\n0.png,a,b\n", r"line 2: got 3 values, expected 2"),
        ("path,label\n0.png,a\n1.png,\n", r"line 3: got no 'label'"),
        ("path,label\n ,a\n", r"line 2: got no 'path'"),
        ("path,label\nnone.png,a\n", r"line 2: .*none\.png: no such file"),
        ("path,label\n.,a\n", r"line 2: .*: no such file"),
        ("path,label\n0.png\0,a\n", r"cannot be read|no such file"),
        (f"path,label\n{'x' * 5000},a\n", r"no such file"),
        ("path,label\n0.png,a\n./0.png,b\n", r"line 3: got .*0\.png again, which .*line 2 lists"),
        ('path,label\n"0.png,a\n', r"cannot be read"),
        ("path,label\n0.png,a\x1b[31m\n", r"line 2: got the label .*control characters"),
        ("path,label\n", r"got images of the splits none, expected train"),
        ("path,label\n0.png,a\n1.png,a\n2.png,a\n", r"got 1 class"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(folder: Path, text: str, message: str) -> None:
    path = table(folder, text)
    found = refused(path)
    assert found.startswith(path)
    with pytest.raises(DataError, match=message):
        Csv(path=path).search_splits()


def test_a_table_that_is_no_utf8(folder: Path) -> None:
    text = lines(lambda n: "b\xfcro" if n % 2 else "haus")
    assert "UTF-8" in refused(table(folder, text, "latin-1"))
    names = Csv(path=table(folder, text)).search_splits().task.class_names
    assert names == ("b\xfcro", "haus")


def test_a_split_of_another_name(folder: Path) -> None:
    text = lines(lambda n: f"{n % 2},{'val' if n == 7 else 'train'}", "path,label,split")
    message = refused(table(folder, text), split_column="split")
    assert "line 9: got split 'val', expected one of train, validation, test" in message
    text = lines(lambda n: f"{n % 2},test", "path,label,split")
    assert "expected train" in refused(table(folder, text), split_column="split")


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, Path.symlink_to, None])
def test_what_is_no_table(folder: Path, make: Callable[..., None] | None) -> None:
    path = folder / "labels.csv"
    if make is Path.symlink_to:
        path.symlink_to(path)
    elif make is not None:
        make(path)
    assert "no such file" in refused(str(path))


@pytest.mark.parametrize("kind", ["upwards", "absolute", "link", "folder"])
def test_paths_out_of_the_folder_are_refused(
    folder: Path, tmp_path: Path, write_image: WriteImage, kind: str
) -> None:
    outside = write_image(tmp_path / "elsewhere" / "secret.png")
    name = {"upwards": "../elsewhere/secret.png", "absolute": str(outside)}.get(kind, "in.png")
    if kind == "link":
        (folder / name).symlink_to(outside)
    if kind == "folder":
        (folder / "in").symlink_to(outside.parent)
        name = "in/secret.png"
    path = table(folder, f"{lines(lambda n: n % 2)}\n{name},0\n")
    message = refused(path)
    assert "leads out of" in message
    assert "data.follow_links=true" in message
    splits = Csv(path=path, follow_links=True).search_splits()
    assert np.bincount(splits.train.targets).sum() == 19


def test_many_missing_files_are_counted(folder: Path) -> None:
    text = lines(lambda n: n % 2) + "".join(f"\nno{n}.png,0" for n in range(9))
    message = refused(table(folder, text))
    assert "no4.png" in message
    assert "no5.png" not in message
    assert "and 4 more" in message


def test_a_pipe_among_the_images(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    assert "no such file" in refused(table(folder, "path,label\npipe.png,a\n0.png,b\n"))
