"""How well a middle is known, when figures come in groups that have something in common.

All pairs after one start share what luck these processes had with their memory, so a pair more says less than
a start more. The interval is got by drawing whole groups again with replacement (the cluster bootstrap;
Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). SciPy's `bootstrap` could
be brought to do the same, and is in no environment that the tests of benchmarks have.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from typing import Final

DRAWS: Final = 4000


def of_middle(groups: Sequence[Sequence[float]], share: float = 0.95) -> tuple[float, float]:
    """The interval in which the median of all figures lies in `share` of the draws.

    Raises `ValueError` on no figures. The same figures always give the same interval.
    """
    if not any(groups):
        raise ValueError("no figures, no middle")
    chance = random.Random(0)
    middles = sorted(
        statistics.median([figure for group in chance.choices(groups, k=len(groups)) for figure in group])
        for _ in range(DRAWS)
    )
    left_out = round(DRAWS * (1 - share) / 2)
    return middles[left_out], middles[-1 - left_out]
