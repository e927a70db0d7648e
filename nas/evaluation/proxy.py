"""Evaluation by a zero-cost proxy: candidates are scored with their initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit

from nas.core.dataset import Examples
from nas.core.errors import CandidateFailure, ConfigError, HwnasError
from nas.core.files import hashed, write_json_atomically
from nas.core.recipe import Recipe
from nas.core.records import decoding, read_json
from nas.core.registry import nested
from nas.core.seeding import training_seed
from nas.core.space import Genotype
from nas.core.trial import Candidate, Job, Outcome
from nas.evaluation import CandidateTraining, EvaluationSettings, proxies, register
from nas.evaluation.proxies import Batch, Proxy, combined
from nas.evaluation.training import WorkerSettings
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing

LEAST_IMAGES, LEAST_REFERENCES = 4, 8

LOWEST = -1e300
"""What a score of minus infinity counts as."""

Scores = Mapping[str, float]


@register("proxy")
@dataclass(frozen=True, kw_only=True)
class ProxySettings(WorkerSettings):
    """A zero-cost proxy on Ray workers: no candidate is trained before the front is.

    The objective is `proxy_rank`: how many of the space's random networks score higher. These are
    scored once, before the first candidate.

    Attributes:
        proxy: Name and settings of the proxy.
        images: Training images that a network is scored on, the same ones for all networks.
        references: Random networks that the rank is among.
        seed: Of the choice of images and random networks. Initial weights have the trial's seed.
    """

    proxy: Proxy = nested(proxies.registry, "zico")
    images: int = 32
    references: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("images", LEAST_IMAGES), ("references", LEAST_REFERENCES)):
            if getattr(self, name) < least:
                raise ConfigError(f"evaluation.{name}", getattr(self, name), f"{least} or more")

    def job(
        self, training: Callable[[Recipe], CandidateTraining], *, partial: bool = False
    ) -> ProxyJob:
        del partial
        own = training(Recipe())
        return ProxyJob(
            space=own.space,
            images=own.train.sample(self.images, self.seed),
            preprocessing=own.preprocessing,
            proxy=self.proxy,
            threads=self.threads,
        )

    def prepare(self, job: Job, folder: Path) -> Job:
        assert isinstance(job, ProxyJob)
        path = folder / "proxy_references.json"
        scored = scored_sample(job, self, path, self.references, self.seed)
        return replace(job, references=tuple(scored.values()))


@dataclass(frozen=True, kw_only=True)
class ProxyJob:
    """Scores a candidate with its initial weights.

    Attributes:
        space: Builds the candidate.
        images: What it is scored on.
        preprocessing: Of the images.
        proxy: Scores it.
        threads: Of torch, on a worker.
        references: Scores of random networks; without any, a candidate has no rank.
    """

    space: SearchSpace
    images: Examples
    preprocessing: Preprocessing
    proxy: Proxy
    threads: int = 1
    references: tuple[Scores, ...] = ()

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        """Return the candidate's scores, or its `proxy_rank`; see `nas.core.trial.Job`.

        Raises:
            CandidateFailure: The proxy has no value for the candidate.
        """
        del deadline
        torch.set_num_threads(self.threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(candidate.seed)
        network = self.space.build(candidate.genotype).to(device)
        pixels, targets = self.images.batch(slice(None))
        images = self.preprocessing(torch.from_numpy(pixels).to(device))
        own = Batch(images, torch.from_numpy(targets).to(device), self.images.task)
        scores = {name: max(x, LOWEST) for name, x in self.proxy(network, own).items()}
        if unusable := [f"{name} is {x}" for name, x in scores.items() if not math.isfinite(x)]:
            raise CandidateFailure("diverged", ", ".join(unusable))
        if not self.references:
            return Outcome(metrics=scores)
        return Outcome(metrics={"proxy_rank": rank_percent(scores, self.references)})


def scored_sample(
    job: ProxyJob, evaluation: EvaluationSettings, file: Path, networks: int, seed: int
) -> dict[Genotype, Scores]:
    """Return the scores of random networks of a space, which are kept in a file.

    Args:
        job: Scores them.
        evaluation: Starts the workers that they are scored on.
        file: Is read where it holds these very scores, and else written.
        networks: How many.
        seed: Of their choice and of their initial weights.

    Returns:
        Scores by canonical genotype; of those networks that have any.

    Raises:
        HwnasError: Too few of them have any.
    """
    fix = "delete it and run the same command again"
    proxy = [proxies.registry.name_of(type(job.proxy)), job.proxy]
    images = job.images.fingerprint()["sha256"]
    made_for = hashed([proxy, networks, seed, job.space.space_id, images], 16)
    record = read_json(file, {"scored": list}, fix) if file.is_file() else {}
    if record.get("made_for") != made_for:
        file.parent.mkdir(parents=True, exist_ok=True)
        found = _scored(job, evaluation, networks, seed)
        rows = [{"genotype": list(genotype), "scores": each} for genotype, each in found.items()]
        write_json_atomically(file, {"made_for": made_for, "scored": rows})
    rows = read_json(file, {"scored": list}, fix)["scored"]
    with decoding(file, fix):
        return {job.space.canonical(row["genotype"]): dict(row["scores"]) for row in rows}


def _scored(
    job: ProxyJob, evaluation: EvaluationSettings, networks: int, seed: int
) -> dict[Genotype, Scores]:
    drawn = np.unique(job.space.samples(networks, np.random.default_rng(seed)), axis=0).tolist()
    architectures = [job.space.architecture(genotype) for genotype in drawn]
    found: dict[Genotype, Scores] = {}
    failure = None
    with closing(evaluation.start(job)) as evaluator:
        evaluator.submit(
            [
                Candidate(
                    number=number,
                    genotype=each.genotype,
                    arch_id=each.arch_id,
                    seed=training_seed(seed, each.arch_id),
                )
                for number, each in enumerate(architectures)
            ]
        )
        while evaluations := evaluator.completed():
            for ended in evaluations:
                failure = ended.failure or failure
                if ended.outcome is not None:
                    found[ended.candidate.genotype] = ended.outcome.metrics
    if len(found) < LEAST_REFERENCES:
        name = proxies.registry.name_of(type(job.proxy))
        line = f"{name} has a score for {len(found)} of {len(drawn)} random networks"
        raise HwnasError(f"proxy {line} ({failure}); choose another one")
    return {each.genotype: found[each.genotype] for each in architectures if each.genotype in found}


def rank_percent(scores: Scores, references: tuple[Scores, ...]) -> float:
    """Return the share of networks that a proxy prefers to one, in percent: 0 is the best.

    The share is smoothed by a logistic kernel, as wide as Silverman's rule says, so that networks
    which are better than all `references` are still told apart.
    """
    own = list(scores)
    table = np.array([[each[name] for name in own] for each in (scores, *references)])
    values = combined(table)
    others = values[1:]
    spread = float(np.subtract(*np.quantile(others, [0.75, 0.25])))
    std = 0.9 * spread / 1.34 * len(others) ** -0.2
    width = max(std * math.sqrt(3) / math.pi, 1e-9)  # the scale of a logistic distribution
    with np.errstate(over="ignore"):
        return float(100 * expit((others - values[0]) / width).mean())
