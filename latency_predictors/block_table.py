"""A latency for each block: the look-up table of ProxylessNAS and Once-for-All.

(Cai et al., ICLR 2019 and 2020.) There every block is measured by itself; here the table is learned
from whole networks, so that it holds what a block costs in its place. Its corrections let blocks
of one kind learn from each other; without them every block is a number of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from latency_predictors import register
from latency_predictors.calibration.parts import blocks
from latency_predictors.calibration.summed import PartsSettings


@register("block_table")
@dataclass(frozen=True, kw_only=True)
class BlockTableSettings(PartsSettings):
    """Settings of the block table; see `PartsSettings`."""

    registered = "block_table"
    table = staticmethod(blocks)
