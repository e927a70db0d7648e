"""A search space in a file of the user's own, named by `imports`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from nas_command import SMALL, Ended, Nas

from nas.results.study import StudyResults

SPACE = """
from dataclasses import dataclass

from torch import nn

import search_spaces
from nas.core.space import Gene
from nas.network.space import SearchSpace


class Plain(nn.Module):
    def __init__(self, inputs, channels, num_classes):
        super().__init__()
        self.features = nn.Conv2d(inputs, channels, 3, 2)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x):
        return self.classifier(self.features(x).relu().mean((2, 3)))


@search_spaces.register("plain")
@dataclass(frozen=True, kw_only=True)
class PlainSpace(SearchSpace):
    channels: tuple[int, ...] = (4, 8, 16, 24)

    @property
    def genes(self):
        return (Gene(name="channels", choices=tuple(self.channels)),)

    def network(self, genotype):
        channels = self.channels[genotype[0]]
        return Plain, {
            "inputs": self.input_shape[0],
            "channels": channels,
            "num_classes": self.num_classes,
        }
"""


@pytest.mark.slow
def test_a_space_of_the_users_own_is_searched_and_exported(
    nas: Nas, here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    (nas.folder / "my_space.py").write_text(SPACE)
    group = nas.folder / "settings" / "search_space"
    group.mkdir(parents=True)
    (group / "plain.yaml").write_text("name: plain\nchannels: [4, 8, 16, 24]\n")
    own = [s for s in SMALL if not s.startswith(("experiment", "search_space"))]
    ended = nas(
        "search",
        "--config-dir=settings",
        "search_space=plain",
        "imports=[my_space]",
        *own,
        "search.objectives=[error,params_m]",
        "search.reference_point=null",
        "search.evaluations=4",
        "finalise.limit=1",
    )
    assert ended.returncode == 0, ended.stderr
    study = StudyResults(nas.folder / "runs" / "small")
    trials = study.trials()
    # Workers found the module: nothing failed.
    assert (trials["status"] == "complete").all(), trials["failure"].tolist()
    assert sorted(trials["genotype"]) == [(0,), (1,), (2,), (3,)]

    # This process has not seen the module yet.
    monkeypatch.setattr(sys, "path", list(sys.path))
    elsewhere = nas.folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    refused = here("export", str(study.path), "--out", "out")
    assert refused.returncode == 2
    assert refused.stderr.startswith("nas: imports: got 'my_space'")
    assert refused.stderr.count("\n") == 1
    monkeypatch.chdir(nas.folder)
    exported = here("export", "small", "--out", "out")
    assert exported.returncode == 0, exported.stderr
