"""Wavefronts: what bank conflicts cost the look-ups of a warp (VQ-LLM, Sec. III-B).

Shared memory answers with one 4-byte word of each of 32 banks at a time, a wavefront; lanes that read the same word
share it. A warp's loads of 8 bytes a lane go in two phases of 16 lanes, of 16 bytes in four of 8. Look-ups are
random, so the expected number of wavefronts is that of balls in bins, where balls in one cell of a bin count once.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "WIDEST_LOAD",
    "copied_wavefronts",
    "count_wavefronts",
    "lanes_per_phase",
    "uniform_wavefronts",
    "weighted_wavefronts",
]

WARP_SIZE = 32
BANKS = 32
BANK_BYTES = 4
#: The widest load of a lane, in bytes.
WIDEST_LOAD = 16
#: Where the rest of a sum over ever rarer conflicts no longer matters.
NEGLIGIBLE = 1e-7
#: Chance that a lane of a phase hits a cell, below which cells are not told apart.
RARE = 0.02


def count_wavefronts(offsets: Sequence[int | None], load_bytes: int) -> int:
    """Wavefronts of one load of a warp: byte offset of each lane, None where it takes no part.

    Offsets are multiples of `load_bytes`, which is at most 16.
    """
    lanes = lanes_per_phase(load_bytes)
    total = 0
    for first in range(0, len(offsets), lanes):
        words = {
            word
            for offset in offsets[first : first + lanes]
            if offset is not None
            for word in range(offset // BANK_BYTES, (offset + load_bytes - 1) // BANK_BYTES + 1)
        }
        total += max(Counter(word % BANKS for word in words).values(), default=0)
    return total


@lru_cache(maxsize=4096)
def uniform_wavefronts(entries: int, entry_bytes: int, active: float = 1.0) -> float:
    """Expected wavefronts of one look-up of a warp in a table of `entries` equally frequent entries.

    Exact, if the entries fill whole words. An entry takes `entry_bytes`, a power of two, and is read by loads of at
    most 16 bytes. Each lane takes part with probability `active`: the others look up entries that are kept elsewhere.
    Raises ValueError for sizes below 1.
    """
    _check(entries, entry_bytes)
    cells, groups, lanes, loads = _geometry(entries, entry_bytes)
    per_phase = _expected_maximum(cells, groups, lanes, active)
    return loads * (WARP_SIZE // lanes) * per_phase


@lru_cache(maxsize=4096)
def copied_wavefronts(entries: int, entry_bytes: int, copies: int) -> float:
    """Expected wavefronts of one look-up of a warp, where lane l looks up copy l % `copies` of an entry.

    Copies are neighbours. Where they fill all banks, lanes of a phase never meet; else the mean over drawn look-ups,
    the same ones every time.
    """
    _check(entries, entry_bytes)
    load_bytes = min(entry_bytes, WIDEST_LOAD)
    loads = entry_bytes // load_bytes
    if copies * entry_bytes >= BANKS * BANK_BYTES:
        return float(loads * WARP_SIZE // lanes_per_phase(load_bytes))
    source = random.Random(0)  # noqa: S311  (a fixed sequence is what is wanted)
    drawn = 200
    total = sum(
        count_wavefronts(
            [
                (int(source.random() * entries) * copies + lane % copies) * entry_bytes
                for lane in range(WARP_SIZE)
            ],
            load_bytes,
        )
        for _ in range(drawn)
    )
    return loads * total / drawn


def weighted_wavefronts(shares: Sequence[float], entry_bytes: int, books: int = 1) -> float:
    """Expected wavefronts of one look-up of a warp, by the share of look-ups of each entry of the table, in order.

    Shares add up to at most 1; the rest are look-ups of entries that are kept elsewhere. Lanes whose loads go together
    are dealt out to `books` tables that begin in one bank and have these shares each. Banks are taken as
    independent, which is within 2 % of the truth. Raises ValueError for no entries or shares that are none.
    """
    _check(len(shares), entry_bytes)
    if min(shares) < 0 or sum(shares) > 1 + 1e-6:
        raise ValueError("shares of look-ups are not negative and add up to at most 1")
    cells, groups, lanes, loads = _geometry(len(shares), entry_bytes)
    per_cell = -(-len(shares) // cells)
    if per_cell > 1:
        shares = [math.fsum(shares[cell * per_cell : (cell + 1) * per_cell]) for cell in range(cells)]
    own = max(1, lanes // books)  # of each table
    bins = [_distinct(tuple(shares[group::groups]) * books, own, lanes) for group in range(groups)]
    return loads * (WARP_SIZE // lanes) * _expected_maximum_of(bins)


def _check(entries: int, entry_bytes: int) -> None:
    if entries < 1 or entry_bytes < 1 or entry_bytes & (entry_bytes - 1):
        raise ValueError(
            f"a table of {entries} entries of {entry_bytes} bytes: a power of two, and at least one"
        )


def lanes_per_phase(load_bytes: int) -> int:
    """Neighbouring lanes whose loads of so many bytes go together."""
    return WARP_SIZE * BANK_BYTES // max(BANK_BYTES, load_bytes)


def _geometry(entries: int, entry_bytes: int) -> tuple[int, int, int, int]:
    """Cells that are read as a whole, groups of banks that they lie in, lanes of a phase, loads of a look-up.

    A cell is a word or what one load reads. Entries of several loads leave a load only some of the groups.
    """
    load = min(max(entry_bytes, BANK_BYTES), WIDEST_LOAD)
    loads = -(-entry_bytes // WIDEST_LOAD)
    cells = -(-entries * min(entry_bytes, BANK_BYTES) // BANK_BYTES)
    groups = max(1, BANKS * BANK_BYTES // load // loads)
    return cells, groups, lanes_per_phase(load), loads


def _expected_maximum(cells: int, groups: int, lanes: int, active: float) -> float:
    """E of the most distinct cells that `lanes` lanes hit in any group; cell c lies in group c % groups.

    Lanes hit cells of a group with at most t distinct ones in sum_j<=t C(cells, j) (e^x - 1)^j ways, as the
    exponential generating function of the number of lanes; groups multiply.
    """
    inverse_factorials = [1 / math.factorial(degree) for degree in range(lanes + 1)]
    hit = [0.0, *inverse_factorials[1:]]
    idle = [(1 - active) ** degree * each for degree, each in enumerate(inverse_factorials)]
    scale = [(active / cells) ** degree for degree in range(lanes + 1)]
    large, small = -(-cells // groups), cells // groups
    count_large = cells - small * groups or groups
    power = [1.0] + [0.0] * lanes
    ways = {size: [0.0] * (lanes + 1) for size in {large, small}}
    expected = 0.0
    for most in range(min(large, lanes) + 1):
        power = _product(power, hit) if most else power
        for size, polynomial in ways.items():
            factor = float(math.comb(size, most))
            ways[size] = [a + factor * b for a, b in zip(polynomial, power, strict=True)]
        all_groups = _product(_power(ways[large], count_large), _power(ways[small], groups - count_large))
        hits = [a * b for a, b in zip(all_groups, scale, strict=True)]
        below = math.factorial(lanes) * _product(hits, idle)[lanes]
        expected += max(0.0, 1 - below)
        if 1 - below < NEGLIGIBLE:
            break
    return expected


def _expected_maximum_of(bins: Sequence[Sequence[float]]) -> float:
    """E of the most cells hit in any of independent bins, from each bin's chances that 0, 1, ... of its are hit."""
    at_most = [0.0] * len(bins)
    expected = 0.0
    for chances in zip(*bins, strict=True):
        at_most = [so_far + chance for so_far, chance in zip(at_most, chances, strict=True)]
        expected += max(0.0, 1 - math.prod(at_most))
        if min(at_most) > 1 - NEGLIGIBLE / len(bins):
            break
    return expected


def _distinct(shares: Sequence[float], lanes: int, most: int) -> list[float]:
    """Chances that 0, 1, ... `most` of the cells are hit, each by `lanes` lanes as often as its share says.

    Rare cells are taken together: how many of them are hit is nearly Poisson.
    """
    rare = RARE / lanes
    rate = lanes * math.fsum(share + share * share / 2 for share in shares if share < rare)
    chances = [math.exp(-rate) * rate**count / math.factorial(count) for count in range(most + 1)]
    for share in shares:
        if share >= rare:
            hit = 1 - (1 - share) ** lanes
            for count in range(most, 0, -1):
                chances[count] += (chances[count - 1] - chances[count]) * hit
            chances[0] *= 1 - hit
    return chances


def _power(polynomial: list[float], exponent: int) -> list[float]:
    result = [1.0] + [0.0] * (len(polynomial) - 1)
    while exponent:
        if exponent & 1:
            result = _product(result, polynomial)
        exponent >>= 1
        if exponent:
            polynomial = _product(polynomial, polynomial)
    return result


def _product(left: list[float], right: list[float]) -> list[float]:
    """Product of two polynomials, cut at their common length."""
    result = [0.0] * len(left)
    for i, factor in enumerate(left):
        if factor:
            for j in range(len(left) - i):
                result[i + j] += factor * right[j]
    return result
