"""`study.json`: what a study's folder says of the study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.core.records import Kinds, check_kinds, decoding, read_json

NEEDED: Kinds = {
    "name": str,
    "created_utc": str,
    "task": dict,
    "objectives": list,
    "columns": dict,
    "verified_columns": dict,
    "reference_point": dict,
    "ledger_url": str,
}
"""Entries that a study cannot be read without, and their types."""

_KINDS: Kinds = {
    **NEEDED,
    "status": str,
    "seed": int,
    "data": dict,
    "data_fingerprint": dict,
    "space": dict,
    "device": dict,
    "units": dict,
    "constraints": list,
    "genes": list,
    "warm_start": list,
    "imports": list,
    "ledger_owner": str,
    "published": dict | None,
    "calibration": dict | None,
    "stop": dict | None,
    "versions": dict,
    "hardware": dict,
}


def read_record(path: Path) -> dict[str, Any]:
    """Return what the file `path` says, its entries of the types that they should have.

    Raises:
        HwnasError: It is missing, or damaged.
    """
    fix = f"restore it from a copy, or delete {path.parent} to begin anew"
    record = read_json(path, fix=fix)
    with decoding(path, fix):
        check_kinds(record, {name: kind for name, kind in _KINDS.items() if name in record})
    return record
