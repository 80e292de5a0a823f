"""Attention over packed caches, on the emulator, against float64: both kernels, and every option of either."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from device.attention import Books, Case, attention_source, check, counted, run_attention

from vqcc.emulator import build

if TYPE_CHECKING:
    from pathlib import Path

    from device.attention import Answer, Fusion

DECODE = {
    "keys and values of one head": Case(),
    "one block of the grid": Case(grid=1),
    "more blocks than work": Case(grid=40, lengths=(3, 0, 33)),
    "four heads share a cache": Case(query_heads=8, rows=4),
    "three query tokens": Case(query_heads=8, rows=4, row_sets=3, query_tokens=3, lengths=(70, 0, 2)),
    "a window": Case(window=40, grid=7),
    "a window longer than sequences": Case(window=256, lengths=(70, 3, 255)),
    "rotated halves": Case(rope="half", lengths=(70, 5, 1000), grid=6),
    "rotated neighbours": Case(rope="interleaved", lengths=(70, 5, 200), window=16),
    "pages": Case(page_tokens=64, lengths=(170, 0, 33)),
    "rotated codes": Case(key_order="rotated", head_dim=128),
    "a sliding window": Case(sliding_window=20, window=8, lengths=(170, 3, 33), query_tokens=2, rows=2),
    "a sliding window inside the window": Case(sliding_window=4, window=40, lengths=(170, 3, 44)),
    "capped scores": Case(softcap=5.0),
    "bfloat16": Case(dtype="bfloat16", window=8),
    "different algorithms": Case(keys=Books(2, scope="head"), values=Books(8, 10, 2, "layer"), head_dim=128),
    "wide vectors": Case(keys=Books(16, 12, 1, "layer"), values=Books(16, 5)),
    "books in shared memory": Case(shared_entries=(256, 100)),
    "books that take turns": Case(
        shared_entries=(256, 256), take_turns=True, chunk_blocks=1, lengths=(170, 3, 99)
    ),
    "a large head": Case(head_dim=256, keys=Books(8), lengths=(40, 1, 9), rope="half"),
}
SCORE = {
    "32 groups": Case(head_dim=128),
    "32 groups, one block of the grid": Case(head_dim=128, grid=1),
    "16 groups": Case(),
    "64 groups": Case(head_dim=128, keys=Books(2), values=Books(2)),
    "16 groups of 8": Case(head_dim=128, keys=Books(8), values=Books(8)),
    "4 groups of 16": Case(keys=Books(16), values=Books(16), lengths=(170, 0, 64)),
    "two rows": Case(head_dim=128, query_heads=4, rows=2),
    "a window for teams of lanes": Case(
        head_dim=128, keys=Books(8), values=Books(8), window=40, lengths=(100, 39, 41)
    ),
    "a window for more teams, several tokens": Case(
        keys=Books(16),
        values=Books(16),
        query_heads=4,
        rows=4,
        row_sets=2,
        query_tokens=3,
        window=40,
        sliding_window=17,
        lengths=(100, 3, 41),
    ),
    "a window of a large head": Case(
        head_dim=256, keys=Books(8), values=Books(8), window=70, lengths=(150, 1)
    ),
    "four rows": Case(head_dim=128, query_heads=8, rows=4, grid=3),
    "eight rows": Case(head_dim=128, query_heads=16, rows=8, warps=2),
    "one book, pages": Case(
        head_dim=128,
        keys=Books(scope="layer"),
        values=Books(scope="layer"),
        query_heads=8,
        rows=4,
        page_tokens=64,
    ),
    "a large head": Case(head_dim=256),
    "different sizes": Case(head_dim=256, values=Books(8), stages=1),
    "a window, two query tokens": Case(head_dim=128, window=40, grid=7, query_tokens=2, rows=2),
    "a sliding window, capped": Case(head_dim=128, sliding_window=30, softcap=4.0, lengths=(200, 1, 64)),
    "bfloat16": Case(head_dim=128, dtype="bfloat16"),
    "long": Case(head_dim=128, lengths=(1500, 2, 700), grid=3),
    "codes straight to registers": Case(head_dim=128, lengths=(1500, 2, 700), grid=3, stages=0),
    "teams, straight to registers": Case(keys=Books(16), values=Books(16), lengths=(170, 0, 64), stages=0),
    "tables at 64 KB": Case(head_dim=128, tables_region=1, stages=1),
    "tables at 64 KB, stages on both sides": Case(
        head_dim=128, tables_region=1, stages=2, warps=16, lengths=(1500, 2, 700), grid=3
    ),
    "values on tensor cores": Case(head_dim=128, query_heads=8, rows=4, multiplied=True, tables_region=1),
    "values of two channels on tensor cores": Case(
        head_dim=128, query_heads=8, rows=4, multiplied=True, keys=Books(2), values=Books(2), stages=0
    ),
    "values on tensor cores, a window, two query tokens": Case(
        head_dim=128, query_heads=4, rows=4, multiplied=True, window=40, grid=7, query_tokens=2
    ),
    "values on tensor cores, pages, long": Case(
        head_dim=128, query_heads=8, rows=4, multiplied=True, page_tokens=64, lengths=(1500, 2, 700), grid=3
    ),
}


FRAGMENT = {
    "entries of 4": Case(head_dim=128, query_heads=8, rows=4),
    "entries of 4, one block of the grid": Case(head_dim=128, query_heads=8, rows=4, grid=1),
    "entries of 2": Case(head_dim=128, query_heads=8, rows=4, keys=Books(2), values=Books(2)),
    "different sizes": Case(head_dim=128, query_heads=8, rows=4, keys=Books(8), values=Books(2)),
    "eight heads share a cache": Case(head_dim=128, query_heads=16, rows=4, row_sets=2),
    "two heads share a cache": Case(head_dim=128, query_heads=4, rows=4, lengths=(40, 1, 300)),
    "one book, pages": Case(
        head_dim=128,
        keys=Books(scope="layer"),
        values=Books(scope="layer"),
        query_heads=8,
        rows=4,
        page_tokens=64,
        stages=3,
    ),
    "a window, two query tokens": Case(
        head_dim=128, query_heads=4, rows=4, window=40, grid=7, query_tokens=2, lengths=(100, 1, 39)
    ),
    "a sliding window, capped": Case(
        head_dim=128, query_heads=8, rows=4, sliding_window=30, softcap=4.0, lengths=(200, 1, 64)
    ),
    "bfloat16": Case(head_dim=128, query_heads=8, rows=4, dtype="bfloat16", stages=1),
    "64 channels": Case(head_dim=64, keys=Books(4), values=Books(2), query_heads=8, rows=4),
    "long": Case(head_dim=128, query_heads=8, rows=4, lengths=(1500, 2, 700), grid=3),
}


#: Values of 32 groups and more, and of fewer: teams of lanes have a token block each.
EXCHANGED = {
    "one group a lane": Case(head_dim=128),
    "two groups a lane": Case(head_dim=128, values=Books(2)),
    "four groups a lane": Case(head_dim=256, values=Books(2), lengths=(40, 1, 129)),
    "two teams": Case(),
    "two teams of wide vectors": Case(head_dim=128, values=Books(8), lengths=(70, 0, 33, 1, 128, 257)),
    "four teams": Case(values=Books(8), lengths=(70, 0, 33, 1, 129), grid=3),
    "four teams of wider vectors": Case(head_dim=128, values=Books(16), lengths=(170, 1, 33)),
    "eight teams": Case(values=Books(16), lengths=(300, 0, 1, 33), grid=2),
    "residual stages": Case(head_dim=128, values=Books(4, 6, 3, "layer"), lengths=(70, 1, 33)),
    "teams and residual stages": Case(head_dim=128, values=Books(8, 10, 2, "head")),
    "a window": Case(head_dim=128, window=40, grid=7),
    "teams and a window": Case(values=Books(8), window=40, grid=3, lengths=(170, 3, 44, 41)),
    "teams and nothing but a window": Case(window=256, lengths=(70, 3, 255)),
    "rotated keys": Case(values=Books(8), rope="half", lengths=(70, 5, 200), window=16),
    "pages": Case(values=Books(8), page_tokens=64, lengths=(170, 0, 33)),
    "four heads share a cache": Case(query_heads=8, rows=4, values=Books(8)),
    "a sliding window": Case(sliding_window=20, window=8, lengths=(170, 3, 33), query_tokens=2, rows=2),
    "books that take turns": Case(
        shared_entries=(256, 256), take_turns=True, chunk_blocks=1, lengths=(170, 3, 99)
    ),
}


#: Of these, those that the seeded sample of tests has.
SOON = ("one group a lane", "two teams", "residual stages", "teams and a window")


def answer_of(case: Case, cache_directory: Path, *, count: bool = False) -> Answer:
    emulated = build(attention_source(case), cache_directory=cache_directory / "emulator")
    return run_attention(case, emulated, count=count)


@pytest.mark.parametrize("name", DECODE)
def test_decoded(name: str, cache_directory: Path) -> None:
    check(DECODE[name], answer_of(DECODE[name], cache_directory))


@pytest.mark.parametrize("fusion", ["register", "shared"])
@pytest.mark.parametrize(
    "name",
    [each if each in SOON else pytest.param(each, marks=pytest.mark.full) for each in EXCHANGED],
)
def test_an_exchange_changes_no_bit(name: str, fusion: Fusion, cache_directory: Path) -> None:
    """Each sum has the same terms in the same order, whichever lane has it."""
    case = replace(EXCHANGED[name], fusion=fusion)
    answer, unexchanged = (answer_of(each, cache_directory) for each in (case, replace(case, fusion="none")))
    check(case, answer)
    np.testing.assert_array_equal(answer.outputs, unexchanged.outputs)
    np.testing.assert_array_equal(answer.log_sums, unexchanged.log_sums)


@pytest.mark.parametrize(
    ("size", "head_dim", "fusion", "shuffles", "wavefronts"),
    [
        (4, 128, "register", 3, 0),  # of CQ-2 (Table V)
        (2, 128, "register", 2 * 1, 0),  # two vectors of a lane
        (4, 64, "register", 3 / 2, 0),  # two tokens of a warp at a time
        (8, 128, "shared", 0, 8 / 2),
        (4, 128, "shared", 0, 4),
    ],
)
def test_what_an_exchange_takes(
    size: int, head_dim: int, fusion: Fusion, shuffles: float, wavefronts: float, cache_directory: Path
) -> None:
    """Warp instructions and wavefronts of a token, beside what it takes without; no two lanes meet in a bank."""
    case = Case(
        head_dim=head_dim, heads=1, query_heads=1, values=Books(size), grid=1, chunk_blocks=8, fusion=fusion
    )
    (exchanged, _), (whole, _) = (
        counted(each, cache_directory) for each in (case, replace(case, fusion="none"))
    )
    more = {name: exchanged[name] - whole[name] for name in exchanged}
    assert more["shuffles"] == shuffles
    assert more["shared_store_wavefronts"] == more["shared_store_ideal"] == wavefronts
    assert more["shared_load_wavefronts"] == more["shared_load_ideal"] == wavefronts


@pytest.mark.parametrize("name", SCORE)
def test_scored(name: str, cache_directory: Path) -> None:
    case = replace(SCORE[name], kernel="score", key_order="rotated")
    check(case, answer_of(case, cache_directory))


@pytest.mark.parametrize("name", FRAGMENT)
def test_on_tensor_cores(name: str, cache_directory: Path) -> None:
    case = replace(FRAGMENT[name], kernel="fragment", key_order="fragment")
    check(case, answer_of(case, cache_directory))


TURNED = {
    "halves": Case(head_dim=128, query_heads=4, heads=1, rows=4, rope="half", lengths=(70, 5, 1000), grid=3),
    "neighbours": Case(
        head_dim=128, query_heads=4, heads=1, rows=4, rope="interleaved", lengths=(70, 0, 300), grid=3
    ),
    "entries of two channels": Case(
        head_dim=128, query_heads=8, heads=2, rows=4, keys=Books(2), rope="half", lengths=(200, 33), stages=0
    ),
    "entries of two channels, neighbours": Case(
        head_dim=128, query_heads=3, heads=1, rows=4, keys=Books(2), values=Books(2), rope="interleaved"
    ),
    "entries of eight channels": Case(
        head_dim=128, query_heads=4, heads=1, rows=4, keys=Books(8), rope="half", lengths=(100, 1)
    ),
    "entries of eight channels, neighbours": Case(
        head_dim=128, query_heads=4, heads=1, rows=4, keys=Books(8), rope="interleaved", lengths=(100, 1)
    ),
    "a small head": Case(
        head_dim=64, query_heads=4, heads=1, rows=4, keys=Books(2), values=Books(2), rope="half", window=40
    ),
    "a small head, neighbours": Case(
        head_dim=64,
        query_heads=4,
        heads=1,
        rows=4,
        keys=Books(2),
        values=Books(2),
        rope="interleaved",
        window=40,
    ),
    "one query, a window, pages": Case(
        head_dim=128,
        query_heads=2,
        heads=2,
        rows=4,
        rope="half",
        window=40,
        page_tokens=64,
        lengths=(300, 41, 0),
    ),
    "neighbours in a window": Case(
        head_dim=128, query_heads=4, heads=2, rows=4, rope="interleaved", window=70, lengths=(300, 41, 60)
    ),
    "tokens, a sliding window, bfloat16": Case(
        head_dim=128,
        query_heads=4,
        heads=2,
        rows=4,
        rope="half",
        query_tokens=3,
        sliding_window=50,
        softcap=5.0,
        dtype="bfloat16",
        window=20,
        row_sets=2,
        lengths=(300, 90),
    ),
}


@pytest.mark.parametrize("name", TURNED)
def test_rotated_keys_on_tensor_cores(name: str, cache_directory: Path) -> None:
    case = replace(TURNED[name], kernel="fragment", key_order="fragment")
    check(case, answer_of(case, cache_directory))


def test_both_give_the_same_for_the_same_cache(cache_directory: Path) -> None:
    """One layout serves kernels that decode and kernels over score tables."""
    case = Case(head_dim=128, key_order="rotated", query_heads=4, rows=2)
    decoded = answer_of(case, cache_directory)
    scored = answer_of(replace(case, kernel="score"), cache_directory)
    np.testing.assert_array_equal(decoded.exact.outputs, scored.exact.outputs)
    assert np.abs(decoded.outputs - scored.outputs).max() < 4e-3


@pytest.mark.parametrize(("rows", "key_wavefronts"), [(1, 1), (2, 1), (4, 2)])
def test_no_two_lanes_meet_in_a_bank(rows: int, key_wavefronts: int, cache_directory: Path) -> None:
    """A token's look-ups of 32 groups: a wavefront of 4-byte scores or two of 8, two of values; and codes, weights."""
    case = Case(
        head_dim=128,
        query_heads=rows,
        heads=1,
        rows=rows,
        kernel="score",
        key_order="rotated",
        grid=1,
        lengths=(1024,),
    )
    emulated = build(attention_source(case), cache_directory=cache_directory / "emulator")
    launches = [
        run_attention(replace(case, lengths=(length,)), emulated, count=True).counters
        for length in (1024, 2048)
    ]
    loads, ideal = (
        (getattr(launches[1], name) - getattr(launches[0], name)) / 1024
        for name in ("shared_load_wavefronts", "shared_load_ideal")
    )
    assert loads == ideal
    codes, weights = (
        0.5,
        {1: 0.5, 2: 1.0, 4: 2.0}[rows],
    )  # the emulator counts 16 bytes of one address as four
    assert loads == key_wavefronts + 2 + codes + weights


def test_values_on_tensor_cores_meet_in_no_bank(cache_directory: Path) -> None:
    """Two wavefronts of scores and two of values, those of codes, and eight loads of weights for a token block."""
    case = Case(
        head_dim=128, query_heads=4, heads=1, rows=4, kernel="score", key_order="rotated", grid=1, multiplied=True,
        tables_region=1, stages=1, lengths=(1024,),
    )  # fmt: skip
    counts, _ = counted(case, cache_directory)
    assert counts["shared_load_wavefronts"] == counts["shared_load_ideal"] == 2 + 2 + 0.5 + 8 * 4 / 32
    assert counts["tensor_multiplies"] == 1


@pytest.mark.parametrize(
    ("rope", "size", "head_dim"),
    [
        ("half", 2, 128),
        ("half", 4, 128),
        ("half", 8, 128),
        ("interleaved", 2, 128),
        ("interleaved", 4, 128),
        ("interleaved", 8, 128),
        ("half", 4, 64),
        ("interleaved", 4, 64),
    ],
)
def test_rotated_keys_meet_in_no_bank(rope: str, size: int, head_dim: int, cache_directory: Path) -> None:
    """Entries, their rotations and queries as operands."""
    case = Case(
        head_dim=head_dim, query_heads=4, heads=1, rows=4, kernel="fragment", key_order="fragment", grid=1,
        keys=Books(size), values=Books(head_dim // 32), rope=rope, lengths=(1024,),
    )  # fmt: skip
    counts, _ = counted(case, cache_directory)
    assert counts["shared_load_wavefronts"] == counts["shared_load_ideal"]


@pytest.mark.parametrize(("size", "wavefronts"), [(2, 4), (4, 4), (8, 4)])
def test_operands_meet_in_no_bank(size: int, wavefronts: int, cache_directory: Path) -> None:
    """A token's look-ups of 128 channels: two wavefronts of keys and two of values, whatever the entries' size."""
    values = Books(min(size, 4))
    case = Case(
        head_dim=128, query_heads=4, heads=1, rows=4, kernel="fragment", key_order="fragment", grid=1,
        keys=Books(size), values=values, lengths=(1024,),
    )  # fmt: skip
    emulated = build(attention_source(case), cache_directory=cache_directory / "emulator")
    launches = [
        run_attention(replace(case, lengths=(length,)), emulated, count=True).counters
        for length in (1024, 2048)
    ]
    loads, ideal, multiplies = (
        (getattr(launches[1], name) - getattr(launches[0], name)) / 1024
        for name in ("shared_load_wavefronts", "shared_load_ideal", "tensor_multiplies")
    )
    assert loads == ideal
    codes = (128 / size + 128 / values.size) / 128
    weights = 2 * 4 * 4 / 32  # two loads of 16 bytes for eight tokens
    scores = 4 / 32  # on their way to the lanes of their tokens
    assert loads == wavefronts + codes + weights + scores
    assert multiplies == (3 if size == 2 else 2)  # keys with eight turns take two for one
