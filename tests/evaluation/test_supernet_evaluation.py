"""A supernet's training is kept in a folder, goes on where it was stopped, and is found again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_spaces import small_mobilenet

import nas.data
from nas import evaluation
from nas.core.errors import ConfigError, HwnasError
from nas.core.recipe import Recipe
from nas.core.trial import Candidate, Job
from nas.evaluation import supernet as module
from nas.network.trained import Preprocessing
from nas.training.job import TrainingJob

RECIPE = Recipe.of("fast", epochs=2, train_samples=320)
SETTINGS = evaluation.get(
    "supernet", recipe=RECIPE, calibration_images=64, workers=2, training_threads=1
)


@pytest.fixture(autouse=True, scope="module")
def cluster() -> Iterator[None]:
    with SETTINGS.connected(None):
        yield


def training(recipe: Recipe) -> Job:
    splits = nas.data.get("digits").search_splits()
    train = splits.train.take(np.arange(320))
    return TrainingJob(
        space=small_mobilenet(),
        train=train,
        held_out=splits.validation,
        preprocessing=Preprocessing.of(train),
        recipe=recipe,
    )


def arrays(job: Job) -> dict[str, np.ndarray]:
    return dict(job.weights.arrays)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_stopped_training_goes_on_and_candidates_read_one_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = SETTINGS.job(training)
    whole = SETTINGS.prepare(job, tmp_path / "a" / "one" / "prepared")
    # What a killed run leaves behind: some steps, and their checkpoint.
    folder = tmp_path / "b" / "two" / "prepared"
    monkeypatch.setattr(module, "CHECKPOINT_S", 0.0)
    kept = SETTINGS._kept(job, folder)
    with closing(SETTINGS.start(job.training, limited=False)) as evaluator:
        for _ in range(2):
            evaluator.submit([SETTINGS._part(kept)])
            kept.keep(evaluator.completed()[0], 1.0)
    assert not kept.complete
    assert kept.checkpoint() is not None
    monkeypatch.undo()
    parts = SETTINGS.prepare(job, folder)
    assert kept.record()["seconds"] > 2
    assert kept.checkpoint() is None
    one, two = arrays(whole), arrays(parts)
    assert all(np.array_equal(one[name], two[name]) for name in one)
    # The same space, data and recipe beside it.
    beside = SETTINGS.prepare(job, tmp_path / "b" / "three" / "prepared")
    assert all(np.array_equal(two[name], array) for name, array in arrays(beside).items())
    # Another seed's weights are others, and changed ones are refused.
    assert (
        not replace(SETTINGS, seed=1)
        ._kept(job, tmp_path / "b" / "four" / "prepared")
        .found_beside()
    )
    file = tmp_path / "b" / "three" / "prepared" / "supernet.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(HwnasError, match="SHA-256"):
        SETTINGS.prepare(job, file.parent)
    space = small_mobilenet()
    genotypes = [space.sample(np.random.default_rng(i)) for i in range(4)]
    with closing(SETTINGS.start(parts)) as evaluator:
        evaluator.submit(
            [
                Candidate(number=i, genotype=genotype, arch_id=str(i), seed=0)
                for i, genotype in enumerate(genotypes)
            ]
        )
        errors = {}
        while ended := evaluator.completed():
            for each in ended:
                assert each.failure is None
                errors[each.candidate.number] = each.outcome.metrics["error"]
    for number, genotype in enumerate(genotypes):
        candidate = Candidate(number=0, genotype=genotype, arch_id="", seed=1)
        assert parts(candidate, 0.0).metrics["error"] == errors[number]


def test_a_supernet_of_another_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "supernet.json").write_text('{"identity": {"search_space": "0"}, "seconds": 1.0}')
    with pytest.raises(ConfigError, match="search_space"):
        SETTINGS.prepare(SETTINGS.job(training), tmp_path)


def test_settings_out_of_range_are_named() -> None:
    for name, value in (("calibration_images", 0), ("training_threads", 0), ("strategy", "best")):
        with pytest.raises(ConfigError, match=rf"evaluation\.{name}: got"):
            evaluation.get("supernet", **{name: value})
