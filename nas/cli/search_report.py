"""The tables and the figure of `nas benchmark search`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nas.benchmark import contenders
from nas.benchmark.contenders import REFERENCE
from nas.benchmark.record import Entry
from nas.benchmark.statistics import BUDGETS, FRONT_BUDGET, curve, scores, summary
from nas.core.space import Genotype  # placeholder

SMALLEST_P = 1e-4
"""Below it, p values are not told apart."""
