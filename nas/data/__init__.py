"""Data sets and their three-way splits: one data set a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.core.dataset import Dataset
from nas.core.errors import ConfigError, DataError
from nas.core.registry import Registry

Labels = npt.NDArray[np.int64]
Positions = npt.NDArray[np.int64]

SPLITS = ("train", "validation", "test")

registry: Registry[Dataset] = Registry("data set", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = [
    "SPLITS",
    "StratifiedDataset",
    "component",
    "get",
    "hold_out",
    "names",
    "register",
    "registry",
]


@dataclass(frozen=True, kw_only=True)
class StratifiedDataset(Dataset):
    """Base of the data sets that are cut into splits by class where they do not bring them along.

    Attributes:
        validation_share: Share of the images for validation, where the data names none.
        test_share: Share of the images for test, where the data names none.
    """

    validation_share: float = 0.2
    test_share: float = 0.2

    def __post_init__(self) -> None:
        for name in ("validation_share", "test_share"):
            if not 0 < (share := getattr(self, name)) < 1:
                raise ConfigError(f"data.{name}", share, "a share between 0 and 1")
        if (got := self.validation_share + self.test_share) >= 1:
            raise ConfigError("data.validation_share + data.test_share", got, "less than 1")

    def three_way(
        self, pools: Mapping[str, Labels], class_names: Sequence[str], source: str
    ) -> dict[str, tuple[str, Positions]]:
        """Say for each of the three splits where its images are.

        A split that the data brings along is taken whole; one that it lacks is cut from `train`.

        Args:
            pools: Labels `(n,)` of each pool of images; `train`, and `validation`, `test` if given.
            class_names: Name of every class.
            source: What is split, for the message.

        Returns:
            The pool and the positions within it of every split.

        Raises:
            DataError: A class does not occur in every split.
        """
        total = len(pools["train"])
        train = np.arange(total)
        splits = {name: (name, np.arange(len(labels))) for name, labels in pools.items()}
        for name, share in (("test", self.test_share), ("validation", self.validation_share)):
            if name not in pools:
                size = max(len(class_names), round(share * total))
                _check_classes(pools["train"], class_names, f"{source} (train)", at_least=3)
                kept, held = hold_out(pools["train"][train], size, self.split_seed, source)
                splits[name] = ("train", train[held])
                train = train[kept]
        splits["train"] = ("train", train)
        for name in SPLITS:
            pool, positions = splits[name]
            other = "leave the class out" if pool == name else f"set a larger data.{name}_share"
            labels = pools[pool][positions]
            _check_classes(labels, class_names, f"{source} ({name} split)", other=other)
        return splits


def hold_out(labels: Labels, size: int, seed: int, source: str) -> tuple[Positions, Positions]:
    """Hold images out, every class by its share.

    Args:
        labels: `(n,)`, class of every image.
        size: How many images to hold out.
        seed: Of the draw.
        source: What the labels are of, for the message.

    Returns:
        Positions `(n - size,)` that stay and `(size,)` that are held out, ascending.

    Raises:
        ConfigError: The seed is not one that NumPy takes.
        DataError: There are too few images for such a split.
    """
    from sklearn.model_selection import train_test_split

    if not 0 <= seed < 2**32:
        raise ConfigError("data.split_seed", seed, "an integer from 0 to 4294967295")
    try:
        kept, held = train_test_split(
            np.arange(len(labels)), test_size=size, random_state=seed, stratify=labels
        )
    except ValueError as error:
        raise DataError(
            f"{source}: {size} of {len(labels)} images cannot be held out by class ({error});"
            " add images or choose other shares"
        ) from error
    return np.sort(kept), np.sort(held)


def _check_classes(
    labels: Labels,
    class_names: Sequence[str],
    source: str,
    *,
    at_least: int = 1,
    other: str = "leave the class out",
) -> None:
    """Check that there are two classes or more, each with so many images.

    `other` is what may be done instead of adding images.
    """
    if len(class_names) < 2:
        raise DataError(f"{source}: got {len(class_names)} class(es), expected 2 or more")
    counts = np.bincount(labels, minlength=len(class_names))
    rarest = int(counts.argmin())
    if counts[rarest] < at_least:
        raise DataError(
            f"{source}: class {class_names[rarest]!r} has {counts[rarest]} image(s), expected"
            f" {at_least} or more; add images of it or {other}"
        )
