"""The space that search_spaces/README.md writes in one file does what it says there.

That it can be searched is tested in tests/cli/test_user_modules.py.
"""

from __future__ import annotations

import importlib
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from whole_costs import costs_of, count

import search_spaces
from nas.network.onnx import INPUT_NAME, export_onnx
from nas.network.space import SearchSpace

README = Path(search_spaces.__file__).with_name("README.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    folder = tmp_path_factory.mktemp("own_space")
    (folder / "my_keywords.py").write_text(code, "utf-8")
    return folder


@pytest.fixture(scope="module")
def space(folder: Path) -> SearchSpace:
    sys.path.append(str(folder))
    try:
        importlib.import_module("my_keywords")
    finally:
        sys.path.remove(str(folder))
    return search_spaces.get("my_keywords", input_shape=(1, 40, 100), num_classes=12)


def test_everything_follows_from_the_declaration(space: SearchSpace, tmp_path: Path):
    rng = np.random.default_rng(0)
    pairs = 3 * 3
    assert space.size == 3 * (pairs + pairs**2 + pairs**3 + pairs**4)
    genotypes = [space.sample(rng) for _ in range(20)]
    genotypes += [space.mutate(genotype, rng, genes=2) for genotype in genotypes]
    genotypes += [space.crossover(a, b, rng) for a, b in itertools.pairwise(genotypes)]
    table = space.costs(genotypes)
    for genotype, params in zip(genotypes, table["params_m"], strict=True):
        assert space.canonical(genotype) == genotype
        network = space.build(genotype)
        assert sum(p.numel() for p in network.parameters()) == round(params * 1e6)
        assert costs_of(space, genotype) == count(network, space.input_shape)
    assert space.one_hot(genotypes).shape == (len(genotypes), sum(space.cardinalities))

    network = space.build(genotypes[0]).eval()
    path = export_onnx(network, space.input_shape, tmp_path / "model.onnx")
    x = np.random.default_rng(0).standard_normal((1, 1, 40, 100), dtype=np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = network(torch.from_numpy(x)).numpy()
    assert np.abs(session.run(None, {INPUT_NAME: x})[0] - expected).max() < 1e-4


def test_the_command_that_shows_it(folder: Path):
    (line,) = re.findall(r"^nas show (.*)$", README.read_text("utf-8"), re.MULTILINE)
    arguments = line.replace("'", "").split()
    done = subprocess.run(
        [sys.executable, "-m", "nas.cli.main", "show", *arguments],
        cwd=folder,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Temporal channels=16 kernel=3 stride=2" in done.stdout
    assert (folder / done.stdout.splitlines()[-1]).stat().st_size > 1000
