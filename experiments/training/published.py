"""Networks that a search has found, beside published ones of the same measured latency.

Run `python experiments/training/published.py STUDY`, where STUDY is a verified study of
Fashion-MNIST, such as `nas search experiment=fashion_mnist` makes; the machine should do nothing
else while latencies are measured. For each published network it takes the most accurate member of
the study's front, by validation error, that is not slower, all latencies being measured anew, side
by side. All are trained by one recipe and judged on the test split. The networks go to
`published.json`, rows of trainings to `published.csv`, tables to `published.md` and
`published_margins.md`. Without STUDY it trains what is missing of the networks that stand in
`published.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from networks import many_images
from trainings import Network, Run, markdown, write_table

import nas
import search_spaces
from nas import devices

HERE = Path(__file__).resolve().parent
SHAPE, CLASSES = (1, 28, 28), 10


def published() -> dict[str, Network]:
    """Return published networks for small grey images, by name."""
    networks = {}
    for layout, name in (
        ("mobilenet_v2", "MobileNetV2"),
        ("mobilenet_v3_small", "MobileNetV3-Small"),
    ):
        plain = search_spaces.get(
            "mobilenet", input_shape=SHAPE, num_classes=CLASSES, layout=layout
        )
        genotype = plain.references()[layout]
        networks[name] = Network(space="mobilenet", settings={"layout": layout}, genotype=genotype)
        if layout == "mobilenet_v3_small":
            settings = {"layout": layout, "stem_stride": 1}
            networks[f"{name}, stem of stride 1"] = Network(
                space="mobilenet", settings=settings, genotype=genotype
            )
    networks["DeiT-Ti, patches of 8 of 32 pixels"] = Network(
        space="vit",
        settings={
            "resolutions": [32],
            "patches": [8],
            "stems": ["patch"],
            "widths": [192],
            "depths": [12],
            "heads": [3],
            "mlp_ratios": [4.0],
            "poolings": ["token"],
        },
    )
    return networks


def chosen(study_name: str) -> dict[str, Any]:
    """Return published networks, each with the member of a study's front that stands beside it."""
    study = nas.open(study_name)
    front = study.pareto().reset_index(drop=True)
    settings = dict(study.record["space"])
    name = settings.pop("name")
    del settings["input_shape"], settings["num_classes"]
    members = [
        Network(space=name, settings=settings, genotype=tuple(genotype))
        for genotype in front["genotype"]
    ]
    known = published()
    modules = []
    for network in [*known.values(), *members]:
        space, genotype = network.placed(SHAPE, CLASSES)
        modules.append(space.build(genotype).eval())
    measured = devices.get("cpu").measure_many(modules, SHAPE)
    times = [each.latency_ms for each in measured]
    front["ms"] = times[len(known) :]
    pairs: dict[str, Any] = {}
    for (name, network), latency_ms in zip(known.items(), times, strict=False):
        pairs[name] = {"latency_ms": latency_ms, "network": asdict(network)}
        fast = front[front["ms"] <= latency_ms]
        if len(fast):
            best = int(fast["error_final"].idxmin())
            pairs[name]["found"] = {
                "arch_id": front["arch_id"][best],
                "latency_ms": float(front["ms"][best]),
                "network": asdict(members[best]),
            }
    return pairs


def runs(pairs: Mapping[str, Any], seeds: int) -> list[Run]:
    """Return the trainings of all networks, each once."""
    networks: dict[str, Any] = {}
    for name, pair in pairs.items():
        networks[name] = pair["network"]
        if "found" in pair:
            networks[pair["found"]["arch_id"]] = pair["found"]["network"]
    return [
        Run(
            name=name,
            network=Network(**network),
            recipe=many_images(
                search_spaces.component(network["space"]).family, epochs=6, train_samples=20_000
            ),
            seed=seed,
            judged_on="test",
        )
        for seed in range(seeds)
        for name, network in networks.items()
    ]


def margins(pairs: Mapping[str, Any], rows: pd.DataFrame) -> pd.DataFrame:
    """Return what the found networks are better by, in points, with deviations over seeds."""
    errors = rows.pivot_table(index="seed", columns="name", values="error")
    table = []
    for name, pair in pairs.items():
        if (found := pair.get("found")) is None:
            continue
        margin = errors[name] - errors[found["arch_id"]]
        table.append(
            {
                "published": name,
                "its latency, ms": f"{pair['latency_ms']:.3f}",
                "found": found["arch_id"],
                "latency, ms": f"{found['latency_ms']:.3f}",
                "more accurate by, points": f"{margin.mean():.2f} ± {margin.std():.2f}",
            }
        )
    return pd.DataFrame(table)


def main() -> None:
    """Measure where a study is given, train what is missing and write the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", nargs="?")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    file = HERE / "published.json"
    if arguments.study:
        file.write_text(json.dumps(chosen(arguments.study), indent=2) + "\n")
    pairs = json.loads(file.read_text())
    table = markdown(margins(pairs, write_table(runs(pairs, arguments.seeds), "published")))
    (HERE / "published_margins.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
