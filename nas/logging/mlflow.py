"""Logs on an MLflow tracking server, or in its local store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from nas.core.errors import one_line
from nas.core.trial import History, Trial
from nas.logging import Logger, LoggingSettings, register

METRICS_A_CALL = 1000
"""Most metrics of one call of `log_batch`, as MLflow's REST API has it."""


@register("mlflow")
@dataclass(frozen=True, kw_only=True)
class MLflowSettings(LoggingSettings):
    """Runs of an MLflow experiment: one for every trial and every verified architecture.

    A server that does not answer is asked again for as long as MLflow's own settings say
    (`MLFLOW_HTTP_REQUEST_MAX_RETRIES`), and the search waits meanwhile.

    Attributes:
        tracking_uri: Of the server or store; `None` for `MLFLOW_TRACKING_URI`, or MLflow's default.
            It is kept in the study's files: give a password by MLflow's environment variables.
        experiment: Its name; `None` for the study's.
    """

    tracking_uri: str | None = None
    experiment: str | None = None

    package: ClassVar[str] = "mlflow"

    def start(self, study: str, folder: Path) -> Logger:
        del folder
        from mlflow import MlflowClient

        client = MlflowClient(self.tracking_uri)
        name = self.experiment or study
        known = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if known is None else known.experiment_id
        return MLflowLogger(client, experiment, study)


class MLflowLogger(Logger):
    """Writes every run at once, when its training or its verification has ended."""

    def __init__(self, client: Any, experiment: str, study: str) -> None:
        """Log into an experiment.

        Args:
            client: An `mlflow.MlflowClient`.
            experiment: ID of the experiment.
            study: Name of the study.
        """
        self._client, self._experiment, self._study = client, experiment, study

    def trial(self, trial: Trial, numbers: Mapping[str, float], history: History) -> None:
        facts = {"number": str(trial.number), "genotype": str(list(trial.genotype))}
        if trial.failure is not None:
            facts["failure"] = one_line(trial.failure)
        self._run(f"trial {trial.number}", trial.arch_id, facts, numbers, history)

    def trained(self, arch_id: str, stage: str, history: History) -> None:
        self._run(f"{stage} training {arch_id}", arch_id, {}, {}, history)

    def verified(self, arch_id: str, stage: str, numbers: Mapping[str, float]) -> None:
        self._run(f"{stage} {arch_id}", arch_id, {}, numbers, ())

    def _run(
        self,
        name: str,
        arch_id: str,
        facts: Mapping[str, str],
        numbers: Mapping[str, float],
        history: History,
    ) -> None:
        from mlflow.entities import Metric

        now_ms = int(1000 * time.time())
        metrics = [Metric(key, value, now_ms, 0) for key, value in numbers.items()]
        for record in history:
            epoch = int(record["epoch"])
            others = ((key, value) for key, value in record.items() if key != "epoch")
            # What is known at the end has the same name as what was known after every epoch.
            metrics += [Metric(f"epoch/{key}", value, now_ms, epoch) for key, value in others]
        tags = {"study": self._study, "arch_id": arch_id, **facts}
        run = self._client.create_run(self._experiment, run_name=name, tags=tags).info.run_id
        for start in range(0, len(metrics), METRICS_A_CALL):
            self._client.log_batch(run, metrics=metrics[start : start + METRICS_A_CALL])
        self._client.set_terminated(run, "FAILED" if "failure" in facts else "FINISHED")
