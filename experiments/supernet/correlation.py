"""How inherited errors rank networks, against their own trainings, and what both cost.

Run `python experiments/supernet/correlation.py [--spaces NAME ...] [--networks N] [--seeds N]
[--strategies N]`. Of each space, random networks are trained by themselves on images of
Fashion-MNIST by the preset `fast`, and judged by supernets, all on the validation split; zero-cost
proxies score them too. Rows go to `stand_alone.csv`, `inherited.csv` and `proxies.csv`, and only
those that they lack are computed. The tables go to `correlation.md` and `cost.md`. Each process has
one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from scipy.stats import kendalltau

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _shared.markdown import markdown

import search_spaces
from nas import data
from nas.core.recipe import Recipe
from nas.core.sampling import SamplingSettings
from nas.core.seeding import training_seed
from nas.core.trial import Candidate
from nas.evaluation import proxies
from nas.evaluation.proxies import Batch, combined
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.training.job import TrainingJob

HERE = Path(__file__).resolve().parent
PROCESSES = 2
BEST = 0.2

SPACES: Mapping[str, Mapping[str, Any]] = {
    "mobilenet": {},
    "vit": {
        "patches": [4, 8],
        "widths": [32, 48, 64],
        "depths": [2, 3, 4],
        "mlp_ratios": [1.0, 2.0],
    },
    "nasbench201": {"channels": 8, "cells_per_stage": 1, "merge_equal": False},
    "darts": {"channels": [8], "cells_per_stage": [1]},
}
"""Settings of the spaces, with which a network trains in some seconds."""

STAND_ALONE: Mapping[str, Any] = {"epochs": 4, "train_samples": 6000}
SUPERNET: Mapping[str, Any] = {"epochs": 4, "train_samples": 20_000}
STRATEGIES: Mapping[str, tuple[str, ...]] = {
    "mobilenet": ("sandwich", "uniform", "shrinking"),
    "vit": ("sandwich", "uniform", "shrinking"),
    "nasbench201": ("fair", "uniform", "sandwich"),
    "darts": ("fair", "uniform", "sandwich"),
}
"""The first one is the default of the space."""

PROXY_IMAGES = 32


@dataclass(frozen=True)
class Bench:
    """A space with the images that its networks are trained on.

    Attributes:
        space: The space.
        networks: Random networks of it.
    """

    space: SearchSpace
    networks: list[tuple[int, ...]]

    def job(self, recipe: Recipe) -> TrainingJob:
        """Return the training of a network."""
        splits = _splits()
        return TrainingJob(
            space=self.space,
            train=splits.train,
            held_out=splits.validation,
            preprocessing=Preprocessing.of(splits.train),
            recipe=recipe,
        )

    def candidate(self, network: int, seed: int) -> Candidate:
        """Return a network as a candidate."""
        architecture = self.space.architecture(self.networks[network])
        return Candidate(
            number=network,
            genotype=architecture.genotype,
            arch_id=architecture.arch_id,
            seed=training_seed(seed, architecture.arch_id),
        )


@cache
def _splits() -> Any:
    return data.get("fashion_mnist").search_splits()


@cache
def bench(name: str, networks: int) -> Bench:
    """Return a space with its random networks."""
    splits = _splits()
    space = search_spaces.get(
        name,
        input_shape=splits.input_shape,
        num_classes=splits.task.output_size,
        **SPACES[name],
    )
    rng, drawn = np.random.default_rng(0), dict[tuple[int, ...], None]()
    while len(drawn) < networks:
        drawn.setdefault(tuple(space.sample(rng)))
    return Bench(space, list(drawn))


def stand_alone(name: str, networks: int, network: int, seed: int) -> list[dict[str, Any]]:
    """Train a network by itself; return its row."""
    torch.set_num_threads(1)
    own = bench(name, networks)
    recipe = Recipe.of("fast", own.space.family, augmentation={"flip": True}, **STAND_ALONE)
    candidate = own.candidate(network, seed)
    started = time.process_time()
    outcome = own.job(recipe)(candidate, math.inf)
    costs = own.space.costs([candidate.genotype]).iloc[0]
    return [
        {
            "space": name,
            "network": network,
            "seed": seed,
            "error": outcome.metrics["error"],
            "processor_s": round(time.process_time() - started, 2),
            "params_m": float(costs["params_m"]),
            "macs_m": float(costs["macs_m"]),
        }
    ]


def inherited(name: str, networks: int, strategy: str, seed: int) -> list[dict[str, Any]]:
    """Train a supernet and judge all networks by it; return their rows."""
    torch.set_num_threads(1)
    own = bench(name, networks)
    recipe = Recipe.of("full", own.space.family, augmentation={"flip": True}, **SUPERNET)
    job = own.job(recipe).of_supernet(SamplingSettings(strategy=strategy), 1024)
    started = time.process_time()
    whole = Candidate(number=0, genotype=(), arch_id="supernet", seed=seed)
    outcome = job.training(whole, math.inf)
    assert outcome.weights is not None
    training_s = time.process_time() - started
    arrays = {n: t.numpy() for n, t in safetensors.torch.load(outcome.weights).items()}
    judging, rows = job.with_weights(arrays, {}), []
    for network in range(networks):
        started = time.process_time()
        error = judging(own.candidate(network, seed), math.inf).metrics["error"]
        rows.append(
            {
                "space": name,
                "strategy": strategy,
                "seed": seed,
                "network": network,
                "error": error,
                "processor_s": round(time.process_time() - started, 2),
                "training_s": round(training_s, 1),
            }
        )
    return rows


def scored(name: str, networks: int, network: int, seed: int) -> list[dict[str, Any]]:
    """Score a network by all proxies; return a row for each of their scores."""
    torch.set_num_threads(1)
    own, splits, rows = bench(name, networks), _splits(), []
    images = splits.train.sample(PROXY_IMAGES, seed)
    pixels = Preprocessing.of(splits.train)(torch.from_numpy(images.pixels[:]))
    batch = Batch(pixels, torch.from_numpy(images.targets), splits.train.task)
    candidate = own.candidate(network, seed)
    for proxy in proxies.names():
        torch.manual_seed(candidate.seed)
        started = time.process_time()
        scores = proxies.get(proxy)(own.space.build(candidate.genotype), batch)
        seconds = round(time.process_time() - started, 3)
        rows += [
            {
                "space": name,
                "network": network,
                "seed": seed,
                "proxy": proxy,
                "term": term,
                "score": score,
                "processor_s": seconds,
            }
            for term, score in scores.items()
        ]
    return rows


def computed(
    file: Path, keys: list[str], work: Callable[..., list[dict[str, Any]]], wanted: list[Any]
) -> pd.DataFrame:
    """Return the rows of a file, to which those of `wanted` that it lacks are added."""
    known = pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=keys)
    done = set(known[keys].itertuples(index=False, name=None))
    left = [arguments for arguments in wanted if (arguments[0], *arguments[2:]) not in done]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        for future in as_completed([pool.submit(work, *arguments) for arguments in left]):
            rows = pd.DataFrame(future.result())
            known = pd.concat([known, rows], ignore_index=True) if len(known) else rows
            known.to_csv(file, index=False)
            print(rows.iloc[0].to_dict(), flush=True)
    return known


def taus(values: pd.Series, reference: pd.Series) -> tuple[float, float]:
    """Return Kendall's tau of what ranks networks with their own errors, overall and in the best.

    Args:
        values: By network; less is better.
        reference: Errors by network.
    """
    best = reference.nsmallest(math.ceil(BEST * len(reference))).index
    pairs = ((values, reference), (values[best], reference[best]))
    overall, within = (float(kendalltau(*pair).statistic) for pair in pairs)
    return overall, within


def rankings(name: str, tables: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, list[Any]]]:
    """Yield what ranks the networks of a space: a name, and the values of every seed."""
    of = {kind: table[table["space"] == name] for kind, table in tables.items()}
    for strategy in STRATEGIES[name]:
        own = of["inherited"][of["inherited"]["strategy"] == strategy]
        errors = own.pivot_table(index="network", columns="seed", values="error")
        yield f"supernet, {strategy}", [errors[seed] for seed in errors]
    first = of["stand_alone"].drop_duplicates("network").set_index("network")
    yield "parameters", [-first["params_m"]]
    yield "MACs", [-first["macs_m"]]
    for proxy, rows in of["proxies"].groupby("proxy", sort=False):
        if proxy not in ("params", "macs"):
            scores = rows.pivot_table(index="network", columns="term", values="score", sort=False)
            yield str(proxy), [pd.Series(-combined(scores.to_numpy()), scores.index)]


def correlations(name: str, tables: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, str]]:
    """Yield rows of the table of one space."""
    own = tables["stand_alone"][tables["stand_alone"]["space"] == name]
    errors = own.pivot_table(index="network", columns="seed", values="error").dropna()
    seeds = list(errors)
    ceiling = [taus(errors[a], errors[b]) for a in seeds for b in seeds if a != b]
    measured = {"another training": ceiling} if ceiling else {}
    for title, values in rankings(name, tables):
        if values:
            measured[title] = [taus(each, errors[seed]) for each in values for seed in seeds]
    for title, found in measured.items():
        overall, within = np.array(found).T
        yield {
            "space": name,
            "ranked by": title,
            "tau": f"{overall.mean():.2f}",
            "its range": f"{overall.min():.2f} to {overall.max():.2f}",
            "within the best fifth": f"{within.mean():.2f}",
            "its range there": f"{within.min():.2f} to {within.max():.2f}",
        }


def costs(name: str, tables: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Return what a space's candidates cost, in processor seconds."""
    alone, judged = (tables[kind] for kind in ("stand_alone", "inherited"))
    alone_s = alone[alone["space"] == name]["processor_s"].mean()
    own = judged[(judged["space"] == name) & (judged["strategy"] == STRATEGIES[name][0])]
    judged_s, training_s = own["processor_s"].mean(), own["training_s"].mean()
    return {
        "space": name,
        "own training, s": f"{alone_s:.1f}",
        "judged, s": f"{judged_s:.2f}",
        "supernet, s": f"{training_s:.0f}",
        "break-even, candidates": f"{training_s / (alone_s - judged_s):.0f}",
        "beyond, times as many": f"{alone_s / judged_s:.1f}",
    }


def main() -> None:
    """Compute the missing rows and write the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--spaces", nargs="*", default=list(SPACES))
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stand-alone-seeds", type=int, default=2)
    parser.add_argument("--strategies", type=int, default=3, help="how many of each space's")
    arguments = parser.parse_args()
    n, tables = arguments.networks, {}
    for name in arguments.spaces:
        every = [(name, n, network) for network in range(n)]
        seeds = range(arguments.seeds)
        tables = {
            "stand_alone": computed(
                HERE / "stand_alone.csv",
                ["space", "network", "seed"],
                stand_alone,
                [(*each, s) for s in range(arguments.stand_alone_seeds) for each in every],
            ),
            "inherited": computed(
                HERE / "inherited.csv",
                ["space", "strategy", "seed"],
                inherited,
                [
                    (name, n, strategy, s)
                    for s in seeds
                    for strategy in STRATEGIES[name][: arguments.strategies]
                ],
            ),
            "proxies": computed(
                HERE / "proxies.csv",
                ["space", "network", "seed"],
                scored,
                [(*each, 0) for each in every],
            ),
        }
    present = [name for name in SPACES if (tables["stand_alone"]["space"] == name).any()]
    ranked = pd.DataFrame([row for name in present for row in correlations(name, tables)])
    (HERE / "correlation.md").write_text(markdown(ranked) + "\n")
    cost = pd.DataFrame([costs(name, tables) for name in present])
    (HERE / "cost.md").write_text(markdown(cost) + "\n")
    print(json.dumps({"rows": {kind: len(table) for kind, table in tables.items()}}))


if __name__ == "__main__":
    main()
