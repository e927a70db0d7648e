from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("syne_tune", reason="the extra `peers` is not installed")

from peers.syne_tune_mo_rea import corrected_priority


def test_the_corrected_priority_is_a_place_for_every_element() -> None:
    # By hand: rows 1, 2 and 4 are the front, then 0, then 3.
    points = np.array([[2.0, 2.0], [0.0, 2.0], [1.0, 1.0], [3.0, 3.0], [2.0, 0.0]])
    places = corrected_priority()(points)
    # The smallest error comes first, then the point of the front that is furthest from it.
    assert places.tolist() == [3, 0, 2, 4, 1]
