"""The identity of a space changes with the code that its networks are made of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SPACE = '''
"""A user's own space."""
from dataclasses import dataclass

import numpy
import search_spaces
from nas.core.space import Gene
from nas.network.blocks import Block, ModuleSpec
from nas.network.space import SearchSpace
from layers.whole import Whole


@search_spaces.register("own")
@dataclass(frozen=True, kw_only=True)
class Own(SearchSpace):
    """Of one block."""

    sizes: tuple[float, ...] = (2, 4)

    @property
    def genes(self):
        return (Gene("kernel", (3, 5)),)

    def blocks(self):
        yield Block("network", lambda chosen: ModuleSpec(Whole, {"kernel": chosen["kernel"]}))
'''
WHOLE = '''
from torch import nn

from .sizes import CHANNELS


class Whole(nn.Sequential):
    def __init__(self, shape, kernel):
        """Make it."""
        convolution = nn.Conv2d(shape[0], CHANNELS, kernel)
        super().__init__(convolution, nn.Flatten(), nn.LazyLinear(10))
'''
FILES = {
    "own.py": SPACE,
    "layers/__init__.py": "",
    "layers/whole.py": WHOLE,
    "layers/sizes.py": "CHANNELS = 4\n",
    "unrelated.py": "x = 1\n",
}

IDENTIFY = """
import importlib, sys
import search_spaces
for folder in sys.argv[1:]:
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    space = importlib.import_module("own").Own(input_shape=(1, 8, 8), num_classes=10)
    print(space.space_id, space.architecture((1,)).arch_id)
    sys.path.remove(folder)
    for name in [n for n in sys.modules if n.split(".")[0] in ("own", "layers")]:
        del sys.modules[name]
    search_spaces.registry._classes.clear()
"""
SAME = {
    "as it was": {},
    "comment": {"own.py": SPACE + "# the end\n"},
    "formatting": {"own.py": SPACE.replace("(3, 5)", "(3,\n            5,)")},
    "docstrings": {"own.py": SPACE.replace('"""Of one block."""\n', "").replace("user's", "good")},
    "a helper's docstring": {"layers/whole.py": WHOLE.replace('"""Make it."""', "# make it")},
    "a module that nothing imports": {"unrelated.py": "x = 2\n"},
}
OTHER = {
    "the space": {"own.py": SPACE.replace("(3, 5)", "(3, 7)")},
    "a block's module": {"layers/whole.py": WHOLE.replace("CHANNELS, kernel", "CHANNELS, 3")},
    "what a helper imports": {"layers/sizes.py": "CHANNELS = 8\n"},
    "a package": {"layers/__init__.py": "import layers.sizes; layers.sizes.CHANNELS = 2\n"},
}


def write(folder: Path, changes: dict[str, str]) -> Path:
    for name, code in {**FILES, **changes}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code, "utf-8")
    return folder


def identify(*folders: Path) -> list[tuple[str, str]]:
    """Return `space_id` and an `arch_id` of the space in each folder, in another process."""
    done = subprocess.run(
        [sys.executable, "-c", IDENTIFY, *map(str, folders)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(line.split()[0], line.split()[1]) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    root = tmp_path_factory.mktemp("spaces")
    variants = {**SAME, **OTHER}
    folders = [write(root / str(i), change) for i, change in enumerate(variants.values())]
    return dict(zip(variants, identify(*folders), strict=True))


def test_a_place_and_a_process_are_no_part_of_it(
    identities: dict[str, tuple[str, str]], tmp_path: Path
):
    assert identify(write(tmp_path / "elsewhere", {})) == [identities["as it was"]]


@pytest.mark.parametrize("change", SAME)
def test_what_changes_no_network_changes_no_identity(
    identities: dict[str, tuple[str, str]], change: str
):
    assert identities[change] == identities["as it was"]


@pytest.mark.parametrize("change", OTHER)
def test_a_changed_line_changes_the_identity(identities: dict[str, tuple[str, str]], change: str):
    space_id, arch_id = identities[change]
    assert space_id != identities["as it was"][0]
    assert arch_id != identities["as it was"][1]
