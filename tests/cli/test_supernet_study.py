"""A study whose candidates are judged by shared weights, from the command to the verified front."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from nas_command import SMALL, Ended

from nas.results.study import StudyResults

Here = Callable[..., Ended]

SUPERNET = (
    *SMALL,
    "evaluation=supernet",
    "evaluation.calibration_images=256",
    "evaluation.recipe.epochs=3",
)


@pytest.mark.slow
def test_a_study_trains_shared_weights_once_and_verifies_its_front(
    here: Here, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        ended = here("search", *SUPERNET, f"name={name}")
        assert ended.returncode == 0, ended.stderr
    one, two = (StudyResults(tmp_path / "runs" / name) for name in ("one", "two"))
    trials = one.trials()
    assert (trials["status"] == "complete").all()
    assert trials["error"].between(0, 100).all()
    # The second study found the first one's weights: the same networks have the same errors.
    assert list(trials["error"]) == list(two.trials()["error"])
    records = [json.loads((s.path / "prepared" / "supernet.json").read_text()) for s in (one, two)]
    assert records[0]["seconds"] > 0
    assert records[1]["reused_from"] == str(Path("runs/one/prepared"))
    assert [each["epoch"] for each in records[0]["history"]] == [1, 2, 3]
    arch_id = one.pick("best")["arch_id"]
    facts = json.loads((one.path / "finalised" / arch_id / "network.json").read_text())
    source = facts["provenance"]["pretrained_weights"]
    assert {**records[0]["identity"], "supernet": "runs/one/prepared"} == source
    # Another recipe under the same name, and weights of other data, are refused.
    other = here("search", *SUPERNET, "name=one", "evaluation.random_networks=1")
    file = two.path / "prepared" / "supernet.json"
    identity = {**records[1]["identity"], "data": "0" * 16}
    file.write_text(json.dumps({**records[1], "identity": identity}))
    foreign = here("search", *SUPERNET, "name=two", "search.evaluations=8")
    for refused, setting in ((other, "evaluation.random_networks"), (foreign, "data")):
        assert refused.returncode != 0
        assert f"{setting}: got" in refused.stderr
        assert refused.stderr.count("\n") == 1


@pytest.mark.slow
def test_promising_candidates_are_trained_by_themselves(here: Here, tmp_path: Path) -> None:
    ended = here(
        "search",
        *SUPERNET,
        "name=both",
        "fidelity=mo_asha",
        "fidelity.rungs=[0.1,1]",
        "fidelity.eta=2",
        "search.evaluations=9",
        "evaluation.stand_alone.epochs=1",
    )
    assert ended.returncode == 0, ended.stderr
    study = StudyResults(tmp_path / "runs" / "both")
    trials = study.trials()
    judged, trained = (trials[trials["fidelity"] == share] for share in (0.1, 1.0))
    assert len(trained) >= 4
    assert set(trained["arch_id"]) <= set(judged["arch_id"])
    assert trained["seconds"].median() > judged["seconds"].median()
    assert set(study.pareto()["arch_id"]) <= set(trained["arch_id"])


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ("fidelity=mo_asha", "fidelity.rungs"),
        ("budget=10min", "budget"),
        ("evaluation.recipe.patience=2", "evaluation.recipe.patience"),
        ("evaluation.stand_alone.teacher.source=self", "evaluation.stand_alone.teacher.source"),
        ("evaluation.stand_alone=fast", "evaluation.stand_alone"),
        ("evaluation.stand_alone.epochs=3", "evaluation.stand_alone"),
    ],
)
def test_what_does_not_go_with_a_supernet_is_refused(here: Here, given: str, setting: str) -> None:
    refused = here("search", *SUPERNET, given)
    assert refused.returncode != 0
    assert f"{setting}: got" in refused.stderr
    assert refused.stderr.count("\n") == 1
