"""Precision as a gene: every network is measured and judged as its own genotype deploys it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from nas_command import SMALL, Ended

from nas import data
from nas.cluster.connection import connected
from nas.core.trial import Candidate
from nas.network.trained import Preprocessing
from nas.results.study import StudyResults
from nas.study.finalise import Finalisation

pytestmark = pytest.mark.slow

SPACE = """
from dataclasses import dataclass
from torch import nn
import search_spaces
from nas.core.space import Gene
from nas.network.blocks import Block, ModuleSpec
from nas.network.space import SearchSpace

class Convolution(nn.Sequential):
    def __init__(self, shape, classes, channels):
        super().__init__(
            nn.Conv2d(shape[0], channels, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36 * channels, classes),
        )

@search_spaces.register("deployed")
@dataclass(frozen=True, kw_only=True)
class Deployed(SearchSpace):
    @property
    def genes(self):
        return Gene("channels", (4, 8)), Gene("precision", ("fp32", "int8"), ordinal=False)

    @property
    def deployment_genes(self):
        return ("precision",)

    def blocks(self):
        yield Block(
            "network",
            lambda chosen: ModuleSpec(
                Convolution, {"classes": self.num_classes, "channels": chosen["channels"]}
            ),
        )
"""
SETTINGS = (
    *(s for s in SMALL if not s.startswith(("experiment", "search_space"))),
    "imports=[deployed]",
    "search_space=deployed",
    "data=digits",
    "search.objectives=[error,params_m]",
    "search.evaluations=4",
    "search.algorithm.initial=4",
)


@pytest.fixture(autouse=True)
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers that find the module of the space."""
    (tmp_path / "deployed.py").write_text(SPACE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)
    with connected(None):
        yield


def all_trials(self: Finalisation) -> list[Candidate]:
    return [self._member(row) for _, row in self.results.trials().iterrows()]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_network_is_judged_with_its_own_choices(
    here: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """Whatever the device's own precision."""
    monkeypatch.setattr(Finalisation, "_front", all_trials)
    ended = here("search", *SETTINGS, f"device.precision={precision}")
    assert ended.returncode == 0, ended.stderr
    study = StudyResults(tmp_path / "runs" / "small")
    digits = data.get("digits")
    preprocessing = Preprocessing.of(digits.search_splits().train)
    trials = study.trials()
    assert len(trials) == 4
    for _, row in trials.iterrows():
        folder = study.path / "finalised" / row["arch_id"]
        quantised = bool(row["genotype"][1])
        measured = json.loads((folder / "measurement.json").read_text())
        assert measured["device"]["precision"] == ("int8" if quantised else "fp32")
        file = folder / ("deployed.onnx" if quantised else "model.onnx")
        assert measured["model_size_mb"] == pytest.approx(file.stat().st_size / 1e6)
        for images, column in (
            (digits.search_splits().validation, "error_final"),
            (digits.test_split(), "error_test"),
        ):
            session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
            inputs = preprocessing(torch.from_numpy(images.pixels)).numpy()
            outputs = [session.run(None, {"images": each[None]})[0] for each in inputs]
            expected = images.task.evaluate(np.concatenate(outputs), images.targets)["error"]
            assert row[column] == pytest.approx(expected)
        in_fp32 = folder / "measurement_fp32.json"
        assert in_fp32.is_file() == quantised
        if quantised:
            plain = json.loads(in_fp32.read_text())
            assert plain["device"] == {**measured["device"], "precision": "fp32"}
            assert row["latency_ms_measured_fp32"] == plain["latency_ms"]
        assert np.isnan(row["latency_ms_measured_fp32"]) != quantised
        assert np.isnan(row["error_test_fp32"]) != quantised
