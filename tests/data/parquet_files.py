"""Parquet files of images, as the library `datasets` writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet


def write_parquet(
    path: Path,
    files: Sequence[Path],
    names: Sequence[str] | None = ("cat", "dog", "owl"),
    **columns: Sequence[Any],
) -> None:
    """Write images into a Parquet file, with the features that `datasets` writes.

    Args:
        path: The file.
        files: Images, of which the folder is the class.
        names: Of the classes; `None` for labels that are texts.
        **columns: Further columns, or others in place of `image` and `label`.
    """
    labels: list[Any] = [file.parent.name for file in files]
    if names is not None:
        labels = [names.index(label) if label in names else -1 for label in labels]
    values: dict[str, Sequence[Any]] = {
        "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "label": labels,
        **columns,
    }
    features: dict[str, Any] = {"image": {"_type": "Image"}, "label": {"_type": "Value"}}
    if names is not None:
        features["label"] = {"_type": "ClassLabel", "names": list(names)}
    known = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = pyarrow.table(values).replace_schema_metadata(known)
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=10)
