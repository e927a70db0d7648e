"""Files of `torch.export` that would run their author's code are refused before PyTorch reads them.

The process that measures checks them, on this machine and on a board alike.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fast_device import cpu
from torch import nn

from nas.core.errors import DeviceError
from nas.devices.measuring.runtime import ModelError
from nas.devices.runtimes.torch_program import checked_program

SHAPE = (3, 8, 8)
Records = dict[str, bytes]
WEIGHTS, PROGRAM = "x/data/weights/model_weights_config.json", "x/models/model.json"
CONSTANTS = "x/data/constants/model_constants_config.json"


class Payload:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "it_ran"


@pytest.fixture(scope="module")
def records() -> Records:
    """Return the records of an intact file."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    file = io.BytesIO()
    torch.export.save(torch.export.export(network.eval(), (torch.zeros(1, *SHAPE),)), file)
    with zipfile.ZipFile(file) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(found)).partition("/")[0]
    return {name.replace(root, "x", 1): content for name, content in found.items()}


def saved(records: Records, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return path


def changed(records: Records, name: str, change: Callable[[Any], None]) -> Records:
    """Return records of which the JSON in one is changed in place."""
    values = json.loads(records[name])
    change(values)
    return {**records, name: json.dumps(values).encode()}


def pickled(mark: Path, *, torch_file: bool = True) -> bytes:
    if not torch_file:
        return pickle.dumps(Payload(mark))
    file = io.BytesIO()
    torch.save(Payload(mark), file)
    return file.getvalue()


def weight(records: Records, mark: Path) -> Records:
    def change(values: Any) -> None:
        next(iter(values["config"].values()))["use_pickle"] = True

    return {**changed(records, WEIGHTS, change), "x/data/weights/weight_0": pickled(mark)}


def constant(kind: str) -> Callable[[Records, Path], Records]:
    def build(records: Records, mark: Path) -> Records:
        entry = {**next(iter(json.loads(records[WEIGHTS])["config"].values()))}
        entry |= {"path_name": f"{kind}_0", "use_pickle": kind == "tensor"}
        content = pickled(mark, torch_file=kind == "tensor")
        added = changed(records, CONSTANTS, lambda v: v["config"].update(c=entry))
        return {**added, f"x/data/constants/{kind}_0": content}

    return build


def in_node(**fields: Any) -> Callable[[Records, Path], Records]:
    def build(records: Records, mark: Path) -> Records:
        def change(values: Any) -> None:
            values["graph_module"]["graph"]["nodes"][0].update(fields)

        return changed(records, PROGRAM, change)

    return build


def input_name(records: Records, mark: Path) -> Records:
    text = records[PROGRAM].replace(b'"name": "input"', b'"name": "x=exit()"')
    return {**records, PROGRAM: text}


def expression(records: Records, mark: Path) -> Records:
    size = {"as_expr": {"expr_str": "exec(chr(49))", "hint": None}}

    def change(values: Any) -> None:
        next(iter(values["graph_module"]["graph"]["tensor_values"].values()))["sizes"][0] = size

    return changed(records, PROGRAM, change)


def class_in_spec(records: Records, mark: Path) -> Records:
    spec = json.dumps([1, {"type": "x", "context": json.dumps({"__enum__": True, "fqn": "a.B"})}])

    def change(values: Any) -> None:
        values["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = spec

    return changed(records, PROGRAM, change)


CASES: dict[str, Callable[[Records, Path], Records]] = {
    "weight": weight,
    "constant": constant("tensor"),
    "custom object": constant("custom_obj"),
    "opaque object": constant("opaque_obj"),
    "legacy weights": lambda r, m: {**r, "x/data/weights/model.pt": pickled(m)},
    "legacy constants": lambda r, m: {**r, "x/data/constants/model.pt": pickled(m)},
    "example inputs": lambda r, m: {**r, "x/data/sample_inputs/model.pt": pickled(m)},
    "compiled library": lambda r, m: {**r, "x/data/aotinductor/model/a.so": b"ELF"},
    "second program": lambda r, m: {**r, "x/models/other.json": r[PROGRAM]},
    "same name in capitals": lambda r, m: {"x/MODELS/model.json": r[PROGRAM], **r},
    "function of Python": in_node(target="torch.serialization.os.system"),
    "loader of libraries": in_node(target="torch.ops.load_library"),
    "reader of files": in_node(target="torch.ops.aten.from_file.default"),
    "name of a node": in_node(name="x); exit("),
    "name of an input": input_name,
    "size": expression,
    "class": class_in_spec,
    "old format": lambda r, m: {"version": b"8.1", "serialized_state_dict.pt": pickled(m)},
    "empty": lambda r, m: {},
}


@pytest.mark.parametrize("case", CASES)
def test_what_could_run_code_is_refused(
    case: str, records: Records, mark: Path, tmp_path: Path
) -> None:
    file = saved(CASES[case](records, mark), tmp_path / "network.pt2")
    with pytest.raises(ModelError) as refused:
        checked_program(file)
    assert "\n" not in str(refused.value)
    assert not mark.exists()


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "network.pt2"
    file.write_bytes(b"no archive")
    with pytest.raises(ModelError):
        checked_program(file)


def two_directories(read_by_python: Records, read_by_torch: Records) -> bytes:
    """Return an archive of ZIP64 with two directories.

    One is found directly in front of the locator, the other where the locator points to.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as both:
        for name, content in read_by_python.items():
            both.writestr(name, content)
        own = [both.getinfo(name) for name in read_by_python]
        for name, content in read_by_torch.items():
            if read_by_python.get(name) != content:
                both.writestr(name, content)
        foreign = [both.getinfo(name) for name in read_by_torch]
    members = archive.getvalue()[: both.start_dir]

    def directory(entries: list[zipfile.ZipInfo], at: int) -> tuple[bytes, bytes]:
        content = b""
        for entry in entries:
            name = entry.filename.encode()
            sizes = (entry.CRC, entry.file_size, entry.file_size, len(name), 0, 0, 0, 0, 0)
            fields = (20, 20, 0, 0, 0, 33, *sizes, entry.header_offset)
            content += struct.pack("<4s6H3I5H2I", b"PK\1\2", *fields) + name
        count = len(entries)
        end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(content), at)
        return content, end

    torchs, torchs_end = directory(foreign, len(members))
    pointed_to = len(members) + len(torchs)
    pythons, pythons_end = directory(own, pointed_to + len(torchs_end))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, pointed_to, 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0)
    return members + torchs + torchs_end + pythons + pythons_end + locator + end


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_loaded_is_what_was_checked(records: Records, mark: Path, tmp_path: Path) -> None:
    file = tmp_path / "network.pt2"
    file.write_bytes(two_directories(records, weight(records, mark)))
    with contextlib.suppress(DeviceError):
        cpu(runtime="torch").measure_many([file], SHAPE)
    assert not mark.exists()


def test_an_archive_that_grows_is_refused(records: Records, tmp_path: Path) -> None:
    file = tmp_path / "network.pt2"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**records, "x/extra/zeros": bytes(1000)}.items():
            archive.writestr(name, content)
    with pytest.raises(ModelError, match="compressed"):
        checked_program(file)


def test_an_intact_file_is_measured(records: Records, tmp_path: Path) -> None:
    file = saved(records, tmp_path / "network.pt2")
    checked_program(file)
    [measured] = cpu(runtime="torch").measure_many([file], SHAPE)
    assert measured.latency_ms > 0


@pytest.mark.parametrize("case", ["weight", "example inputs"])
def test_the_measuring_process_runs_no_pickle(
    case: str, records: Records, mark: Path, tmp_path: Path
) -> None:
    file = saved(CASES[case](records, mark), tmp_path / "network.pt2")
    with pytest.raises(DeviceError, match=r"network\.pt2.*pickle") as refused:
        cpu(runtime="torch").measure_many([file], SHAPE)
    assert "\n" not in str(refused.value)
    assert not mark.exists()
