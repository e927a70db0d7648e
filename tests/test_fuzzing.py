"""Generated inputs: each gives an answer or one line of error, and none runs code.

The same inputs are generated in every run; how many stands at each test.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import string
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from bases import required
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from PIL import Image

import search_spaces
from nas.core.errors import GenotypeError, HwnasError
from nas.data.image_folder import ImageFolder
from nas.data.npz import Npz
from nas.network.space import SearchSpace
from nas.results.query import matching
from nas.results.study import StudyResults

sys.path.append(str(Path(__file__).parent / "results"))
from made_up_studies import finalise, random_trials, write_study


def generated(examples: int) -> settings:
    """Return settings with which a test sees the same `examples` inputs in every run."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def one_line_or_answer() -> Iterator[None]:
    """Let a block raise an error of ours, on one line; any other one fails the test."""
    try:
        yield
    except HwnasError as error:
        line = str(error)
        line.encode()
        if "\n" in line or len(line) > 2000:
            pytest.fail(f"not one line: {line!r}")


# --- Genotypes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=search_spaces.names())
def space(request: pytest.FixtureRequest) -> SearchSpace:
    images = {"input_shape": (3, 16, 16), "num_classes": 4}
    return search_spaces.get(request.param, **images, **required(request.param, (3, 16, 16), 4))


@generated(300)
@given(data=st.data())
def test_every_genotype_in_range_is_an_architecture(space: SearchSpace, data: st.DataObject):
    genotype = tuple(data.draw(st.integers(0, n - 1)) for n in space.cardinalities)
    canonical = space.canonical(genotype)
    assert space.canonical(canonical) == canonical
    assert space.architecture(canonical).arch_id == space.architecture(genotype).arch_id


@generated(5)
@given(data=st.data())
def test_every_genotype_in_range_is_built(space: SearchSpace, data: st.DataObject):
    genotype = tuple(data.draw(st.integers(0, n - 1)) for n in space.cardinalities)
    network = space.build(genotype).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, *space.input_shape)).shape == (1, 4)


ODD = st.one_of(
    st.integers(), st.floats(), st.text(max_size=5), st.none(), st.booleans(), st.lists(st.none())
)


@generated(300)
@given(data=st.data())
def test_what_is_no_genotype_is_refused(space: SearchSpace, data: st.DataObject):
    genotype: list[Any] = [data.draw(st.integers(0, n - 1)) for n in space.cardinalities]
    at = data.draw(st.integers(0, len(genotype) - 1))
    kind = data.draw(st.sampled_from(["other value", "too many", "too few"]))
    if kind == "other value":
        genotype[at] = data.draw(ODD)
    elif kind == "too many":
        genotype.insert(at, 0)
    else:
        del genotype[at]
    number = genotype[at] if at < len(genotype) else None
    allowed = isinstance(number, int) and 0 <= number < space.cardinalities[at]
    if kind == "other value" and allowed:
        return
    for use in (space.canonical, space.architecture, space.build, space.decode):
        with pytest.raises(GenotypeError):
            use(tuple(genotype))


# --- Conditions ----------------------------------------------------------------------------------

FRAME = pd.DataFrame(
    {
        "error": [1.0, float("nan"), 3.0],
        "number": [0, 1, 2],
        "arch_id": ["a", "b", None],
        "genotype": [(0,), (1,), (2,)],
        "verified": [True, False, True],
    }
)
TEXTS = (
    "error number arch_id genotype verified and or not < <= > >= == != ( ) [ ] . , : 1 0.5 1e999 -3"
    " 'a' None True lambda x __import__ if else for in is import os system exec @ = := ** f'{"
    " error.__class__ \\ # ; \n \t \0"
)
WORDS = st.sampled_from(TEXTS.split(" "))


@generated(2000)
@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=12).map(" ".join)))
def test_a_condition_is_a_mask_or_refused(where: str):
    with one_line_or_answer(), pytest.MonkeyPatch.context() as patch:
        for name in ("eval", "exec"):
            patch.setattr(builtins, name, None)
        mask = matching(where, FRAME, {"e": "error"})
        assert mask.shape == (3,)
        assert mask.dtype == np.bool_


# --- Files of a study ----------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trials = random_trials(12)
    folder = write_study(tmp_path_factory.mktemp("fuzzed") / "study", trials)
    finalise(folder, trials[0], measured_ms=1.0)
    return folder


def mutated(content: bytes, data: st.DataObject) -> bytes:
    """Return a file in which bytes, or an entry of its JSON, are others."""
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(content)))
        new = data.draw(st.binary(max_size=8))
        return content[:at] + new + content[at + data.draw(st.integers(0, 40)) :]
    record = json.loads(content)
    holder, key = record, data.draw(st.sampled_from(sorted(record)))
    while isinstance(holder[key], dict) and holder[key] and data.draw(st.booleans()):
        holder = holder[key]
        key = data.draw(st.sampled_from(sorted(holder)))
    holder[key] = data.draw(JSON)
    return json.dumps(record).encode()


@pytest.mark.parametrize("file", ["study.json", "finalised/*/result.json"])
@generated(300)
@given(data=st.data())
def test_a_file_of_a_study(study: Path, file: str, data: st.DataObject):
    [path] = study.glob(file)
    content = path.read_bytes()
    try:
        path.write_bytes(mutated(content, data))
        with one_line_or_answer():
            results = StudyResults(study)
            front = results.pareto()
            assert results.hypervolume() >= 0
            assert len(front) <= 12
            repr(results)
    finally:
        path.write_bytes(content)


# --- Data ----------------------------------------------------------------------------------------


@generated(200)
@given(data=st.data())
def test_an_npz_file(data: st.DataObject):
    arrays = {}
    for name in data.draw(st.sets(st.sampled_from(["x", "y", "x_train", "y_train", "y_test"]))):
        dtype = data.draw(arrays_of.scalar_dtypes())
        shape = data.draw(arrays_of.array_shapes(min_dims=0, max_dims=4, max_side=6))
        arrays[name] = np.zeros(shape, dtype)
    if data.draw(st.booleans()):
        arrays |= {"x": np.zeros((40, 4, 4), np.uint8), "y": np.arange(40) % 2}
    if data.draw(st.booleans()):
        arrays["class_names"] = data.draw(
            st.lists(st.text(max_size=4), max_size=3).map(np.array)
            | st.just(np.array([{}], dtype=object))
        )
    file = io.BytesIO()
    np.savez(file, **arrays)
    content = file.getvalue()
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(content)))
        content = content[:at] + data.draw(st.binary(max_size=8)) + content[at + 4 :]
    with tempfile.TemporaryDirectory() as folder, one_line_or_answer():
        path = Path(folder, "data.npz")
        path.write_bytes(content)
        splits = Npz(path=str(path)).search_splits()
        assert len(splits.train) > 0


def picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)).save(
        file, "png"
    )
    return file.getvalue()


PICTURE = picture()
NAMES = st.one_of(
    st.text(string.ascii_letters + string.digits + " .-_\n\u00e9\udcff\t'\"[]", max_size=8),
    st.sampled_from(["train", "test", "a", "b", "__MACOSX", ".hidden", "a.png", "x.jpg", "c.tif"]),
)
CONTENTS = st.one_of(
    st.just(PICTURE),
    st.binary(max_size=50),
    st.tuples(st.integers(0, len(PICTURE)), st.binary(max_size=6)).map(
        lambda change: PICTURE[: change[0]] + change[1] + PICTURE[change[0] + 3 :]
    ),
)


@generated(150)
@given(
    files=st.dictionaries(st.lists(NAMES, min_size=1, max_size=4).map(tuple), CONTENTS, max_size=6),
    whole=st.booleans(),
)
def test_a_folder_of_images(files: dict[tuple[str, ...], bytes], whole: bool):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "images")
        root.mkdir()
        if whole:
            files |= {(name, f"{n}.png"): PICTURE for name in "ab" for n in range(5)}
        for parts, content in files.items():
            # What the file system refuses cannot be met.
            with contextlib.suppress(OSError, ValueError):
                path = root.joinpath(*(part.replace("/", "") or "_" for part in parts))
                if ".." in parts:
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        with one_line_or_answer():
            splits = ImageFolder(path=str(root), image_size=8).search_splits()
            assert len(splits.train) > 0
            for note in splits.notes:
                assert "\n" not in note
