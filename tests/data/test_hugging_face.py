"""Folders of Hugging Face `datasets`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from parquet_files import write_parquet
from pyarrow import parquet

from nas.core.dataset import Examples
from nas.core.errors import DataError, HwnasError
from nas.core.host import child_environment
from nas.data.hugging_face import HuggingFace
from nas.data.image_folder import ImageFolder

WriteImage = Callable[..., Path]


def pngs(root: Path) -> list[Path]:
    return sorted(root.glob("*/*.png"))


def save_to_disk(folder: Path, source: Path) -> None:
    """Write what `Dataset.save_to_disk` of `datasets` 5 does, from a Parquet file, in two parts."""
    table = parquet.read_table(source)
    half, names = len(table) // 2, [f"data-0000{part}-of-00002.arrow" for part in (0, 1)]
    folder.mkdir(parents=True)
    for name, rows in zip(names, (table[:half], table[half:]), strict=True):
        with pyarrow.ipc.new_stream(folder / name, rows.schema) as stream:
            stream.write_table(rows, max_chunksize=10)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "1"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def contents(*parts: Examples) -> list[tuple[bytes, str]]:
    return sorted(
        (pixels.tobytes(), part.task.output_names[label])
        for part in parts
        for pixels, label in zip(part.pixels, part.targets, strict=True)
    )


def every(dataset: HuggingFace | ImageFolder) -> list[tuple[bytes, str]]:
    splits = dataset.search_splits()
    return contents(splits.train, splits.validation, dataset.test_split())


def refused(root: Path, message: str, **settings: Any) -> None:
    with pytest.raises(HwnasError, match=message) as caught:
        every(HuggingFace(path=str(root), **settings))
    assert "\n" not in str(caught.value)


# --- Layouts -------------------------------------------------------------------------------------


def test_parquet_holds_the_images_of_the_folder(image_root: Path, hugging_face_root: Path) -> None:
    dataset = HuggingFace(path=str(hugging_face_root))
    assert every(dataset) == every(ImageFolder(path=str(image_root)))
    assert dataset.search_splits().notes == (
        f"{hugging_face_root}: 45 images (cat 10, dog 15, owl 20)",
    )


@pytest.mark.parametrize("memory_share", [0.25, 0])
def test_saved_to_disk_holds_the_images_of_the_folder(
    tmp_path: Path,
    image_root: Path,
    hugging_face_root: Path,
    memory_share: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save_to_disk(tmp_path / "saved", hugging_face_root / "data" / "train-00000-of-00001.parquet")
    dataset = HuggingFace(path=str(tmp_path / "saved"), memory_share=memory_share)
    assert every(dataset) == every(ImageFolder(path=str(image_root)))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("names", [("train", "validation", "test"), ("training", "dev", "eval")])
def test_splits_are_told_by_names(
    tmp_path: Path, image_root: Path, names: Sequence[str], kind: str
) -> None:
    files = pngs(image_root)
    parts = [files[::3], files[1::3], files[2::3]]
    root = tmp_path / "hub"
    for name, part in zip(names, parts, strict=True):
        write_parquet(root / "data" / f"{name}-00000-of-00001.parquet", part)
    if kind == "arrow":
        for name in names:
            save_to_disk(tmp_path / "dict" / name, root / "data" / f"{name}-00000-of-00001.parquet")
        root = tmp_path / "dict"
    dataset = HuggingFace(path=str(root))
    splits = dataset.search_splits()
    found = [len(part) for part in (splits.train, splits.validation, dataset.test_split())]
    assert found == [len(part) for part in parts]


def test_classes_have_the_order_and_the_names_of_the_class_label(
    tmp_path: Path, image_root: Path
) -> None:
    write_parquet(tmp_path / "hub" / "train.parquet", pngs(image_root), ("owl", "cat", "dog"))
    splits = HuggingFace(path=str(tmp_path / "hub")).search_splits()
    assert splits.task.class_names == ("owl", "cat", "dog")
    assert np.bincount(splits.train.targets).tolist() == [12, 6, 9]


def test_labels_that_are_texts_or_numbers_without_names(tmp_path: Path, image_root: Path) -> None:
    write_parquet(tmp_path / "texts" / "a.parquet", pngs(image_root), None)
    splits = HuggingFace(path=str(tmp_path / "texts")).search_splits()
    assert splits.task.class_names == ("cat", "dog", "owl")
    numbers = [8 + number % 3 for number in range(45)]
    write_parquet(tmp_path / "numbers" / "a.parquet", pngs(image_root), None, label=numbers)
    splits = HuggingFace(path=str(tmp_path / "numbers")).search_splits()
    assert splits.task.class_names == ("8", "9", "10")


def test_columns_of_other_names_are_found_or_named(tmp_path: Path, image_root: Path) -> None:
    write_parquet(tmp_path / "hub" / "train.parquet", pngs(image_root))
    table = parquet.read_table(tmp_path / "hub" / "train.parquet")
    table = table.rename_columns(["img", "fine"]).append_column("coarse", [[0, 1, 2] * 15])
    kinds = {"img": {"_type": "Image"}}
    kinds |= {k: {"_type": "ClassLabel", "names": [*"abc"]} for k in ("fine", "coarse")}
    known = {b"huggingface": json.dumps({"info": {"features": kinds}}).encode()}
    parquet.write_table(table.replace_schema_metadata(known), tmp_path / "hub" / "train.parquet")
    refused(tmp_path / "hub", r"got columns img, fine, coarse, .*data\.label_column")
    refused(tmp_path / "hub", r"expected one of the labels, 'no'", label_column="no")
    splits = HuggingFace(path=str(tmp_path / "hub"), label_column="coarse").search_splits()
    assert np.bincount(splits.train.targets).tolist() == [9, 9, 9]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("split", ["", "train"])
def test_images_beside_a_table(image_root: Path, tmp_path: Path, name: str, split: str) -> None:
    root = tmp_path / "hub" / split
    root.parent.mkdir(exist_ok=True)
    expected = every(ImageFolder(path=str(image_root)))
    image_root.rename(root)
    rows = [(str(file.relative_to(root)), file.parent.name) for file in pngs(root)]
    if name.endswith("csv"):
        text = "\n".join(["file_name,label", *map(",".join, rows)])
    else:
        text = "\n".join(json.dumps({"file_name": f, "label": k, "x": [1]}) for f, k in rows)
    (root / name).write_text(text)
    assert every(HuggingFace(path=str(tmp_path / "hub"))) == expected


def test_a_table_at_the_top_knows_the_splits_of_its_images(
    tmp_path: Path, write_image: WriteImage
) -> None:
    rows = ["file_name,label"]
    for split, count in {"train": 8, "valid": 4, "test": 2}.items():
        for number in range(count):
            write_image(tmp_path / "hub" / split / f"{number}.png")
            rows.append(f"{split}/{number}.png,{'ab'[number % 2]}")
    (tmp_path / "hub" / "metadata.csv").write_text("\n".join(rows))
    dataset = HuggingFace(path=str(tmp_path / "hub"))
    splits = dataset.search_splits()
    assert [len(splits.train), len(splits.validation), len(dataset.test_split())] == [8, 4, 2]


def test_a_split_that_is_none_of_the_three_is_named(tmp_path: Path, image_root: Path) -> None:
    for name in ("train", "extra"):
        write_parquet(tmp_path / "hub" / f"{name}-00000.parquet", pngs(image_root))
    splits = HuggingFace(path=str(tmp_path / "hub")).search_splits()
    assert len(splits.train) == 27
    assert "not used: " in splits.notes[0]
    assert "extra-00000.parquet" in splits.notes[0]


def test_images_that_only_a_path_names(tmp_path: Path, image_root: Path) -> None:
    files = pngs(image_root)
    images = [{"bytes": None, "path": str(file.relative_to(image_root))} for file in files]
    write_parquet(image_root / "train.parquet", files, image=images)
    assert every(HuggingFace(path=str(image_root))) == every(ImageFolder(path=str(image_root)))


# --- Bad folders ---------------------------------------------------------------------------------


def test_a_folder_with_nothing_to_read(tmp_path: Path, image_root: Path) -> None:
    refused(tmp_path / "nowhere", r"nowhere: no such folder.*data\.path")
    refused(image_root, r"got nothing to read, expected .*data=image_folder")


def test_a_script_is_never_run(tmp_path: Path, image_root: Path) -> None:
    script = image_root / "pictures.py"
    script.write_text(f"open({str(tmp_path / 'it_ran')!r}, 'w')")
    refused(image_root, "got nothing to read")
    write_parquet(image_root / "train.parquet", pngs(image_root))
    HuggingFace(path=str(image_root)).search_splits()
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("label", [-1, 3, None])
def test_images_without_a_label(tmp_path: Path, image_root: Path, label: int | None) -> None:
    labels = [number % 3 for number in range(44)] + [label]
    write_parquet(tmp_path / "hub" / "train.parquet", pngs(image_root), label=labels)
    refused(tmp_path / "hub", rf"row 44: got label {label}, expected 0 to 2")


def test_names_of_classes_that_cannot_be_written(tmp_path: Path, image_root: Path) -> None:
    labels = [number % 3 for number in range(45)]
    names = ("a", "b\x1b[31m", "c")
    write_parquet(tmp_path / "hub" / "train.parquet", pngs(image_root), names, label=labels)
    refused(tmp_path / "hub", "control characters")


@pytest.mark.parametrize("image", [None, {"bytes": None, "path": None}, {"bytes": b"x"}])
def test_a_row_without_an_image_is_named(tmp_path: Path, image_root: Path, image: object) -> None:
    files = pngs(image_root)
    images: list[object] = [{"bytes": file.read_bytes(), "path": None} for file in files]
    images[30] = image
    write_parquet(tmp_path / "hub" / "train.parquet", files, image=images)
    refused(tmp_path / "hub", r"train\.parquet row 30: ")


def test_paths_out_of_the_folder_are_refused(
    tmp_path: Path, image_root: Path, write_image: WriteImage
) -> None:
    write_image(tmp_path / "elsewhere" / "secret.png")
    files = pngs(image_root)
    images = [{"bytes": None, "path": "../elsewhere/secret.png"} for _ in files]
    write_parquet(tmp_path / "hub" / "train.parquet", files, image=images)
    refused(tmp_path / "hub", r"leads out of .*data\.follow_links")
    assert HuggingFace(path=str(tmp_path / "hub"), follow_links=True).search_splits()


def test_a_state_that_names_a_file_elsewhere(tmp_path: Path, hugging_face_root: Path) -> None:
    source = hugging_face_root / "data" / "train-00000-of-00001.parquet"
    save_to_disk(tmp_path / "other", source)
    save_to_disk(tmp_path / "saved", source)
    for names in (["../other/data-00000-of-00002.arrow"], [None], [["a"]]):
        state = {"_data_files": [{"filename": name} for name in names]}
        (tmp_path / "saved" / "state.json").write_text(json.dumps(state))
        refused(tmp_path / "saved", r"leads out of|expected their names")


def test_several_data_sets_in_one_folder(tmp_path: Path, image_root: Path) -> None:
    for name in ("coarse", "fine"):
        write_parquet(tmp_path / "hub" / name / "train-00000.parquet", pngs(image_root))
    refused(tmp_path / "hub", r"got several data sets, in coarse, fine; set data\.path")
    assert HuggingFace(path=str(tmp_path / "hub" / "fine")).search_splits()


def test_a_name_of_two_splits(tmp_path: Path, image_root: Path) -> None:
    write_parquet(tmp_path / "hub" / "test" / "train-00000.parquet", pngs(image_root))
    refused(tmp_path / "hub", r"words of several splits, test, train")


def test_files_of_other_classes(tmp_path: Path, image_root: Path) -> None:
    write_parquet(tmp_path / "hub" / "train.parquet", pngs(image_root))
    write_parquet(tmp_path / "hub" / "test.parquet", pngs(image_root), ("owl", "cat", "dog"))
    refused(tmp_path / "hub", r"got classes .*expected the same ones")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 46: got \{"),
        ("[1]", r"line 46: got \[1\], expected an object with file_name, label"),
        ('{"file_name": "cat/0.png"}', r"line 46: got .*expected an object"),
        ('{"file_name": "cat/0.png", "label": null}', r"line 46: got label None"),
        ('{"file_name": "cat/0.png", "label": ""}', r"line 46: got label ''"),
        ('{"file_name": "cat/0.png", "label": "cat"}', r"line 46: got .* again"),
        ('{"file_name": "../x.png", "label": "cat"}', r"line 46: .*no such file"),
    ],
)
def test_a_wrong_line_of_a_table(image_root: Path, line: str, message: str) -> None:
    rows = [
        json.dumps({"file_name": str(file.relative_to(image_root)), "label": file.parent.name})
        for file in pngs(image_root)
    ]
    (image_root / "metadata.jsonl").write_text("\n".join([*rows, line]))
    refused(image_root, message)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_damaged_files_are_named_or_read(
    tmp_path: Path, hugging_face_root: Path, kind: str
) -> None:
    rng = np.random.default_rng(0)
    root = hugging_face_root
    if kind == "arrow":
        root = tmp_path / "saved"
        save_to_disk(root, hugging_face_root / "data" / "train-00000-of-00001.parquet")
    file = sorted(root.rglob(f"*.{kind}"))[0]
    intact = np.frombuffer(file.read_bytes(), np.uint8)
    lines = []
    for number in range(40):
        damaged = intact.copy()
        at = rng.integers(0, len(damaged), 6)
        damaged[at] = rng.integers(0, 256, 6)
        end = int(rng.integers(len(damaged))) if number % 2 else None
        file.write_bytes(damaged[:end].tobytes())
        try:
            HuggingFace(path=str(root)).search_splits()
        except DataError as error:
            lines.append(str(error))
    assert len(lines) >= 20
    assert all(file.name in line and "\n" not in line for line in lines)


WITHOUT_PYARROW = """
import sys
sys.modules["pyarrow"] = None
from nas.data.hugging_face import HuggingFace
try:
    HuggingFace(path=sys.argv[1]).search_splits()
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_pyarrow_the_extra_is_named(hugging_face_root: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_PYARROW, str(hugging_face_root)]
    done = subprocess.run(
        command, env=child_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("DataError")
    assert "pip install 'hwnas[hugging_face]'" in done.stdout
