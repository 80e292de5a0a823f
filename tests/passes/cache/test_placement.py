"""Where entries of a kv-head's books live, level by level."""

from __future__ import annotations

from dataclasses import replace

import pytest
from caches import SLACK, make_plan, make_problem
from hypothesis import given
from hypothesis import strategies as st

from vqcc import gpus
from vqcc.codegen.resources import Resources
from vqcc.diagnostics import VqccError
from vqcc.levels import STRATEGIES
from vqcc.passes.cache.pipeline import plan_base, plan_kernel

KIB = 1024


def test_table_v_has_the_books_of_a_head_in_shared_memory() -> None:
    """CQ-2 keeps 64 KB of keys' books and as much of values' (Table V counts one of the two)."""
    plan = make_plan(make_problem("cq-2", head_dim=128), STRATEGIES["sc"])
    assert plan.keys is not None
    assert plan.values is not None
    assert plan.keys.shared_bytes == plan.values.shared_bytes == 64 * KIB
    assert (plan.keys.resident_tiles, plan.keys.n_shared) == (32, 256)
    assert plan.book_bytes == 128 * KIB
    assert not plan.books_take_turns


def test_books_that_are_shared_are_held_once() -> None:
    plan = make_plan(make_problem("kv-4-8-1", head_dim=128), STRATEGIES["sc"])
    assert plan.keys is not None
    assert (plan.keys.resident_tiles, plan.book_bytes) == (1, 4 * KIB)


def test_gc_caches_nothing() -> None:
    plan = make_plan(make_problem("cq-2"), STRATEGIES["gc"])
    assert plan.book_bytes == 0


def test_books_take_turns_on_a_smaller_gpu() -> None:
    problem = replace(make_problem("cq-2", head_dim=128), gpu=gpus.load("rtx4090"))
    plan = make_plan(problem, STRATEGIES["sc"])
    assert plan.books_take_turns
    assert plan.book_bytes == 64 * KIB
    assert "take turns" in next(each.reason for each in plan.decisions if each.name == "n_shared")


def test_books_that_no_block_can_hold_are_refused() -> None:
    problem = make_problem("kv-8-12-2", head_dim=128)
    assert make_plan(problem, STRATEGIES["sc"]).book_bytes == 128 * KIB, "one after the other"
    small = replace(problem, gpu=gpus.load("rtx4090"))
    base = plan_base(small, STRATEGIES["sc"])
    assert base is not None
    with pytest.raises(VqccError) as raised:
        plan_kernel(small, base, None)
    (found,) = raised.value.diagnostics
    assert found.code == "VQ0403"
    assert "take 131072 bytes" in found.message
    assert found.help is not None
    assert found.help.startswith("use level: o1")


@given(registers=st.integers(32, 128), head_dim=st.sampled_from([64, 128, 256]))
def test_entries_that_fit_the_slack_keep_the_base_kernels_blocks(registers: int, head_dim: int) -> None:
    problem = make_problem("cq-2", head_dim=head_dim)
    base = plan_base(problem, STRATEGIES["o1"])
    assert base is not None
    plan = plan_kernel(problem, base, Resources(registers, 0, 0, 0, 0, 0))
    assert plan.slack is not None
    assert plan.keys is not None
    assert plan.values is not None
    assert plan.book_bytes <= plan.slack.shared_bytes
    for placed in (plan.keys, plan.values):
        assert placed.n_shared == 256 or placed.n_shared * 8 % 16 == 0
        assert placed.shared_book_bytes == placed.n_shared * 8
    left = plan.slack.shared_bytes - plan.book_bytes
    per_step = 2 * plan.keys.resident_tiles * 16  # two more entries of each book
    assert left < 2 * per_step or plan.keys.n_shared == 256


def test_o2_says_why_registers_hold_none() -> None:
    o1, o2 = (make_plan(make_problem("cq-2"), STRATEGIES[level]) for level in ("o1", "o2"))
    reasons = [
        next(each.reason for each in plan.decisions if each.name == "n_registers") for plan in (o1, o2)
    ]
    assert reasons == [
        "the level keeps no entries in registers",
        "nothing is profiled of a cache: no entry is hot",
    ]
    assert SLACK.registers > 0
