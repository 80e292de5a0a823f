"""Table V's column of CQ-2 for an RTX 4090, from the passes: what limits or favours each optimization of attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from caches import make_plan, make_problem

from vqcc.levels import STRATEGIES

if TYPE_CHECKING:
    from vqcc.plan import CachePlan

#: Llama-7B: 32 heads of 128 channels (Sec. VII-A).
LLAMA = {"q_heads": 32, "kv_heads": 32, "head_dim": 128}
KIB = 1024


def planned(level: str, algorithm: str = "cq-2", gpu: str = "rtx4090") -> CachePlan:
    return make_plan(make_problem(algorithm, gpu=gpu, **LLAMA), STRATEGIES[level])


def test_codebook_bytes_per_block() -> None:
    """A head's 32 books of 256 entries of 4 float16, of keys and of values each: the paper counts one of the two.

    99 KB of shared memory hold 64 KB, so level sc has them take turns.
    """
    plan = planned("sc")
    assert plan.keys is not None
    assert plan.values is not None
    assert (plan.values.resident_tiles, plan.values.n_shared) == (32, 256)
    assert plan.keys.shared_bytes == plan.values.shared_bytes == plan.book_bytes == 64 * KIB
    assert plan.books_take_turns


def test_shuffles() -> None:
    """Three for a vector of values, of four channels; none for keys, which a lane sums over its own channels."""
    plan = planned("o4")
    assert (plan.exchange.fusion, plan.exchange.shuffles, plan.exchange.mini_warp) == ("register", 3, 4)
    (of_values,) = [each for each in plan.decisions if each.name == "fusion"]
    (of_keys,) = [each for each in plan.decisions if each.name == "key_fusion"]
    assert (of_values.inputs["shuffles"], of_keys.value) == (3, "none")


def test_cq_4_takes_one_shuffle() -> None:
    """Vectors of two channels (Sec. VII-C shows CQ-4 beside CQ-2)."""
    assert planned("o4", "cq-4").exchange.shuffles == 1


@pytest.mark.parametrize("level", ["gc", "sc", "o1", "o2", "o3", "o4"])
def test_output_of_a_block(level: str) -> None:
    """1 to 4 KB: each warp's sums of a head of 128 channels, in fp32, which its 8 warps add up in shared memory."""
    tile = planned(level).tile
    assert tile is not None
    assert 1 * KIB <= tile.warps * 128 * 4 <= 4 * KIB


def test_no_entry_is_hot() -> None:
    """Fewer than one entry passes mean + 3 sigma: registers hold none."""
    plan = planned("o4")
    assert plan.keys is not None
    assert plan.values is not None
    assert set(plan.keys.n_registers + plan.values.n_registers) == {0}
