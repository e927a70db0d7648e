"""Trains a network for a step in a process of its own; prints estimated and measured bytes.

The measured bytes are what the peak of resident memory grows by beyond that of a step on few
images, which loads all the code; so the estimate is the difference of two estimates too.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import torch

import search_spaces
from nas.core.dataset import Examples
from nas.core.recipe import Recipe
from nas.devices.measuring.resources import high_water_mb
from nas.network.trained import Preprocessing
from nas.tasks.classification import Classification
from nas.training.memory import training_bytes
from nas.training.trainer import train

FEW = 2


def main(space_name: str, side: int, batch: int, compute: dict[str, object]) -> None:
    torch.set_num_threads(1)
    space = search_spaces.get(space_name, input_shape=(3, side, side), num_classes=10)
    recipe = Recipe.of(epochs=1, batch_size=batch, compute=compute, augmentation={"flip": False})
    pixels = np.zeros((batch, 3, side, side), np.uint8)
    labels = np.arange(batch) % 10
    images = Examples(pixels, labels, Classification(class_names=tuple("abcdefghij")))
    network = space.build(space.canonical([0] * len(space.genes)))
    few = replace(recipe, batch_size=FEW, compute=replace(recipe.compute, accumulate=1))
    estimates = [training_bytes(network, r, space.input_shape) for r in (few, recipe)]
    preprocessing = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, image_size=(side, side))
    train(network, images.take(np.arange(FEW)), few, preprocessing)
    # Not `ru_maxrss`, which a process takes over from the one that has started it.
    before_mb = high_water_mb()
    train(network, images, recipe, preprocessing)
    after_mb = high_water_mb()
    assert before_mb is not None
    assert after_mb is not None
    measured = (after_mb - before_mb) * 1e6
    json.dump({"estimated": estimates[1] - estimates[0], "measured": measured}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]))
