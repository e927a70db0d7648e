"""Which channels stay: by what they add to the following layers, by magnitude, at random.

Run `python experiments/compression/importance.py [--seeds N]`. Of ResNet-18 and a vision
transformer three quarters and half of the channels of all layers stay; the networks are judged on
validation images without any training, with statistics and biases corrected. Rows go to
`importance.csv`, the table to `importance.md`; what is there is not done again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import pandas as pd
import torch
from base_networks import folder_of, space_of
from recipes import append_row, compressed, genotype_of, markdown, mean_and_deviation, splits

from nas.compression.base import Base
from nas.compression.channels import Channels
from nas.compression.importance import importance

HERE = Path(__file__).resolve().parent
IMAGES = 5000
SHARES = (0.75, 0.5)
Scores = Mapping[int, torch.Tensor]


def magnitude(base: Base, channels: Channels) -> Scores:
    """Return the sum of squares of the weights that make a channel (Li et al., ICLR 2017)."""
    groups = channels.removable()
    scores = {number: torch.zeros(group.size) for number, group in groups.items()}
    for layer in base.layers:
        if layer.has_weights:
            made = base.state(layer.path)["weight"].square().flatten(1).sum(1)
            for part in channels.written[layer.name]:
                number, size = channels.number(part), channels.group(part).size * part.repeat
                if number in groups:
                    scores[number] += made[:size].view(-1, part.repeat).sum(1)
                made = made[size:]
    return scores


def random(base: Base, channels: Channels) -> Scores:
    """Return random numbers."""
    del base
    generator = torch.Generator().manual_seed(0)
    groups = channels.removable().items()
    return {number: torch.rand(group.size, generator=generator) for number, group in groups}


def mean_square(base: Base, channels: Channels) -> Scores:
    """Return what channels add where means are not restored."""
    with mock.patch("nas.compression.importance._rectified", return_value=set()):
        return importance(base, channels)


WAYS: Mapping[str, Callable[[Base, Channels], Scores]] = {
    "what it adds": importance,
    "mean square": mean_square,
    "magnitude": magnitude,
    "random": random,
}


def main() -> None:
    """Do what is missing and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    seeds, file = parser.parse_args().seeds, HERE / "importance.csv"
    key = ["network", "by", "kept", "seed"]
    known = pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=key)
    done = set(known[key].itertuples(index=False, name=None))
    judged = splits().validation.drawn(IMAGES, 0)
    for seed in range(seeds):
        for name in ("resnet18", "transformer"):
            for way, function in WAYS.items():
                with mock.patch("search_spaces.compressed.importance", function):
                    space = space_of(
                        folder_of(name, seed), channels=(1.0, *SHARES), precisions=("fp32",)
                    )
                    for share in SHARES:
                        if (name, way, share, seed) not in done:
                            genotype = genotype_of(space, {"keep": share})
                            _, facts = compressed(space, genotype, seed=seed, held_out=judged)
                            row = dict(zip(key, (name, way, share, seed), strict=True))
                            append_row(file, {**row, "error": facts["error"]})
    groups = pd.read_csv(file).groupby(["network", "kept", "by"])["error"]
    cells = pd.Series(mean_and_deviation(groups, digits=1), index=groups.mean().index)
    text = pd.DataFrame({way: cells.xs(way, level="by") for way in WAYS})
    (HERE / "importance.md").write_text(markdown(text.reset_index()) + "\n")
    print(markdown(text.reset_index()))


if __name__ == "__main__":
    main()
