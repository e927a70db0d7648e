"""The user's own images: a table of their paths and labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nas.core.errors import DataError, one_line, printable
from nas.data import SPLITS, register
from nas.data.decoding import NAMED, EncodedImages, Listing, Pool, check_inside, numbered, shown


@dataclass(frozen=True)
class TableRow:
    """An image of a table.

    Attributes:
        where: The table and the line, for messages.
        image: The file.
        label: Its class.
        split: Which it is for.
    """

    where: str
    image: Path
    label: str
    split: str = "train"


@register("csv")
@dataclass(frozen=True, kw_only=True)
class Csv(EncodedImages):
    """Images that the CSV file `path` lists: one a line, below a line with the columns' names.

    The file is UTF-8, with commas. Paths are relative to its folder. Labels are texts; classes are
    numbered in their order, or in that of the numbers where all of them are whole numbers. A split
    that no line names is cut from the train images by class.

    Attributes:
        image_column: Name of the column of the images' paths.
        label_column: Name of the column of the labels.
        split_column: Name of the column that says `train`, `validation` or `test`; if not given,
            all images are cut into splits.
    """

    image_column: str = "path"
    label_column: str = "label"
    split_column: str | None = None

    def listing(self) -> Listing:
        table = self._root
        columns = [self.image_column, self.label_column]
        if self.split_column is not None:
            columns.append(self.split_column)
        rows = []
        for where, values in read_csv(table, columns):
            name, label, *split = (values[column] for column in columns)
            if split and split[0] not in SPLITS:
                line = f"got {self.split_column} {split[0]!r}, expected one of {', '.join(SPLITS)}"
                raise DataError(f"{where}: {line}")
            rows.append(TableRow(where, Path(table.parent, name), label, *split))
        own = None if self.follow_links else Path(os.path.realpath(table.parent))
        pools, names = pools_of(rows, own)
        files = [table, *(row.image for row in rows)]
        return self.listed(pools, names, files)


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Return where each line stands, for messages, and its values by the columns' names.

    Raises:
        DataError: The file cannot be read, lacks a column, or a line has another number of values
            or an empty one in `columns`. Blanks around a value do not count.
    """
    # Opening a pipe would wait for ever.
    if not path.is_file():
        raise DataError(f"{shown(path)}: no such file, expected a CSV file; set data.path")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            for column in columns:
                if header.count(column) != 1:
                    raise DataError(
                        f"{shown(path)}: got columns {', '.join(header) or 'none'}, expected one"
                        f" {column!r}; name yours by data.image_column,"
                        " data.label_column and data.split_column"
                    )
            for values in lines:
                if not values:
                    continue
                where = f"{shown(path)} line {lines.line_num}"
                if len(values) != len(header):
                    line = f"got {len(values)} values, expected {len(header)}, one a column"
                    raise DataError(f"{where}: {line}")
                found = dict(zip(header, map(str.strip, values), strict=True))
                for column in columns:
                    if not found[column]:
                        raise DataError(f"{where}: got no {column!r}, expected a value")
                yield where, found
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{shown(path)}: cannot be read ({one_line(error)}), expected a CSV file in UTF-8"
        ) from error


def pools_of(rows: Sequence[TableRow], own: Path | None) -> tuple[dict[str, Pool], tuple[str, ...]]:
    """Return images and labels by split, and the names of the classes.

    Args:
        rows: All images.
        own: The folder that they must be in; `None` for anywhere.

    Raises:
        DataError: An image is missing, is listed twice or is outside of `own`, or the name of a
            class cannot be written.
    """
    inside = cache(lambda folder: check_inside(folder, own))
    seen: dict[Path, TableRow] = {}
    missing = []
    for row in rows:
        if not _is_file(row.image):
            missing.append(f"{row.where}: {shown(row.image)}")
            continue
        inside(row.image.parent)
        if row.image.is_symlink():
            check_inside(row.image, own)
        first = seen.setdefault(Path(os.path.normpath(row.image)), row)
        if first is not row:
            line = f"got {shown(row.image)} again, which {first.where} lists"
            raise DataError(f"{row.where}: {line}, expected every image once; remove a line")
        if printable(row.label) != row.label:
            line = f"got the label {row.label!r}, which has control characters"
            raise DataError(f"{row.where}: {line}, expected a name that can be written")
    if missing:
        more = f"; and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise DataError(
            f"{'; '.join(missing[:NAMED])}{more}: no such file, expected paths relative to the"
            " folder of the table"
        )
    names, labels = numbered([row.label for row in rows])
    pools: dict[str, Pool] = {}
    for split in SPLITS:
        at = [number for number, row in enumerate(rows) if row.split == split]
        if at:
            pools[split] = ([rows[number].image for number in at], labels[at])
    return pools, names


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long a name, or a folder that may not be read
        return False
