from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from export_layers import Mixed, Pooled
from export_space import SampleSpace
from PIL import ExifTags, Image
from safetensors.torch import load_file, save_file
from torch import nn

from nas.core import files
from nas.core.errors import ConfigError, ExportError
from nas.core.measurement import Measurement
from nas.data import decoding
from nas.export import folder as folder_module
from nas.export import predict
from nas.export.folder import FILES, verify, write
from nas.export.fresh_process import load_module
from nas.export.parity import TOLERANCE, check_parity
from nas.network.trained import TrainedNetwork


@pytest.fixture(scope="session")
def original(
    tmp_path_factory: pytest.TempPathFactory, trained: TrainedNetwork, measurement: Measurement
) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "network"
    return write(folder, trained, measurement=measurement)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "network"))


def test_a_fresh_process_computes_the_same(original: Path) -> None:
    assert {path.name for path in original.iterdir()} == set(FILES)
    assert 0 <= verify(original) <= TOLERANCE
    assert {path.name for path in original.iterdir()} == set(FILES)


def test_the_loaded_network_equals_the_trained_one(folder: Path, network: nn.Module) -> None:
    model = load_module(folder / "model.py")
    loaded = model.load()
    assert not loaded.training
    assert type(loaded) is not type(network)
    state = network.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert state["features.blocks.0.norm.running_var"].mean() > 1.5
    images = torch.randn(5, 3, 12, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded(images), network(images))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "1"])
def test_the_exported_script_reads_images_as_they_were_trained_on(
    tmp_path: Path, mode: str, channels: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 4), np.uint8)
    image, file = Image.fromarray(pixels, "RGBA").convert(mode), tmp_path / "one.tiff"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(file, exif=exif)
    form = decoding._Form((12, 8), channels, resized=True, notes=())
    expected = decoding._pixels(file, form).reshape(12, 8, channels).transpose(2, 0, 1)
    np.testing.assert_array_equal(predict.read_pixels(file, channels, 12, 8), expected)


@pytest.mark.parametrize("task", ["classification", "another"])
def test_predictions_are_those_of_the_model(folder: Path, tmp_path: Path, task: str) -> None:
    record = json.loads((folder / "architecture.json").read_text())
    (folder / "architecture.json").write_text(json.dumps({**record, "task": task}))
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    [found] = predict.predict(folder, [tmp_path / "one.png"])
    model = load_module(folder / "model.py")
    with torch.inference_mode():
        outputs = model.load()(model.preprocess(torch.from_numpy(pixels.transpose(2, 0, 1))[None]))
        expected = outputs.softmax(1) if task == "classification" else outputs
    assert list(found) == ["ant", "bee", "cat"]
    np.testing.assert_allclose(list(found.values()), expected[0], atol=TOLERANCE)


def test_a_file_that_takes_pixels_computes_the_same(
    trained: TrainedNetwork, tmp_path: Path
) -> None:
    folder = write(tmp_path / "out", trained, pixels=True)
    assert {path.name for path in folder.iterdir()} == {*FILES, "pixels.onnx"}
    assert verify(folder) <= TOLERANCE
    session = onnxruntime.InferenceSession(folder / "pixels.onnx")
    [taken] = session.get_inputs()
    assert (taken.name, taken.type, taken.shape) == ("pixels", "tensor(uint8)", [1, 3, 12, 8])
    names = json.loads(session.get_modelmeta().custom_metadata_map["outputs"])
    assert names == ["ant", "bee", "cat"]
    pixels = np.random.default_rng(1).integers(0, 256, (1, 3, 12, 8), np.uint8)
    model = load_module(folder / "model.py")
    with torch.inference_mode():
        expected = model.load()(model.preprocess(torch.from_numpy(pixels)))
    found = session.run(["outputs"], {"pixels": pixels})[0]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    card = (folder / "MODEL_CARD.md").read_text()
    assert "| `model.onnx` | `images` float32 (1, 3, 12, 8) | `outputs` float32 (1, 3) |" in card
    assert "| `pixels.onnx` | `pixels` uint8 (1, 3, 12, 8) | `outputs` float32 (1, 3) |" in card
    write(folder, trained)
    assert not (folder / "pixels.onnx").exists()
    assert "pixels.onnx" not in (folder / "MODEL_CARD.md").read_text()


def test_a_file_that_takes_several_images_computes_the_same(
    trained: TrainedNetwork, tmp_path: Path
) -> None:
    folder = write(tmp_path / "out", trained, dynamic_batch=True)
    assert {path.name for path in folder.iterdir()} == {*FILES, "batches.onnx"}
    assert verify(folder) <= TOLERANCE
    card = (folder / "MODEL_CARD.md").read_text()
    taken = "| `batches.onnx` | `images` float32 (batch, 3, 12, 8) | `outputs` float32 (batch, 3) |"
    assert taken in card
    alone, several = (
        onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("model", "batches")
    )
    images = np.random.default_rng(1).normal(size=(7, 3, 12, 8)).astype(np.float32)
    expected = np.concatenate([alone.run(None, {"images": image[None]})[0] for image in images])
    assert np.ptp(expected, axis=0).min() > 100 * TOLERANCE, "images that look alike tell nothing"
    for number in (1, 2, 7):
        [found] = several.run(None, {"images": images[:number]})
        np.testing.assert_allclose(found, expected[:number], atol=TOLERANCE)


def test_a_file_that_mixes_the_images_of_a_batch_is_refused(
    trained: TrainedNetwork, tmp_path: Path
) -> None:
    module = Mixed(channels=3, outputs=2)
    own = dataclasses.replace(trained, module=module, outputs=("no", "yes"), provenance={})
    assert write(tmp_path / "one", own).is_dir()
    with pytest.raises(ExportError, match=r"batches\.onnx: outputs differ"):
        write(tmp_path / "several", own, dynamic_batch=True)
    assert not (tmp_path / "several").exists()


def test_images_are_read_as_those_of_a_training_are(folder: Path, tmp_path: Path) -> None:
    assert predict.FORMATS == decoding.FORMATS
    # Pillow would have another program draw the first, clip the second and wait for the third.
    drawing, deep, pipe = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    Image.new("RGB", (20, 20)).save(drawing, format="EPS")
    Image.fromarray(np.full((20, 20), 300, np.uint16)).save(deep)
    os.mkfifo(pipe)
    for file in (drawing, deep, pipe):
        with pytest.raises(ValueError, match=re.escape(f"{file}: ")):
            list(predict.predict(folder, [file]))


def test_the_script_prints_all_outputs_of_what_is_no_classifier(
    folder: Path, tmp_path: Path
) -> None:
    record = json.loads((folder / "architecture.json").read_text())
    outputs = {"width": 1.0, "height": 3.0, "depth": 2.0, "angle": -1.0}
    assert predict.listed({**record, "task": "another"}, outputs) == list(outputs.items())
    probable = [name for name, _ in predict.listed(record, outputs)]
    assert probable == ["height", "depth", "width"]
    for images in ([], [str(tmp_path / "none.png")]):
        command = [sys.executable, "-I", str(folder / "predict.py"), *images]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        assert ended.stderr.count("\n") == 1


def test_predictions_use_no_file_of_another_folder(folder: Path, tmp_path: Path) -> None:
    file = folder / "architecture.json"
    record = json.loads(file.read_text())
    shutil.copyfile(folder / "model.onnx", tmp_path / "other.onnx")
    for text in (json.dumps({**record, "deployed": {"file": "../other.onnx"}}), "{"):
        file.write_text(text)
        with pytest.raises(ValueError, match=re.escape(str(file))):
            list(predict.predict(folder, []))


def test_outputs_that_are_no_numbers_by_name_are_refused(folder: Path, tmp_path: Path) -> None:
    file = folder / "architecture.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "outputs": ["ant"]}))
    Image.new("RGB", (8, 12)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        list(predict.predict(folder, [tmp_path / "a.png"]))


def test_what_is_no_image_is_named(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    Image.new("RGB", (20, 20)).save(broken)
    broken.write_bytes(broken.read_bytes()[:-30])
    text, absent = tmp_path / "text.jpg", tmp_path / "absent.jpg"
    text.write_text("no image")
    for file in (broken, text, absent, tmp_path):
        with pytest.raises(ValueError, match=re.escape(f"{file}: ")):
            list(predict.predict(folder, [file]))
    (folder / "model.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"model\.onnx: cannot be loaded"):
        list(predict.predict(folder, [broken]))


def test_missing_damaged_and_foreign_weights_are_refused(folder: Path, network: nn.Module) -> None:
    model = load_module(folder / "model.py")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged"):
        model.load()
    with pytest.raises(ExportError, match=r"on its own: ValueError: .*damaged"):
        verify(folder)
    state = {k: v.contiguous() for k, v in network.state_dict().items() if "running_var" not in k}
    save_file(state, weights)
    with pytest.raises(RuntimeError, match="running_var"):
        model.load(weights)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors: no such file"):
        model.load()
    with pytest.raises(ExportError, match=r"model\.safetensors missing"):
        verify(folder)


def test_other_weights_than_those_of_the_onnx_file_are_found(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["join.head.linear.bias"] += 0.01
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ExportError, match=r"differ by 0\.01"):
        verify(folder)


@pytest.mark.parametrize("package_name", ["nas", "search_spaces", "export_layers", "numpy"])
def test_an_import_of_more_than_torch_is_found(folder: Path, package_name: str) -> None:
    with (folder / "model.py").open("a") as file:
        file.write(f"\nimport {package_name}\n")
    with pytest.raises(ExportError, match=f"imports '{package_name}'"):
        verify(folder)


@pytest.mark.parametrize("name", ["nas.core.space", "export_space"])
def test_the_project_cannot_be_imported_in_the_fresh_process(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
    with (folder / "model.py").open("a") as file:
        file.write(f"\nimport sys\nsys.path += {paths!r}\n__import__({name!r})\n")
    with pytest.raises(
        ExportError, match=f"on its own: ModuleNotFoundError: .*{name.split('.')[0]}"
    ):
        verify(folder)


def test_a_record_that_was_changed_is_found(folder: Path) -> None:
    path = folder / "architecture.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"genotype": [0, 1]}))
    with pytest.raises(ExportError, match="arch_id"):
        verify(folder)
    record["blocks"][0]["class"] = "export_space.Join"
    path.write_text(json.dumps(record))
    with pytest.raises(ExportError, match="ValueError: blocks: got"):
        verify(folder)
    path.write_text("{")
    with pytest.raises(ExportError, match="expected JSON"):
        verify(folder)


def test_the_record_rebuilds_the_architecture(original: Path, space: SampleSpace) -> None:
    record = json.loads((original / "architecture.json").read_text())
    again = type(space)(**record["space"]["settings"] | {"widths": (8.5, 12.0)})
    assert again.architecture(record["genotype"]).arch_id == record["arch_id"]
    assert record["figures"]["params_m"] == 0.003
    assert record["measurement"]["latency_ms"] == pytest.approx(1.1)
    assert record["outputs"] == ["ant", "bee", "cat"]
    assert record["onnx_max_abs_difference"] <= TOLERANCE


def test_the_model_card_states_only_what_was_handed_in(
    original: Path, trained: TrainedNetwork, tmp_path: Path
) -> None:
    card = (original / "MODEL_CARD.md").read_text()
    assert "| test images | 800 |" in card
    assert "1.1 ms ± 0.022 ms" in card
    assert "peak memory above the runtime's own: 3.5 MB" in card
    assert "environment: cpu.model some processor\n" in card
    assert "- epochs: 3" in card
    assert "the largest one is that of" in card
    bare = dataclasses.replace(trained, metrics={}, provenance={})
    card = (write(tmp_path / "bare", bare) / "MODEL_CARD.md").read_text()
    for absent in ("Accuracy", "atency", "Figures", "Training", "Data", "None", "memory"):
        assert absent not in card


def test_the_snippets_of_the_model_card_run(folder: Path) -> None:
    card = (folder / "MODEL_CARD.md").read_text()
    onnx, pytorch = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    check = "\nassert np.allclose(outputs, onnx_outputs, atol=1e-4) and outputs.shape == (1, 3)\n"
    script = folder / "snippets.py"
    script.write_text(f"{onnx}\nonnx_outputs = outputs\n{pytorch}{check}")
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr


def test_a_former_export_is_replaced_and_other_folders_are_refused(
    folder: Path, trained: TrainedNetwork, tmp_path: Path
) -> None:
    (folder / "MODEL_CARD.md").write_text("old")
    (folder / "__pycache__").mkdir()
    write(folder, trained)
    assert (folder / "MODEL_CARD.md").read_text() != "old"
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"holds notes\.txt"):
        write(folder, trained)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(ExportError, match="is a file"):
        write(folder / "notes.txt", trained)
    assert {path.name for path in tmp_path.iterdir()} == {"network"}


@pytest.mark.parametrize(
    ("error", "seen"), [(OSError("disk full"), ExportError), (KeyboardInterrupt(), BaseException)]
)
def test_an_interrupted_write_leaves_nothing_and_keeps_the_former(
    folder: Path,
    trained: TrainedNetwork,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    seen: type[BaseException],
) -> None:
    def interrupted(*args: object) -> str:
        raise error

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(folder_module, "model_card", interrupted)
    for target in (folder, tmp_path / "new"):
        with pytest.raises(seen):
            write(target, trained)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["network"]


def test_what_lies_beside_an_export_stays_and_a_killed_one_is_undone(
    trained: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*unused: object) -> None:
        raise OSError("disk full")

    beside = {".out-backup", ".out", "out-2"}
    for name in beside:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(files, "_NEW_S", 0.0)
    folder, former = write(tmp_path / "out", trained), tmp_path / ".out.former"
    # Kills between the moves of a replacement: the first leaves no export, the second two.
    folder.rename(former)
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "_write_files", failing)
        with pytest.raises(ExportError):
            write(folder, trained)
    verify(folder)
    shutil.copytree(folder, former)
    write(folder, trained)
    verify(folder)
    assert {path.name for path in tmp_path.iterdir()} == {*beside, "out"}


def test_parity_is_measured_and_a_difference_refused(original: Path, network: nn.Module) -> None:
    images = np.random.default_rng(0).normal(size=(3, 3, 12, 8)).astype(np.float32)
    network.train()
    assert check_parity(network, original / "model.onnx", images) <= TOLERANCE
    assert network.training
    network.eval()
    bias = network.join.head.linear.bias
    with torch.no_grad():
        bias += 0.5
    with pytest.raises(ExportError, match=r"by 0\.5, expected 0\.0001"):
        check_parity(network, original / "model.onnx", images)
    with torch.no_grad():
        bias -= 0.5
    with pytest.raises(ExportError, match="by nan"):
        check_parity(network, original / "model.onnx", np.full_like(images, np.nan))


def test_parts_that_do_not_belong_together_are_refused(
    trained: TrainedNetwork, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="outputs: got 2"):
        write(tmp_path / "out", dataclasses.replace(trained, outputs=("ant", "bee")))


def test_a_network_of_no_space_is_exported(trained: TrainedNetwork, tmp_path: Path) -> None:
    """A changed network hands in its own blocks, or a module with its arguments."""
    module = Pooled(channels=3, outputs=2)
    own = dataclasses.replace(trained, module=module, outputs=("no", "yes"), provenance={})
    folder = write(tmp_path / "own", own)
    assert verify(folder) <= TOLERANCE
    images = torch.randn(2, 3, 12, 8)
    assert torch.equal(load_module(folder / "model.py").load()(images), module(images))
    with pytest.raises(ExportError, match="cannot be rebuilt"):
        write(tmp_path / "other", dataclasses.replace(own, module=nn.Sequential(module)))


def test_the_file_that_was_measured_goes_along_and_is_checked(
    trained: TrainedNetwork, tmp_path: Path
) -> None:
    measured = tmp_path / "measured.mnn"
    measured.write_bytes(b"as the device runs it")
    out = tmp_path / "out"
    write(out, trained, deployed=measured)
    assert (out / "deployed.mnn").read_bytes() == measured.read_bytes()
    assert "`deployed.mnn` is what the device runs" in (out / "MODEL_CARD.md").read_text()
    assert verify(out) >= 0
    write(out, trained)
    assert not (out / "deployed.mnn").exists(), "a former export is replaced whole"
    write(out, trained, deployed=measured)
    (out / "deployed.mnn").write_bytes(b"another")
    with pytest.raises(ExportError, match="deployed"):
        verify(out)
    # A runtime may run several files.
    several = tmp_path / "several.bin"
    (several / "parts").mkdir(parents=True)
    (several / "parts" / "weights").write_bytes(b"weights")
    write(out, trained, deployed=several)
    assert (out / "deployed.bin" / "parts" / "weights").read_bytes() == b"weights"
    assert verify(out) >= 0
    (out / "deployed.bin" / "parts" / "weights").rename(out / "deployed.bin" / "weights")
    with pytest.raises(ExportError, match="deployed"):
        verify(out)
    # What only looks like a part of an export is somebody else's.
    foreign = tmp_path / "foreign" / "deployed"
    foreign.mkdir(parents=True)
    with pytest.raises(ExportError, match="deployed"):
        write(foreign.parent, trained)
    assert foreign.is_dir()
