"""Every logger takes all that a study tells it; what it has written is what it was told."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import nas
from nas import logging
from nas.api import Study
from nas.core.errors import ConfigError
from nas.core.trial import Trial
from nas.logging import GuardedLogger, Logger, LoggingSettings, NoLogging
from nas.study.composition import compose
from nas.study.reading import read

TRIAL = Trial(number=3, genotype=(1, 0), arch_id="abc", seed=0, values={"error": 12.5})
HISTORY = (
    {"epoch": 1.0, "images_per_s": 800.0, "loss": 2.25},
    {"epoch": 2.0, "images_per_s": 900.0, "loss": 0.5, "error": 12.5},
)


def tell(logger: Logger) -> None:
    """Tell what a small study tells."""
    logger.trial(TRIAL, {"error": 12.5, "params_m": 0.25}, HISTORY)
    logger.trial(replace(TRIAL, number=4, failure="diverged: inf"), {"params_m": 0.5}, ())
    logger.trained("abc", "final", HISTORY)
    logger.verified("abc", "final", {"error_final": 10.0, "error_test": 11.0})
    logger.close()


def installed(name: str, folder: Path) -> LoggingSettings:
    fields = {"tracking_uri": f"sqlite:///{folder}/mlflow.db"} if name == "mlflow" else {}
    if importlib.util.find_spec(logging.component(name).package or "nas") is None:
        with pytest.raises(ConfigError, match=rf"logging.*pip install 'hwnas\[{name}\]'"):
            logging.get(name, **fields)
        pytest.skip(f"{name} is not installed")
    return logging.get(name, **fields)


@pytest.mark.parametrize("name", logging.names())
def test_a_study_is_logged_and_goes_on(name: str, tmp_path: Path):
    settings = installed(name, tmp_path)
    for _ in range(2):
        tell(settings.start("small", tmp_path))


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return step and value of all scalars of a run by their names."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_shows_epochs_and_trials(tmp_path: Path):
    tell(installed("tensorboard", tmp_path).start("small", tmp_path))
    runs = tmp_path / "tensorboard"
    training = {
        "images_per_s": [(1, 800.0), (2, 900.0)],
        "loss": [(1, 2.25), (2, 0.5)],
        "error": [(2, 12.5)],
    }
    assert scalars(runs / "trial00003_abc") == scalars(runs / "final_abc") == training
    study = scalars(runs / "study")
    assert study["search/params_m"] == [(3, 0.25), (4, 0.5)]
    assert study["search/error"] == [(3, 12.5)]
    assert study["final_abc/error_test"] == [(0, 11.0)]


def test_mlflow_has_a_run_for_every_training(tmp_path: Path):
    tell(installed("mlflow", tmp_path).start("small", tmp_path))
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"trial 3", "trial 4", "final training abc", "final abc"}
    assert runs["trial 3"].data.metrics["error"] == 12.5
    assert runs["trial 4"].info.status == "FAILED"
    history = client.get_metric_history(runs["trial 3"].info.run_id, "epoch/loss")
    assert [(each.step, each.value) for each in history] == [(1, 2.25), (2, 0.5)]


@dataclass
class Full(Logger):
    """A disk that is full after one trial."""

    trials: int = 0

    def trial(self, *of_trial: object) -> None:
        self.trials += 1
        if self.trials > 1:
            raise OSError("no space\nleft on the device")


def unreachable() -> Logger:
    raise ConnectionError("the server does not answer")


@pytest.mark.parametrize(("start", "taken"), [(Full, 2), (unreachable, 0)])
def test_a_logger_that_fails_says_so_once(start: Callable[[], Logger], taken: int):
    said: list[str] = []
    logger = GuardedLogger(start, said.append)
    failing = logger._logger
    for _ in range(4):
        tell(logger)
    [line] = said
    assert "\n" not in line
    assert "ledger" in line
    assert getattr(failing, "trials", 0) == taken


def search(folder: Path, evaluations: int, **settings: object) -> Study:
    return nas.search(
        evaluations=evaluations,
        name="table",
        settings={"runs": folder, "search.algorithm.initial": 4, **settings},
        overrides=["experiment=nasbench201", "logging=tensorboard"],
    )


def test_a_study_that_goes_on_logs_every_trial_once(tmp_path: Path):
    for evaluations in (6, 9):
        trials = search(tmp_path, evaluations).trials()
    logged = scalars(tmp_path / "table" / "tensorboard" / "study")
    errors = dict(logged["search/error"])
    assert len(logged["search/error"]) == len(errors) == 9
    assert [errors[n] for n in trials["number"]] == pytest.approx(trials["error"].tolist())
    assert "search/latency_ms_published" in logged


def test_a_study_outlives_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "file"
    file.write_text("no folder")
    study = search(tmp_path, 6, **{"logging.folder": file})
    assert len(study.trials()) == 6
    assert capsys.readouterr().out.count("logging has failed") == 1


def test_nothing_is_logged_unless_asked_for():
    assert read(compose()).logging == NoLogging()
