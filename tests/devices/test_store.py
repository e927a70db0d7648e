"""The store of measurements: nothing is measured twice, and nothing is lost."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fast_device import cpu

from latency_predictors.calibration.sampling import measure_genotypes
from nas.core.measurement import Measurement
from nas.devices.measuring import device as device_module
from nas.devices.measuring.device import ProcessDevice
from nas.devices.runtimes import component
from nas.devices.store import MeasurementStore, StoreCounts

TAKEN = Measurement(
    samples_ms=(1.25, 1.5, 1.375),
    relative_ci=0.01,
    peak_memory_mb=None,
    protocol={"seed": 0},
    device={"name": "cpu"},
    environment={"load_before": 0.5},
    model_size_mb=0.5,
)


@pytest.fixture
def store(tmp_path: Path) -> MeasurementStore:
    return MeasurementStore(tmp_path / "store")


def test_measurement_comes_back_with_all_samples(store: MeasurementStore):
    assert store.find(cpu(), "a", 0.5) is None
    store.add(cpu(), "a", 0.5, TAKEN)
    assert store.find(cpu(), "a", 0.5) == TAKEN
    assert MeasurementStore(store.folder).find(cpu(), "a", 0.5) == TAKEN


def test_another_network_budget_or_device_is_another_measurement(store: MeasurementStore):
    store.add(cpu(), "a", 0.5, TAKEN)
    assert store.find(cpu(), "b", 0.5) is None
    assert store.find(cpu(), "a", None) is None
    for fields in (
        {"threads": 2},
        {"precision": "int8"},
        {"runtime": {"graph_optimization": "basic"}},
        {"min_rounds": 50},
        {"runtime": "torch"},
    ):
        assert store.find(cpu(**fields), "a", 0.5) is None


def test_patience_is_no_part_of_a_device(store: MeasurementStore):
    store.add(cpu(), "a", 0.5, TAKEN)
    assert store.find(cpu(timeout_seconds=7.0), "a", 0.5) == TAKEN


def test_another_version_or_processor_is_another_device(
    store: MeasurementStore, monkeypatch: pytest.MonkeyPatch
):
    store.add(cpu(), "a", 0.5, TAKEN)
    with monkeypatch.context() as changed:
        changed.setattr(component("onnxruntime"), "version", classmethod(lambda cls: "0.1"))
        assert store.find(cpu(), "a", 0.5) is None
    with monkeypatch.context() as changed:
        changed.setattr(device_module, "hardware", lambda *given: {"cpu_model": "another"})
        assert store.find(cpu(), "a", 0.5) is None
    assert store.find(cpu(), "a", 0.5) == TAKEN


def test_memory_is_measured_where_it_is_missing(store: MeasurementStore):
    store.add(cpu(), "a", None, TAKEN)
    assert store.find(cpu(), "a", None, memory=True) is None
    full = dataclasses.replace(TAKEN, peak_memory_mb=2.0)
    store.add(cpu(), "a", None, full)
    assert store.find(cpu(), "a", None, memory=True) == full
    assert store.find(cpu(), "a", None) == full


def test_names_hang_on_neither_place_nor_time(store: MeasurementStore, tmp_path: Path):
    """A folder that was copied from another place and another day is as good."""
    store.add(cpu(), "a", 0.5, TAKEN)
    moved = store.folder.rename(tmp_path / "elsewhere")
    assert MeasurementStore(moved).find(cpu(), "a", 0.5) == TAKEN
    code = (
        "import sys, nas.devices; from pathlib import Path; from fast_device import cpu\n"
        "from nas.devices.store import MeasurementStore\n"
        "print(MeasurementStore(Path('elsewhere')).find(cpu(), 'a', 0.5).latency_ms)"
    )
    environment = {"PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == str(TAKEN.latency_ms), done.stderr
    text = "".join(path.read_text() for path in moved.rglob("*.json"))
    assert str(tmp_path) not in text


@pytest.mark.parametrize("cut", ["", "{", '{"samples_ms": [1.0]}', "[1, 2]", "null", "\x00\x00"])
def test_file_that_a_crash_cut_off_is_measured_again(store: MeasurementStore, cut: str):
    store.add(cpu(), "a", 0.5, TAKEN)
    (path,) = (p for p in store.folder.rglob("*.json") if p.name != "device.json")
    path.write_text(cut)
    assert store.find(cpu(), "a", 0.5) is None
    store.add(cpu(), "a", 0.5, TAKEN)
    assert store.find(cpu(), "a", 0.5) == TAKEN


WRITER = """
import json, sys
from pathlib import Path
from fast_device import cpu
from nas.core.measurement import Measurement
from nas.devices.store import MeasurementStore
folder, record, number = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
store, device = MeasurementStore(folder), cpu()
print("ready", flush=True)
input()
for i in range(40):
    store.add(device, f"both{i}", 0.5, Measurement.from_dict(record))
    store.add(device, f"own{number}-{i}", 0.5, Measurement.from_dict(record))
    assert store.find(device, f"both{i}", 0.5) is not None
"""


def test_two_processes_share_a_store(store: MeasurementStore):
    environment = {"PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.folder), json.dumps(TAKEN.to_dict()), str(n)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]
    names = [f"both{i}" for i in range(40)] + [f"own{n}-{i}" for n in range(2) for i in range(40)]
    assert all(store.find(cpu(), name, 0.5) == TAKEN for name in names)
    assert [path for path in store.folder.rglob("*") if path.suffix == ".part"] == []


def test_networks_of_a_space_are_never_measured_twice(
    store: MeasurementStore, monkeypatch: pytest.MonkeyPatch
):
    import search_spaces

    space = search_spaces.get(
        "mobilenet",
        input_shape=(1, 8, 8),
        num_classes=10,
        max_depth=1,
        resolutions=(8,),
        widths=(0.5, 1.0),
    )
    genotypes = list(dict.fromkeys(space.sample(np.random.default_rng(i)) for i in range(3)))
    measured: list[int] = []
    original = ProcessDevice.measure_files

    def counting(self, files, *arguments, **options):
        measured.append(len(files))
        return original(self, files, *arguments, **options)

    monkeypatch.setattr(ProcessDevice, "measure_files", counting)
    first = measure_genotypes(space, cpu(), genotypes[:2], seconds=0.05, store=store)
    measured.clear()
    again = measure_genotypes(space, cpu(), genotypes, seconds=0.05, store=store)
    assert again[:2] == first
    assert measured[0] == 1


OWN_SPACE = """
from dataclasses import dataclass
from torch import nn
from nas.core.space import Gene
from nas.network.blocks import Block, ModuleSpec
from nas.network.space import SearchSpace

class Whole(nn.Sequential):
    def __init__(self, shape):
        super().__init__(nn.Flatten(), nn.Linear(64, 32), nn.Linear(32, 10))

@dataclass(frozen=True, kw_only=True)
class Own(SearchSpace):
    @property
    def genes(self):
        return (Gene("unused", (1, 2)),)

    def blocks(self):
        yield Block("network", lambda chosen: ModuleSpec(Whole))
"""


def test_a_space_whose_code_has_changed_is_measured_again(
    store: MeasurementStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def measured(code: str) -> tuple[int, int]:
        (tmp_path / "changing_space.py").write_text(code)
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, "changing_space", raising=False)
        own = importlib.import_module("changing_space").Own
        tallied = MeasurementStore(store.folder)
        space = own(input_shape=(1, 8, 8), num_classes=10)
        measure_genotypes(space, cpu(), [(0,)], seconds=0.05, store=tallied)
        return tallied.counts.taken, tallied.counts.reused

    assert measured(OWN_SPACE) == (1, 0)
    assert measured(OWN_SPACE + "# the end") == (0, 1)
    assert measured(OWN_SPACE.replace("32", "512")) == (1, 0)
    assert measured(OWN_SPACE) == (0, 1)


@pytest.mark.parametrize("seconds", [2.0, np.float32(2), np.int64(2)])
def test_a_measurement_is_found_however_numbers_are_written(
    store: MeasurementStore, seconds: float
):
    store.add(cpu(min_seconds=1), "a", 2, TAKEN)
    assert store.find(cpu(min_seconds=1.0), "a", seconds) == TAKEN


def test_what_measurements_cost_is_counted(store: MeasurementStore):
    store.add(cpu(), "a", 0.5, TAKEN, took_s=3.0)
    again = MeasurementStore(store.folder)
    assert again.find(cpu(), "a", 0.5) == TAKEN
    assert again.find(cpu(), "b", 0.5) is None
    assert again.counts == StoreCounts(reused=1, reused_s=3.0)
    assert store.counts == StoreCounts(taken=1, taken_s=3.0)
