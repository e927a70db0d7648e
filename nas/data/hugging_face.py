"""A folder of Hugging Face `datasets`: what it saves, what its hub holds, or images with a table.

Only data is read: no loading script is run, nothing is unpickled and nothing is downloaded. The
layouts: https://huggingface.co/docs/datasets/image_dataset and
https://huggingface.co/docs/hub/datasets-file-names-and-splits.
"""

from __future__ import annotations

import json
import os
import re
import threading
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from nas.core.errors import DataError, one_line, printable
from nas.core.records import UNUSABLE, read_json
from nas.data import SPLITS, register
from nas.data.csv import TableRow, pools_of, read_csv
from nas.data.decoding import (
    EmbeddedImage,
    EncodedImages,
    Listing,
    Pool,
    check_inside,
    numbered,
    shown,
)

_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
"""The split that a word in the name of a file or folder stands for, as in `datasets`."""

_TABLES = ("metadata.csv", "metadata.jsonl")

_EXPECTED = (
    "what `save_to_disk` writes, Parquet files, or images beside a metadata.csv or metadata.jsonl"
)

# Parts of files that are kept while the images in them are decoded.
_KEPT = 8
_reading = threading.Lock()


@register("hugging_face")
@dataclass(frozen=True, kw_only=True)
class HuggingFace(EncodedImages):
    """A folder of Hugging Face `datasets`, in one of three layouts.

    What `save_to_disk` writes (Arrow files); Parquet files, as the hub has them; or images beside a
    `metadata.csv` or `metadata.jsonl` with the columns `file_name` and `label`. Splits are told by
    the names of files and folders: `train`, `validation` (`valid`, `val`, `dev`), `test` (`eval`);
    where no name has such a word, all is cut into splits. Arrow and Parquet files need the package
    pyarrow: `pip install 'hwnas[hugging_face]'`.

    Attributes:
        image_column: Name of the column of the images; if not given, the only one that holds
            images, and `file_name` of a table.
        label_column: Name of the column of the labels; if not given, the only one that is a
            `ClassLabel`, whose names and order the classes then have, else `label`.
    """

    image_column: str | None = None
    label_column: str | None = None

    def listing(self) -> Listing:
        root = self._root
        if not root.is_dir():
            raise DataError(f"{shown(root)}: no such folder, expected {_EXPECTED}; set data.path")
        own = None if self.follow_links else Path(os.path.realpath(root))
        files = [
            at for at in sorted(root.rglob("*")) if not _in_hidden_folder(at.relative_to(root))
        ]
        shards = [shard for at in files if at.name == "state.json" for shard in _saved(at)]
        shards = shards or [at for at in files if at.suffix == ".parquet"]
        tables = [at for at in files if at.name in _TABLES]
        if shards:
            return self._of_shards(shards, own)
        if tables:
            rows = [row for table in tables for row in self._rows(table)]
            pools, names = pools_of(_with_splits(rows, root), own)
            return self.listed(pools, names, [*tables, *(row.image for row in rows)])
        raise DataError(
            f"{shown(root)}: got nothing to read, expected {_EXPECTED}; data=image_folder reads"
            " images in folders of their classes"
        )

    def _rows(self, table: Path) -> Iterator[TableRow]:
        columns = (self.image_column or "file_name", self.label_column or "label")
        read = read_csv if table.suffix == ".csv" else _read_jsonl
        for where, values in read(table, columns):
            yield TableRow(where, table.parent / values[columns[0]], values[columns[1]])

    def _of_shards(self, shards: Sequence[Path], own: Path | None) -> Listing:
        root = self._root
        splits, unused = _splits_of_files(shards, root)
        contents: dict[str, list[_Contents]] = {}
        for path, split in splits.items():
            check_inside(path, own)
            contents.setdefault(split, []).append(self._contents(path, own))
        every = [each for several in contents.values() for each in several]
        if differing := {each.class_names for each in every} - {every[0].class_names}:
            got = f"got classes {every[0].class_names} and {differing.pop()}"
            raise DataError(f"{shown(root)}: {got}, expected the same ones in all files")
        names = every[0].class_names
        labels = [label for each in every for label in each.labels]
        if names is None:
            names, numbers = numbered([str(label) for label in labels])
        else:
            numbers = np.array(labels, np.int64)
        pools: dict[str, Pool] = {}
        first = 0
        for split, several in contents.items():
            items = [item for each in several for item in each.items]
            pools[split] = (items, numbers[first : first + len(items)])
            first += len(items)
        note = f"; not used: {', '.join(map(shown, unused))}" if unused else ""
        return self.listed(pools, names, shards, note)

    def _contents(self, path: Path, own: Path | None) -> _Contents:
        """Read all of a file but its images.

        Raises:
            DataError: The package pyarrow is missing, or the file is not as expected.
        """
        arrow = _pyarrow()
        try:
            changed_ns = path.stat().st_mtime_ns
            shard = _Shard(path, changed_ns, Path(os.path.realpath(self._root)), own is not None)
            with _reading:
                return self._checked_contents(shard)
        except (*UNUSABLE, OSError, arrow.ArrowException) as error:
            raise DataError(
                f"{shown(path)}: cannot be read ({one_line(error)}), expected an Arrow or Parquet"
                " file with a column of images and one of labels; fetch it anew"
            ) from error

    def _checked_contents(self, shard: _Shard) -> _Contents:
        schema, groups = shard.opened()
        known = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = (known.get("info") or {}).get("features") or {}
        kinds = {name: (features.get(name) or {}).get("_type") for name in schema.names}
        images = [
            name for name in schema.names if kinds[name] == "Image" or _holds(schema.field(name))
        ]
        classes = [name for name in schema.names if kinds[name] == "ClassLabel"]
        image = _chosen(shard, schema.names, "image", self.image_column, images)
        fallback = classes or [name for name in schema.names if name == "label"]
        label = _chosen(shard, schema.names, "label", self.label_column, fallback)
        class_names = None
        if kinds[label] == "ClassLabel":
            class_names = tuple(map(str, features[label]["names"]))
        labels: list[Any] = shard.column(label).to_pylist()
        for row, value in enumerate(labels):
            where = f"{shown(shard.path)} row {row}"
            if class_names is None and isinstance(value, int | str) and value != "":
                continue
            count = len(class_names or ())
            if class_names is None or not (isinstance(value, int) and 0 <= value < count):
                expected = f"0 to {count - 1}" if class_names else "a number or a text"
                line = f"got {label} {value!r}, expected {expected}"
                raise DataError(f"{where}: {line}; remove images without a label")
        for name in class_names or {str(value) for value in labels}:
            if printable(name) != name:
                line = f"got the class {name!r}, which has control characters"
                raise DataError(f"{shown(shard.path)}: {line}, expected a name that can be written")
        ends = list(accumulate(groups))
        starts = [0, *ends]
        items = []
        for row in range(len(labels)):
            group = bisect_right(ends, row)
            items.append(_EmbeddedRow(shard, image, group, row - starts[group], row))
        return _Contents(items, labels, class_names)


@dataclass(frozen=True)
class _Shard:
    """An Arrow or Parquet file.

    Attributes:
        path: The file.
        changed_ns: When it was changed last; another version is another shard.
        base: Folder that the paths of images are relative to.
        closed: Whether these must not lead out of it.
    """

    path: Path
    changed_ns: int
    base: Path
    closed: bool

    def opened(self) -> tuple[Any, list[int]]:
        """Return the schema, and the number of rows of every group that is read at once."""
        if self.path.suffix == ".parquet":
            from pyarrow import parquet

            with parquet.ParquetFile(self.path) as file:
                groups = range(file.num_row_groups)
                return file.schema_arrow, [file.metadata.row_group(at).num_rows for at in groups]
        table = _mapped(self.path)
        return table.schema, [table.num_rows]

    def column(self, name: str, group: int | None = None) -> Any:
        """Return a column, checked, or one group of it; of an Arrow file mapped into memory."""
        if self.path.suffix == ".parquet":
            from pyarrow import parquet

            with parquet.ParquetFile(self.path) as file:
                groups = range(file.num_row_groups) if group is None else [group]
                found = file.read_row_groups(groups, columns=[name])[name]
        else:
            found = _mapped(self.path)[name]
        found.validate(full=True)
        return found


@dataclass(frozen=True)
class _Contents:
    """Images of a file, their labels, and the names of these where they are numbers of classes."""

    items: list[_EmbeddedRow]
    labels: list[Any]
    class_names: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class _EmbeddedRow(EmbeddedImage):
    """The image in one row of a file, `row` of all and `at` within its group."""

    shard: _Shard
    column: str
    group: int
    at: int
    row: int

    def read(self) -> bytes:
        with _reading:  # else every thread would read the same group
            value = _column(self.shard, self.column, self.group)[self.at].as_py()
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value
        if not isinstance(value, str):
            raise DataError(f"{shown(self)}: got no image, expected its bytes or its path")
        path = self.shard.base / value
        check_inside(path, self.shard.base if self.shard.closed else None)
        # Opening a pipe would wait for ever.
        if not path.is_file():
            raise DataError(f"{shown(self)}: no such file {shown(path)}")
        return path.read_bytes()

    def __str__(self) -> str:
        return f"{shown(self.shard.path)} row {self.row}"


@lru_cache(maxsize=_KEPT)
def _column(shard: _Shard, column: str, group: int) -> Any:
    return shard.column(column, group)


def _mapped(path: Path) -> Any:
    """Return the table of an Arrow file, mapped into memory."""
    arrow = _pyarrow()
    with arrow.memory_map(str(path)) as file, arrow.ipc.open_stream(file) as stream:
        return stream.read_all()


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        fix = "install it: pip install 'hwnas[hugging_face]'"
        raise DataError(
            f"data=hugging_face: Arrow and Parquet files need pyarrow; {fix}"
        ) from error
    return pyarrow


def _holds(field: Any) -> bool:
    """Say whether a column is stored as `datasets` stores images."""
    kind = field.type
    names = {kind.field(at).name for at in range(kind.num_fields)}
    return names == {"bytes", "path"}


def _chosen(
    shard: _Shard, columns: Collection[str], what: str, given: str | None, candidates: Sequence[str]
) -> str:
    found = candidates if given is None else [name for name in columns if name == given]
    if len(found) != 1:
        line = f"got columns {', '.join(columns)}, expected one of the {what}s"
        named = "" if given is None else f", {given!r}"
        raise DataError(f"{shown(shard.path)}: {line}{named}; set data.{what}_column")
    return found[0]


def _saved(state: Path) -> list[Path]:
    """Return the Arrow files that `save_to_disk` has written beside a `state.json`."""
    fix = "save the data set anew"
    files = read_json(state, {"_data_files": list}, fix)["_data_files"]
    names = [file.get("filename") for file in files if isinstance(file, dict)]
    if len(names) < len(files) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{shown(state)}: got files {files}, expected their names; {fix}")
    return [state.parent / str(name) for name in names]


def _in_hidden_folder(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _splits_of_files(files: Sequence[Path], root: Path) -> tuple[dict[Path, str], list[Path]]:
    """Return the split that each file is for, and those files that are for none.

    Raises:
        DataError: The name of a file has words of several splits, or files are of several
            configurations.
    """
    found: dict[Path, str | None] = {}
    places = set()
    for file in files:
        name = Path(os.path.relpath(file, root)).with_suffix("")
        words = re.split(r"[^a-z0-9]+", str(name).lower())
        splits = {_SPLIT_OF[word] for word in words if word in _SPLIT_OF}
        if len(splits) > 1:
            line = f"its name has words of several splits, {', '.join(sorted(splits))}"
            raise DataError(f"{shown(file)}: {line}, expected one; rename it")
        found[file] = splits.pop() if splits else None
        places.add(tuple(part for part in name.parent.parts if part.lower() not in _SPLIT_OF))
    if len(places) > 1:
        folders = ", ".join(sorted("/".join(place) or "." for place in places))
        line = f"got several data sets, in {printable(folders)}"
        raise DataError(f"{shown(root)}: {line}; set data.path to the folder of one of them")
    if not any(found.values()):
        return dict.fromkeys(files, "train"), []
    unused = [file for file, split in found.items() if split is None]
    return {file: split for file, split in found.items() if split is not None}, unused


def _with_splits(rows: Sequence[TableRow], root: Path) -> list[TableRow]:
    """Return rows with the splits that the folders of their images stand for."""
    found: list[str | None] = []
    for row in rows:
        folders = Path(os.path.relpath(row.image, root)).parent.parts
        splits = {_SPLIT_OF[name.lower()] for name in folders if name.lower() in _SPLIT_OF}
        found.append(splits.pop() if len(splits) == 1 else None)
    if not any(found):
        return list(rows)
    placed = []
    for row, split in zip(rows, found, strict=True):
        if split is None:
            line = f"{shown(row.image)} is in no folder of a split, as others are"
            raise DataError(f"{row.where}: {line}, expected one of {', '.join(SPLITS)}")
        placed.append(replace(row, split=split))
    return placed


def _read_jsonl(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Do with a file of one JSON object a line what `read_csv` does."""
    if not path.is_file():
        raise DataError(f"{shown(path)}: no such file, expected one JSON object a line")
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        line = f"cannot be read ({one_line(error)}), expected one JSON object a line"
        raise DataError(f"{shown(path)}: {line}") from error
    for number, text in enumerate(lines, 1):
        where = f"{shown(path)} line {number}"
        if not text.strip():
            continue
        try:
            record = json.loads(text)
            values = {column: record[column] for column in columns}
        except UNUSABLE as error:
            line = f"got {one_line(text, 100)}, expected an object with {', '.join(columns)}"
            raise DataError(f"{where}: {line}") from error
        for column, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
                raise DataError(f"{where}: got {column} {value!r}, expected a text or a number")
        yield where, {column: str(value) for column, value in values.items()}
