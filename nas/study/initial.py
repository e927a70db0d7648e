"""The weights that the networks of a study begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from nas.core.errors import HwnasError
from nas.core.recipe import Recipe
from nas.core.task import Task
from nas.network.inheritance import PretrainedWeights
from nas.network.space import SearchSpace
from nas.study.bases import SETTING
from search_spaces.pretrained import load_member

SAMPLES = 8
"""Random networks from which it is said how much of a network is inherited."""


def check_unchanged(
    known: Mapping[str, Mapping[str, str]], sources: Mapping[str, Mapping[str, str]]
) -> None:
    """Check that the weights in a folder are those that a study began with.

    Args:
        known: `PretrainedWeights.source` as the study recorded it, by the setting that names it.
        sources: The same of the weights that lie there now.

    Raises:
        HwnasError: They have changed.
    """
    for setting, source in sources.items():
        before = known.get(setting, source)
        # The folder of a base is named by its weights.
        is_base = setting == SETTING
        same = {**before, "folder": ""} == {**source, "folder": ""}
        if not same and (is_base or before["folder"] == source["folder"]):
            of = "the base" if is_base else source["folder"]
            line = f"{setting}: the network or weights of {of} have changed"
            fix = "restore them, or give the new study another name"
            raise HwnasError(f"{line} since the study began; {fix}")


def initial_weights(
    recipe: Recipe, section: str, space: SearchSpace, task: Task, say: Callable[[str], None]
) -> PretrainedWeights | None:
    """Return the weights that a recipe names, and say how they fit; `None` where it names none.

    Args:
        recipe: How networks are trained.
        section: Where the recipe is set, for messages.
        space: Of the networks.
        task: Whose outputs they have.
        say: Called with one line.

    Raises:
        HwnasError: Nothing that can be read lies there, or its network is not one of the space.
    """
    if recipe.init is None:
        return None
    folder = Path(recipe.init).expanduser()
    try:
        found = load_member(folder, space)
    except HwnasError as error:
        raise HwnasError(f"{section}.recipe.init: {error}") from error
    weights = PretrainedWeights(
        network=found.network,
        outputs=found.outputs == task.output_names,
        source={"folder": str(folder), "sha256": found.sha256},
    )
    notes = list(found.notes)
    if not weights.outputs:
        notes.append("its classes differ, so that the last layer keeps its random weights")
    before, now = found.space.input_shape, space.input_shape
    if before != now:
        sizes = " and ".join("x".join(map(str, shape)) for shape in (before, now))
        notes.append(f"its images differ, {sizes}: see docs/training.md")
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(SAMPLES)]
    share = np.mean([weights.inherited_by(space.build(each), each) for each in drawn])
    fits = f"random networks inherit {share:.0%} of their parameters"
    say(f"{section}.recipe.init={folder}: " + "; ".join([fits, *notes]))
    return weights
