"""Networks that a search has found, beside published ones of the same measured latency.

Run `python experiments/training/published.py STUDY`, where STUDY is a verified study of
Fashion-MNIST, such as `nas search experiment=fashion_mnist` makes; the machine should do nothing
else while latencies are measured, all anew and side by side. All networks are trained by one recipe
and judged on the test split. Each published network is compared with the most accurate member of
the study's front, by the study's validation error, that is not slower. The networks go to
`published.json`, rows of trainings to `published.csv`, tables to `published.md` and
`published_margins.md`, a picture to `published.png`. Without STUDY it trains what is missing of the
networks that stand in `published.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
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


def measured(study_name: str) -> dict[str, Any]:
    """Return published networks and the members of a study's front with their latencies."""
    study = nas.open(study_name)
    front = study.pareto().reset_index(drop=True)
    settings = dict(study.record["space"])
    name = settings.pop("name")
    del settings["input_shape"], settings["num_classes"]
    found = {
        arch_id: Network(space=name, settings=settings, genotype=tuple(genotype))
        for arch_id, genotype in zip(front["arch_id"], front["genotype"], strict=True)
    }
    errors = dict(zip(front["arch_id"], front["error_final"], strict=True))
    networks = {**published(), **found}
    modules = []
    for network in networks.values():
        space, genotype = network.placed(SHAPE, CLASSES)
        modules.append(space.build(genotype).eval())
    times = devices.get("cpu").measure_many(modules, SHAPE)
    return {
        name: {
            "latency_ms": time.latency_ms,
            "error_validation": errors.get(name),
            "network": asdict(network),
        }
        for (name, network), time in zip(networks.items(), times, strict=True)
    }


def runs(networks: Mapping[str, Any], seeds: int) -> list[Run]:
    """Return the trainings of all networks."""
    return [
        Run(
            name=name,
            network=Network(**each["network"]),
            recipe=many_images(
                search_spaces.component(each["network"]["space"]).family,
                epochs=6,
                train_samples=20_000,
            ),
            seed=seed,
            judged_on="test",
        )
        for seed in range(seeds)
        for name, each in networks.items()
    ]


def margins(networks: Mapping[str, Any], rows: pd.DataFrame) -> pd.DataFrame:
    """Return what found networks are better by, in points, with deviations over seeds.

    Each published network stands beside the member of the front that is not slower and has the
    least validation error.
    """
    errors = rows.pivot_table(index="seed", columns="name", values="error")
    front = {n: each for n, each in networks.items() if each["error_validation"] is not None}
    table = []
    for name, each in networks.items():
        fast = [n for n, own in front.items() if own["latency_ms"] <= each["latency_ms"]]
        if name in front or not fast:
            continue
        found = min(fast, key=lambda n: front[n]["error_validation"])
        margin = errors[name] - errors[found]
        table.append(
            {
                "published": name,
                "its latency, ms": f"{each['latency_ms']:.3f}",
                "found": found,
                "latency, ms": f"{front[found]['latency_ms']:.3f}",
                "more accurate by, points": f"{margin.mean():.2f} ± {margin.std():.2f}",
            }
        )
    return pd.DataFrame(table)


def draw(networks: Mapping[str, Any], rows: pd.DataFrame, path: Path) -> None:
    """Draw test accuracy over latency: the found networks as a front, the published ones beside."""
    accuracy = 100 - rows.pivot_table(index="seed", columns="name", values="error")
    figure = Figure(figsize=(8.0, 5.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    kinds: dict[bool, list[str]] = {True: [], False: []}
    for name, each in networks.items():
        kinds[each["error_validation"] is not None].append(name)
    for found, colour in ((True, "#2f6db3"), (False, "#c8381f")):
        names = sorted(kinds[found], key=lambda n: networks[n]["latency_ms"])
        x = [networks[name]["latency_ms"] for name in names]
        y, std = accuracy[names].mean(), accuracy[names].std()
        form = "o-" if found else "s"
        label = "found by a search of 23 minutes" if found else "published"
        axes.errorbar(x, y, std, fmt=form, color=colour, capsize=3, label=label)
        if not found:
            for name, at, value in zip(names, x, y, strict=True):
                left = at > 1
                axes.annotate(
                    name,
                    (at, value),
                    (-8 if left else 8, -4),
                    textcoords="offset points",
                    ha="right" if left else "left",
                    fontsize=9,
                )
    axes.set_xscale("log")
    axes.set_xlabel("measured latency of one image, ms (ONNX Runtime, one thread)")
    axes.set_ylabel("accuracy on 10,000 test images, %")
    axes.set_title("Fashion-MNIST, all networks trained by one recipe, three seeds")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")
    figure.savefig(path)


def main() -> None:
    """Measure where a study is given, train what is missing and write the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", nargs="?")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    file = HERE / "published.json"
    if arguments.study:
        file.write_text(json.dumps(measured(arguments.study), indent=2) + "\n")
    networks = json.loads(file.read_text())
    rows = write_table(runs(networks, arguments.seeds), "published")
    table = markdown(margins(networks, rows))
    (HERE / "published_margins.md").write_text(table + "\n")
    draw(networks, rows, HERE / "published.png")
    print(table)


if __name__ == "__main__":
    main()
