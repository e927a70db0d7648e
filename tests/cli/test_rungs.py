"""A study on rungs, on real workers: trainings go on, also after the study was killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from nas_command import SMALL, Nas, number_of_trials, wait_until, wait_until_gone

from nas.cli.main import main
from nas.cluster.connection import connected
from nas.results.study import StudyResults

pytestmark = pytest.mark.slow

SEARCH = (
    *SMALL,
    "search.objectives=[error,params_m]",
    "search.evaluations=4",
    "evaluation.workers=1",
    "evaluation.recipe.epochs=3",
    "evaluation.recipe.initial_resolution=0.5",
    "finalise.limit=0",
)
RUNGS = ("fidelity=mo_asha", "fidelity.rungs=[0.2,0.5,1.0]", "fidelity.eta=2", "fidelity.looks=1")
SAME = ["number", "arch_id", "seed", "fidelity", "error", "params_m"]


def search(folder: Path, *settings: str) -> StudyResults:
    """Run a search to its end in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["search", *SEARCH, *settings]) == 0
    return StudyResults(folder / "runs" / "small")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StudyResults]:
    """A study that was killed, the same one uninterrupted, and one of full trainings."""
    nas = Nas(tmp_path_factory.mktemp("killed"))
    folder = nas.folder / "runs" / "small"
    with nas.started("search", *SEARCH, *RUNGS) as process:
        wait_until(lambda: number_of_trials(folder) >= 3)
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=100)
        wait_until_gone(family)
    with connected(None):
        return {
            "killed": search(nas.folder, *RUNGS),
            "whole": search(tmp_path_factory.mktemp("whole"), *RUNGS),
            "full": search(tmp_path_factory.mktemp("full"), "search.evaluations=8"),
        }


def test_a_study_that_was_killed_equals_one_that_was_not(studies: dict[str, StudyResults]) -> None:
    killed, whole = studies["killed"].trials(), studies["whole"].trials()
    assert killed[SAME].equals(whole[SAME])
    assert set(whole["fidelity"]) == {0.2, 0.5, 1.0}


def test_a_training_in_parts_is_the_training(studies: dict[str, StudyResults]) -> None:
    """What both studies have trained fully has the same error, to the last image."""
    errors = [
        trials[trials["fidelity"] == 1].set_index("arch_id")["error"]
        for trials in (studies["whole"].trials(), studies["full"].trials())
    ]
    common = errors[0].index.intersection(errors[1].index)
    assert len(common) > 0
    assert errors[0][common].equals(errors[1][common])


def test_the_front_is_of_full_trainings(studies: dict[str, StudyResults]) -> None:
    study = studies["whole"]
    assert set(study.pareto()["fidelity"]) == {1.0}
    assert set(study.pareto(fidelity=0.2)["fidelity"]) == {0.2}


def test_of_an_architecture_one_checkpoint_is_left(studies: dict[str, StudyResults]) -> None:
    study = studies["killed"]
    reached = study.trials().groupby("arch_id")["fidelity"].max()
    left = sorted(file.name for file in (study.path / "checkpoints").iterdir())
    waiting = reached[reached < 1]
    assert left == sorted(f"{arch}-{at!r}.safetensors" for arch, at in waiting.items())
