from __future__ import annotations

import ast
import hashlib
import importlib
import subprocess
import sys
from pathlib import Path

import export_space
import numpy as np
import pytest
import torch
from bases import required
from torch import nn

import search_spaces
from nas.core.errors import ExportError
from nas.export.fresh_process import load_module
from nas.export.source import PLAIN_PACKAGES, module_source
from nas.network.module import Network, PlacedBlock
from nas.network.trained import Preprocessing

SPACE = export_space.SampleSpace(input_shape=(3, 12, 8), num_classes=4)
PREPROCESSING = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5), image_size=(12, 8))


@pytest.fixture(scope="module")
def source() -> str:
    header = "Sample " + "of two " * 30
    return module_source(SPACE.build((0, 1)), header=header, preprocessing=PREPROCESSING)


def placed(name: str, module: type[nn.Module], **arguments: object) -> PlacedBlock:
    return PlacedBlock(name, module, ((3, 8, 8),), arguments, ("input",), (4,), False)


def source_of_class(network_class: type[nn.Module]) -> str:
    network = Network([])
    network.placed_blocks = (placed("net", network_class),)
    return module_source(network, header="", preprocessing=PREPROCESSING)


def imported_packages(source: str) -> set[str]:
    packages = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            packages.add((node.module or "").partition(".")[0])
    return packages


def top_level_names(source: str) -> set[str]:
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def define(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> type:
    """Import a module of `text` and return its class Net."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{name}.py").write_text(text)
    return importlib.import_module(name).Net


def test_exactly_the_needed_definitions_are_carried(source: str) -> None:
    expected = {"Described", "Block", "normalised", "Features", "Join", "divisible"}
    network = {"AdaptingLayer", "Network", "PlacedBlock", "SizedLayer", "load", "preprocess"}
    assert top_level_names(source) == expected | network
    assert "UNUSED" not in source
    assert "NOT_NEEDED" not in source


def test_only_torch_safetensors_and_the_standard_library_are_imported(source: str) -> None:
    assert imported_packages(source) <= PLAIN_PACKAGES
    assert not imported_packages(source) & {"numpy", "nas", "export_layers"}


def test_comments_and_docstrings_survive(source: str) -> None:
    assert source.startswith("# Sample of two of two")
    for text in (
        "# Nair and Hinton",
        '"""Functions by name."""',
        "# A comment above a decorated function.\n@functools.cache",
        "# a comment that survives",
        '"""A class inside a class."""',
        "ä ö ü",
    ):
        assert text in source


def test_annotations_are_carried(source: str) -> None:
    assert "\nGenotype" in source
    assert "from collections.abc import Iterator" in source


def test_the_result_has_no_undefined_names(source: str, tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(source)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length=100"]
    done = subprocess.run(
        [*command, "--select=F,E", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_preprocess_normalises_per_channel(source: str, tmp_path: Path) -> None:
    (tmp_path / "sample_model.py").write_text(source)
    model = load_module(tmp_path / "sample_model.py")
    pixels = torch.full((2, 3, 4, 5), 255, dtype=torch.uint8)
    expected = ((1 - torch.tensor([0.1, 0.2, 0.3])) / 0.5).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    torch.testing.assert_close(model.preprocess(pixels), expected)
    with pytest.raises(ValueError, match="uint8"):
        model.preprocess(pixels.float())
    assert expected.dtype == model.preprocess(pixels).dtype


def test_functions_that_need_each_other_are_carried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "from torch import nn\n\n"
        "def even(n):\n    return n == 0 or odd(n - 1)\n\n"
        "def odd(n):\n    return n > 0 and even(n - 1)\n\n"
        "class Net(nn.Module):\n"
        "    def forward(self, x):\n        return x if even(4) else [odd(n) for n in x]\n"
    )
    source = source_of_class(define(tmp_path, monkeypatch, "mutual", text))
    assert top_level_names(source) >= {"even", "odd", "Net"}


NET = "class Net(nn.Module):\n    def forward(self, x):\n        return {}\n"


@pytest.mark.parametrize(
    ("head", "body", "match"),
    [
        ("import numpy as np", "np.abs(x)", "imports 'numpy'"),
        ("from nas.core.seeding import stream", "stream(0, x)", "imports 'numpy'"),
        ("import export_layers", "export_layers.unused(x)", "uses a whole module"),
        ("load = 3", "x * load", "the name 'load' stands for"),
        ("from json import loads as Path", "Path(x)", "the name 'Path' stands for"),
        ("from export_layers import unused as f\nunused = 3", "f(x) * unused", "'unused' stands"),
    ],
)
def test_what_cannot_be_carried_is_named(
    head: str, body: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"refused_{hashlib.sha256((head + body).encode()).hexdigest()[:8]}"
    text = f"from torch import nn\n\n{head}\n\n" + NET.format(body)
    network_class = define(tmp_path, monkeypatch, name, text)
    with pytest.raises(ExportError, match=match) as caught:
        source_of_class(network_class)
    assert "\n" not in str(caught.value)


def test_statements_that_change_a_constant_are_carried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from torch import nn\n\nSIZES = []\nSIZES.append(3)\n\n" + NET.format("x * SIZES[0]")
    assert "SIZES.append(3)" in source_of_class(define(tmp_path, monkeypatch, "changed", text))


def test_a_name_that_a_package_passes_on_is_carried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "passing_on"
    package.mkdir()
    (package / "__init__.py").write_text("from .scale import scale\n")
    (package / "scale.py").write_text("def scale(x):\n    return 2 * x\n")
    text = "from torch import nn\n\nfrom passing_on import scale\n\n" + NET.format("scale(x)")
    source = source_of_class(define(tmp_path, monkeypatch, "uses_package", text))
    assert "scale" in top_level_names(source)


def test_a_platform_import_inside_a_function_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from torch import nn\n\n" + NET.format("x").replace(
        "return", "from nas.core.seeding import stream\n        return stream or"
    )
    network_class = define(tmp_path, monkeypatch, "local_import", text)
    with pytest.raises(ExportError, match=r"local_import\.Net: imports 'nas\.core\.seeding'"):
        source_of_class(network_class)


def test_a_class_inside_a_function_is_refused() -> None:
    class Local(nn.Module):
        pass

    with pytest.raises(ExportError, match="top level"):
        source_of_class(Local)


@pytest.mark.parametrize("arguments", [{"rate": float("nan")}, {"f": nn.ReLU}])
def test_arguments_must_be_literals(arguments: dict[str, object]) -> None:
    network = Network([])
    network.placed_blocks = (placed("first", export_space.Features, **arguments),)
    with pytest.raises(ExportError, match=r"block first, arguments of Features: .*literals"):
        module_source(network, header="", preprocessing=PREPROCESSING)


def test_the_network_is_written_out_block_by_block(source: str) -> None:
    for line in (
        'name="features",',
        "module=Features,",
        "module=Join,",
        "input_shapes=((16, 3, 2), (3, 12, 8)),",
        'inputs=("features", "input"),',
    ):
        assert line in source.replace("'", '"')


@pytest.mark.parametrize("name", search_spaces.names())
def test_every_registered_space_stands_alone(name: str, tmp_path: Path) -> None:
    images = {"input_shape": (3, 32, 32), "num_classes": 10}
    space = search_spaces.get(name, **images, **required(name, (3, 32, 32), 10))
    genotype = space.sample(np.random.default_rng(0))
    original = space.build(genotype).eval()
    source = module_source(original, header=name, preprocessing=PREPROCESSING)
    assert imported_packages(source) <= PLAIN_PACKAGES
    (tmp_path / f"standalone_{name}.py").write_text(source)
    model = load_module(tmp_path / f"standalone_{name}.py")
    network = model.Network(model.BLOCKS).eval()
    network.load_state_dict(original.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(network(images), original(images))
