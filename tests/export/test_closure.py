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
from torch import nn

import search_spaces
from nas.core.errors import ExportError
from nas.export.closure import PLAIN_PACKAGES, collect
from nas.export.exported import Preprocessing
from nas.export.isolated import load_module
from nas.export.standalone import module_source
from nas.network.module import PlacedBlock

SPACE = export_space.SampleSpace(input_shape=(3, 12, 8), num_classes=4)
PREPROCESSING = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def source() -> str:
    return module_source(
        SPACE.place((0, 1)),
        header="Sample\n" + "of two " * 30,
        preprocessing=PREPROCESSING,
    )


def placed(name: str, module: type[nn.Module], **arguments: object) -> PlacedBlock:
    return PlacedBlock(name, module, ((3, 8, 8),), arguments, ("input",), (4,), False)


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
    assert top_level_names(source) == expected | {"ChosenNetwork", "load", "preprocess"}
    assert "UNUSED" not in source
    assert "NOT_NEEDED" not in source


def test_only_torch_safetensors_and_the_standard_library_are_imported(source: str) -> None:
    assert imported_packages(source) <= PLAIN_PACKAGES
    assert not imported_packages(source) & {"numpy", "nas", "export_layers"}


def test_comments_and_docstrings_survive(source: str) -> None:
    assert source.startswith("# Sample\n# of two of two")
    for text in (
        "# Nair and Hinton",
        '"""Functions by name."""',
        "# A comment above a decorated function.\n@functools.cache",
        "# a comment that survives",
        '"""A class inside a class."""',
        "ä ö ü",
    ):
        assert text in source


def test_annotations_do_not_drag_in_the_platform(source: str) -> None:
    assert "Genotype" not in source
    assert "def describe(self, genotype: Any = None) -> str:" in source
    assert "genotype: Any = ()" in source
    assert "from collections.abc import Callable, Iterator, Sequence" in source


def test_the_result_is_tidy_without_undefined_or_unused_names(source: str, tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(source)
    rules = ["--isolated", "--line-length=100", "--select=F,E,I"]
    for command in (["check", *rules], ["format", "--isolated", "--line-length=100", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, path],
            capture_output=True,
            text=True,
            check=False,
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
    closure = collect([define(tmp_path, monkeypatch, "mutual", text)])
    ((module, texts),) = closure.sections
    assert module == "mutual"
    assert [text.split("(")[0] for text in texts] == ["def even", "def odd", "class Net"]


NET = "class Net(nn.Module):\n    def forward(self, x):\n        return {}\n"


@pytest.mark.parametrize(
    ("head", "body", "match"),
    [
        ("import numpy as np", "np.abs(x)", "'numpy' of the third-party package 'numpy'"),
        ("from nas.core.seeding import stream", "stream(0, x)", "nas.core.seeding.stream"),
        ("import export_layers", "export_layers.unused(x)", "uses the module 'export_layers'"),
        ("if nn:\n    FACTOR = 2", "x * FACTOR", "FACTOR is bound or changed"),
        ("SIZES = []\nSIZES.append(3)", "x * SIZES[0]", "SIZES is bound or changed by line 3, 4"),
        ("SIZES = {}\nSIZES['a'] = 3", "x * SIZES['a']", "SIZES is bound or changed"),
        ("", "x * missing", "the name 'missing' has no statement"),
        ("load = 3", "x * load", "the name 'load' stands for"),
        ("from json import loads as Path", "Path(x)", "the name 'Path' stands for an import from"),
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
        module_source([placed("net", network_class)], header="", preprocessing=PREPROCESSING)
    assert "\n" not in str(caught.value)
    assert f"{name}." in str(caught.value)


def test_a_platform_import_inside_a_function_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from torch import nn\n\n" + NET.format("x").replace(
        "return", "from nas.core.seeding import stream\n        return stream or"
    )
    network_class = define(tmp_path, monkeypatch, "local_import", text)
    with pytest.raises(ExportError, match=r"local_import\.Net: imports 'nas\.core\.seeding'"):
        collect([network_class])


def test_a_class_inside_a_function_is_refused() -> None:
    class Local(nn.Module):
        pass

    with pytest.raises(ExportError, match="top level"):
        collect([Local])


@pytest.mark.parametrize("arguments", [{"sizes": (1, 2)}, {"rate": float("nan")}, {"f": nn.ReLU}])
def test_arguments_must_be_plain_json(arguments: dict[str, object]) -> None:
    blocks = [placed("first", export_space.Features, **arguments)]
    with pytest.raises(ExportError, match=r"block first, arguments of Features: .*plain JSON"):
        module_source(blocks, header="", preprocessing=PREPROCESSING)


def test_the_network_is_written_out_block_by_block(source: str) -> None:
    for line in (
        'self.features = Features([3, 12, 8], channels=[8.5, 17.0], activation="hardswish")',
        "self.join = Join([16, 3, 2], [3, 12, 8], classes=4)",
        "features = self.features(images)",
        "return self.join(features, images)",
    ):
        assert f"        {line}\n" in source


def test_long_lines_are_wrapped_as_a_formatter_wraps_them(tmp_path: Path) -> None:
    name = "a_block_whose_name_fills_a_third_of_it_"
    blocks = [
        placed("one", export_space.Features, channels=[float(i) for i in range(9)], activation="r"),
        placed(name, export_space.Features, channels=[1.0, 2.0], activation="relu"),
        placed("three", export_space.Features, channels=list(range(60)), activation="relu"),
        placed("four", export_space.Features, channels=[{"a": list(range(50))}], activation="r"),
    ]
    path = tmp_path / "model.py"
    path.write_text(module_source(blocks, header="long", preprocessing=PREPROCESSING))
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length=100", "--diff"]
    done = subprocess.run([*command, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", search_spaces.names())
def test_every_registered_space_stands_alone(name: str, tmp_path: Path) -> None:
    space = search_spaces.get(name, input_shape=(3, 32, 32), num_classes=10)
    genotype = space.sample(np.random.default_rng(0))
    source = module_source(space.place(genotype), header=name, preprocessing=PREPROCESSING)
    assert imported_packages(source) <= PLAIN_PACKAGES
    (tmp_path / f"standalone_{name}.py").write_text(source)
    model = load_module(tmp_path / f"standalone_{name}.py")
    original, network = space.build(genotype).eval(), model.ChosenNetwork().eval()
    network.load_state_dict(original.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(network(images), original(images))
