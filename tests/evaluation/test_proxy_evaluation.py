"""Studies whose candidates a zero-cost proxy scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata
from small_spaces import small_mobilenet

import nas
from nas import evaluation
from nas.core.errors import ConfigError
from nas.evaluation.proxy import LOWEST, rank_percent, scored_sample
from nas.network.trained import Preprocessing
from nas.study.composition import compose
from nas.study.reading import read
from nas.training.job import TrainingJob

SMALL = (
    "search_space=nasbench201",
    "search_space.channels=4",
    "search_space.cells_per_stage=1",
    "finalise.limit=2",
    "finalise.recipe.epochs=1",
)
BY_PROXY = ("evaluation=proxy", "search.objectives=[proxy_rank,params_m]")


def test_the_rank_is_the_share_of_networks_that_are_preferred():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(200, 1))
    references = tuple({"a": float(x)} for [x] in scores)
    better = [float((scores > x).mean()) for [x] in scores]
    found = [rank_percent(each, references) for each in references]
    assert np.array_equal(rankdata(found), rankdata(-scores[:, 0]))
    assert np.abs(np.array(found) / 100 - better).max() < 0.05
    # Further away than all of them, networks are still told apart.
    beyond = [rank_percent({"a": x}, references) for x in (3.5, 4.0, 4.5)]
    assert 1 > beyond[0] > beyond[1] > beyond[2] > 0
    assert rank_percent({"a": LOWEST}, references) == pytest.approx(100)


def test_several_scores_are_ranked_together():
    rng = np.random.default_rng(0)
    references = tuple({"a": float(x), "b": float(y)} for x, y in rng.normal(size=(64, 2)))
    best = rank_percent({"a": 9.0, "b": 9.0}, references)
    one = rank_percent({"a": 9.0, "b": -9.0}, references)
    assert best < 5
    assert one > 50


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("evaluation=proxy",), r"search.objectives: got 'error', expected proxy_rank in place"),
        (
            (*BY_PROXY, 'search.constraints=["worst_class_error <= 20"]'),
            "search.constraints: got 'worst_class_error', expected proxy_rank in place",
        ),
        (("search.objectives=[proxy_rank]",), "got 'proxy_rank', expected a metric of a training"),
        ((*BY_PROXY, "fidelity=mo_asha"), "fidelity: got 'mo_asha', expected full"),
        ((*BY_PROXY, "budget=15min"), "budget: got '15min', expected null"),
        ((*BY_PROXY, "evaluation.proxy=zigo"), "proxy: got 'zigo'.*did you mean 'zico'"),
        ((*BY_PROXY, "evaluation.proxy.parts=1"), "evaluation.proxy.parts: got 1, expected 2"),
        ((*BY_PROXY, "evaluation.images=3"), "evaluation.images: got 3, expected 4 or more"),
        ((*BY_PROXY, "evaluation.references=2"), "evaluation.references: got 2, expected 8"),
        ((*BY_PROXY, "evaluation.workers=0"), "evaluation.workers: got 0"),
        (("search.algorithm.proxy=zigo",), "search.algorithm.proxy: got 'zigo'.*mean 'zico'"),
        (("search.algorithm.scored=4",), "search.algorithm.scored: got 4, expected 10 or more"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: tuple[str, ...], message: str):
    with pytest.raises(ConfigError, match=message):
        read(compose(["data=digits", "search_space=nasbench201", *settings]))


def test_a_proxy_is_one_of_the_settings():
    own = evaluation.get("proxy", proxy={"name": "zico", "parts": 4})
    assert own.proxy.parts == 4
    assert own.inherits is False


def test_a_published_table_has_no_images_for_a_proxy():
    with pytest.raises(ConfigError, match=r"algorithm.proxy: got 'zico', expected empty"):
        read(compose(["experiment=nasbench201", "search.algorithm.proxy=zico"]))


@pytest.mark.slow
def test_a_front_found_by_a_proxy_is_trained(tmp_path: Path):
    study = nas.search(
        data="digits",
        evaluations=8,
        name="by_proxy",
        settings={"runs": tmp_path / "runs"},
        overrides=[
            *SMALL,
            *BY_PROXY,
            "evaluation.proxy=naswot",
            "evaluation.images=8",
            "evaluation.references=8",
            "device.min_seconds=0",
            "device.min_rounds=36",
            "device.relative_ci=0.5",
        ],
    )
    trials, front = study.trials(), study.pareto()
    assert trials["proxy_rank"].between(0, 100).all()
    assert "error" not in trials
    verified = trials[trials["verified"]]
    assert verified["error_final"].notna().all()
    assert study.verified_columns == {"proxy_rank": "error_final", "params_m": "params_m"}
    assert set(front["arch_id"]) <= set(verified["arch_id"])
    guess = nas.data.get("digits").search_splits().trivial()["error"]
    assert study.record["reference_point"]["proxy_rank"] == guess
    assert study.pick("best")["error_final"] == front["error_final"].min()


@pytest.mark.slow
def test_scores_are_made_once_and_help_to_choose(tmp_path: Path):
    file = tmp_path / "runs" / "scored" / "prepared" / "scored.json"
    contents = []
    for evaluations in (7, 9):
        study = nas.search(
            data="digits",
            evaluations=evaluations,
            name="scored",
            settings={"runs": tmp_path / "runs"},
            overrides=[
                *SMALL,
                "search.objectives=[error,params_m]",
                "search.algorithm.proxy=naswot",
                "search.algorithm.scored=12",
                "search.algorithm.initial=5",
                "evaluation.recipe.epochs=1",
                "finalise.limit=0",
            ],
        )
        assert (study.trials()["status"] == "complete").sum() == evaluations
        contents.append(file.read_bytes())
    assert contents[0] == contents[1]
    scored = json.loads(contents[0])["scored"]
    assert 8 <= len(scored) <= 12
    assert set(scored[0]["scores"]) == {"naswot"}


@pytest.mark.slow
def test_scores_of_another_proxy_or_of_other_networks_are_not_reused(tmp_path: Path):
    splits = nas.data.get("digits").search_splits()
    space = small_mobilenet()
    file = tmp_path / "scored.json"

    def scored(proxy: str, networks: int, seed: int) -> dict[tuple[int, ...], object]:
        settings = evaluation.get("proxy", proxy=proxy, images=8, workers=1)
        job = settings.job(
            lambda recipe: TrainingJob(
                space=space,
                train=splits.train,
                held_out=splits.validation,
                preprocessing=Preprocessing.of(splits.train),
                recipe=recipe,
            )
        )
        with settings.connected(None):
            return scored_sample(job, settings, file, networks, seed)

    first = scored("params", 10, 0)
    before = file.read_bytes()
    assert scored("params", 10, 0) == first
    assert file.read_bytes() == before
    for proxy, networks, seed in (("macs", 10, 0), ("params", 12, 0), ("params", 12, 1)):
        other = scored(proxy, networks, seed)
        assert other != first
        assert all(set(each) == {proxy} for each in other.values())
