"""The order of a row's codes in a bucket: eight lanes that read entries together meet in as few banks as can be.

A phase is eight lanes of a warp whose entries are read at once: one wavefront if they lie in different groups of four
banks, which is the case if their numbers have different remainders, their **classes**. Which of its codes a row has at
which step is free. It is a colouring of the edges between rows and classes by steps; that of the fewest conflicts is
found well enough by taking, step by step and row by row, the class that the row has most of left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CLASSES", "order_codes"]

#: Groups of four banks, and lanes of a phase.
CLASSES = 8
#: Of a key, the bits that hold the class: the rest is how many codes of it are left.
_CLASS_BITS = 3


def order_codes(
    counts: NDArray[np.int64], steps: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Which of its codes each lane of each phase has at each step, and a class that no code of the phase has there.

    `counts` [phases, lanes, classes] are codes by class, `steps` [phases] falls, and holds each lane's codes. Codes are
    numbered class by class: int32 [phases, steps, lanes], -1 where a lane has none. The class, uint8 [phases, steps],
    means something only where a lane has none.
    """
    phases = len(counts)
    most = int(steps[0]) if phases else 0
    # Class-major: a maximum over classes is then one over long rows.
    left = np.ascontiguousarray(counts.transpose(1, 2, 0)).astype(np.int16)
    following = (np.cumsum(counts, axis=2) - counts).transpose(1, 2, 0).astype(np.int32)
    spare = (steps[:, None] - counts.sum(axis=2)).T.astype(np.int32)
    chosen = np.full((phases, most, CLASSES), -1, np.int32)
    free = np.zeros((phases, most), np.uint8)
    for step in range(most):
        active = int(np.searchsorted(-steps, -step, side="left"))
        taken = np.zeros((CLASSES, active), np.int16)
        for turn in range(CLASSES):
            lane = (step + turn) % CLASSES
            which, classes = _choose(left[lane, :, :active], taken, spare[lane, :active])
            taken[classes, which] += 1
            left[lane, classes, which] -= 1
            chosen[which, step, lane] = following[lane, classes, which]
            following[lane, classes, which] += 1
        free[:active, step] = (taken == 0).argmax(axis=0)
    return chosen, free


def _choose(
    left: NDArray[np.int16], taken: NDArray[np.int16], spare: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Phases in which a lane has a code at this step, and its class; `spare` falls where it has none.

    A class that none has taken, if the lane has a code of one; else no code while there are steps to spare; else the
    class that fewest have taken.
    """
    numbers = np.arange(CLASSES, dtype=np.int16)[:, None]
    keys = np.where(taken == 0, left, 0) << _CLASS_BITS | numbers
    best = keys.max(axis=0)
    found = best >= CLASSES
    classes = (best & (CLASSES - 1)).astype(np.int64)
    (missing,) = np.nonzero(~found)
    spared = spare[missing] > 0
    spare[missing[spared]] -= 1
    late = missing[~spared]
    if len(late):
        remaining = left[:, late]
        cost = np.where(remaining > 0, taken[:, late], CLASSES + 1)
        classes[late] = cost.argmin(axis=0)
        found[late] = True
    (which,) = np.nonzero(found)
    return which, classes[which]
