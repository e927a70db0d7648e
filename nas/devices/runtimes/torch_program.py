"""Files of `torch.export` that are numbers and operators only; anything else is refused.

`torch.export.load` unpickles what an archive tells it to, calls any function of Python that a
program names, and writes some of its texts into code. A file may come from anybody, so it is read
here first, and refused unless it holds what an exported network needs: tensors without pickle, and
operators of PyTorch's own library.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nas.devices.measuring.runtime import ModelError

_RECORDS = re.compile(
    r"data/(weights|constants)/(\w+|model_(weights|constants)_config\.json)"
    r"|models/model\.json|data/sample_inputs/model\.pt|extra/.*"
    r"|archive_format|archive_version|byteorder|version|\.data/\w+"
)
_PROGRAM, _INPUTS = "models/model.json", "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")

# Not one that reads a file.
_OPERATORS = re.compile(r"torch\.ops\.aten\.(?!__|from_file)\w+\.(?!__)\w+|_operator\.(?!__)\w+")
# Of a treespec its JSON, in which no class can be named; all other texts are names.
_TEXTS = {
    "in_spec": re.compile(r'(?!.*__)[\w.,: \[\]{}"]*'),
    "out_spec": re.compile(r'(?!.*__)[\w.,: \[\]{}"]*'),
    "torch_version": re.compile(r"[\w.+]*"),
    "target": re.compile(f"{_OPERATORS.pattern}|(?!torch|math|_operator)[\\w.]*"),
}
_NAMES = re.compile(r"[\w.]*")

_UNUSABLE = (
    zipfile.BadZipFile,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,  # of an encrypted record
)


def checked_program(path: Path) -> io.BytesIO:
    """Return what a file of `torch.export` holds as a new one, whose loading runs no code.

    PyTorch's reader may find other content in the file than Python's, and the file may change.

    Raises:
        ModelError: It holds a pickle, a compiled library, or calls more than PyTorch's operators;
            or it is no such file.
    """
    checked = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(checked, "w") as copy:
            # PyTorch compresses nothing, and a few compressed bytes may stand for any number.
            if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
                raise ValueError("it is compressed")
            if sum(each.file_size for each in archive.infolist()) > path.stat().st_size:
                raise ValueError("its records overlap")
            records = {name: archive.read(name) for name in archive.namelist()}
            _check_records(records)
            for name, content in records.items():
                copy.writestr(name, content)
    except _UNUSABLE as error:
        raise ModelError(f"is no file of torch.export.save ({error})") from error
    checked.seek(0)
    return checked


def _check_records(records: Mapping[str, bytes]) -> None:
    root = next(iter(records), "").partition("/")[0] + "/"
    # PyTorch's reader takes a name in any case.
    if len({name.lower() for name in records}) < len(records):
        raise ValueError("names that differ only in their case")
    for name in records:
        if not (name.startswith(root) and _RECORDS.fullmatch(name.removeprefix(root))):
            raise _unsafe(f"holds {name}")
    for name in _CONFIGS:
        for weight, entry in json.loads(records[root + name])["config"].items():
            kind = "weight_" if "weights" in name else "tensor_"
            if entry["use_pickle"] or not entry["path_name"].startswith(kind):
                raise _unsafe(f"holds {weight!r} as a pickle")
    _check_inputs(records[root + _INPUTS])
    for key, text in _texts(json.loads(records[root + _PROGRAM]), ""):
        if key == "expr_str":
            fix = "export it with fixed sizes and batch 1"
            raise ModelError(f"has a dynamic shape ({text}), expected a fixed one; {fix}")
        if not _TEXTS.get(key, _NAMES).fullmatch(text):
            raise _unsafe(f"has {text!r} as {key}")


def _check_inputs(content: bytes) -> None:
    """Check the inputs that a network was exported with, which PyTorch unpickles where it must."""
    import torch

    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:
        raise _unsafe("holds its example inputs as a pickle of more than tensors") from error


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield all texts of a program with their keys, and the keys, but not notes for debuggers."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield "key", name
            if name != "metadata":
                yield from _texts(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, str):
        yield key, value


def _unsafe(what: str) -> ModelError:
    fix = "export the network with torch.export.save from its own code"
    return ModelError(f"{what}, which could run any code when it is loaded; {fix}")
