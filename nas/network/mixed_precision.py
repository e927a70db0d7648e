"""Search spaces whose networks have a precision for each of their stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nas.core.errors import ConfigError
from nas.core.measurement import FP32
from nas.core.space import Gene
from nas.network.blocks import Choices
from nas.network.compact import PRECISIONS
from nas.network.space import SearchSpace


@dataclass(frozen=True, kw_only=True)
class MixedPrecisionSpace(SearchSpace):
    """A space with a gene for the precision of every stage, where there are several to choose from.

    Attributes:
        precisions: What a stage may compute in; see `nas.network.compact.PRECISIONS`.
    """

    precisions: tuple[str, ...] = (FP32,)

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        precisions = tuple(self.precisions)
        object.__setattr__(self, "precisions", precisions)
        distinct = len(set(precisions)) == len(precisions) > 0
        if not distinct or not set(PRECISIONS).issuperset(precisions):
            expected = f"distinct ones of {', '.join(PRECISIONS)}"
            raise ConfigError("search_space.precisions", list(precisions), expected)

    def precision_genes(self, stage: str) -> list[Gene]:
        """Return the gene of a stage; none where there is nothing to choose."""
        if len(self.precisions) == 1:
            return []
        return [Gene(f"{stage}.precision", self.precisions, ordinal=False)]

    def in_precision(self, stage: str, chosen: Choices) -> dict[str, Any]:
        """Return the arguments of a block by which its layers compute in the stage's precision."""
        [precision, *others] = self.precisions
        if others:
            precision = chosen[f"{stage}.precision"]
        return {} if precision == FP32 else {"precision": precision}
