from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import problem, problems

from vqcc.codegen.resources import Resources
from vqcc.passes.launch import dynamic_shared_bytes, plan_launch
from vqcc.pipeline import plan_kernel

if TYPE_CHECKING:
    from vqcc.plan import Plan
    from vqcc.problem import Problem


def launched(task: Problem, registers: int, static: int = 0) -> Plan:
    plan = plan_kernel(task)
    assert plan is not None
    return plan_launch(task, plan, Resources(registers, static, 0, 0, 0, 1))


@settings(max_examples=200)
@given(problems(), st.integers(24, 255))
def test_launches_fit(task: Problem, wanted: int) -> None:
    plan = plan_kernel(task)
    assert plan is not None
    assert plan.tile is not None
    # The compiler keeps to the launch bounds: so many registers are the most it uses.
    cap = task.gpu.registers_per_sm.integer // (32 * plan.tile.warps * plan.tile.minimum_blocks) // 8 * 8
    registers = min(wanted, cap, 255)
    plan = plan_launch(task, plan, Resources(registers, 0, 0, 0, 0, 1))
    launch = plan.launch
    assert launch is not None
    assert launch.blocks_per_sm >= 1
    assert 1 <= launch.grid <= plan.tile.blocks  # type: ignore[union-attr]
    assert launch.grid <= launch.blocks_per_sm * task.gpu.sm_count.integer
    assert launch.threads == 32 * plan.tile.warps  # type: ignore[union-attr]
    assert launch.threads * launch.blocks_per_sm <= task.gpu.threads_per_sm.integer
    assert launch.dynamic_shared_bytes <= task.gpu.shared_bytes_per_block.integer
    reserved = task.gpu.shared_bytes_reserved.integer
    total = launch.blocks_per_sm * (launch.dynamic_shared_bytes + reserved)
    assert total <= task.gpu.shared_bytes_per_sm.integer


def test_the_grid_fills_the_gpu_once() -> None:
    task = problem("aqlm-2x8", n=11008, k=4096)
    plan = launched(task, 64)
    assert plan.launch is not None
    assert plan.launch.grid == plan.launch.blocks_per_sm * 132
    assert plan.launch.limited_by == "registers"


def test_the_grid_is_no_larger_than_the_work() -> None:
    plan = launched(problem("aqlm-2x8", n=8, k=4096), 64)
    assert plan.launch is not None
    assert plan.tile is not None
    assert plan.launch.grid == plan.tile.blocks <= 8


@pytest.mark.parametrize(
    ("registers", "blocks", "limit"), [(32, 8, "warps"), (64, 4, "registers"), (128, 2, "registers")]
)
def test_registers_limit_the_blocks(registers: int, blocks: int, limit: str) -> None:
    """8 warps of 32, 64 and 128 registers on an SM of 64 warps and 65536 registers."""
    plan = launched(problem("aqlm-2x8", n=11008, k=4096), registers)
    assert plan.launch is not None
    assert (plan.launch.threads, plan.launch.blocks_per_sm, plan.launch.limited_by) == (256, blocks, limit)


def test_shared_memory_limits_the_blocks() -> None:
    plan = launched(problem("aqlm-3", n=11008, k=4096), 64)
    assert plan.launch is not None
    assert (plan.launch.blocks_per_sm, plan.launch.limited_by) == (1, "shared")
    assert plan.launch.dynamic_shared_bytes >= 131072


def test_shared_memory_is_partial_sums_then_books() -> None:
    for level, books in (("gc", 0), ("sc", 8192)):
        plan = plan_kernel(problem("aqlm-2x8", n=64, k=16384, level=level))
        assert plan is not None
        assert plan.tile is not None
        assert plan.tile.shared_bytes > 0
        assert dynamic_shared_bytes(plan) == plan.tile.shared_bytes + books


def test_static_shared_memory_counts() -> None:
    task = problem("aqlm-2x8", n=11008, k=4096)
    without, with_static = launched(task, 32), launched(task, 32, static=100 * 1024)
    assert without.launch is not None
    assert with_static.launch is not None
    assert with_static.launch.blocks_per_sm < without.launch.blocks_per_sm


def test_the_decision_has_the_numbers() -> None:
    plan = launched(problem("aqlm-2x8", n=11008, k=4096), 64)
    decision = plan.decisions[-1]
    assert plan.launch is not None
    assert (decision.name, decision.value) == ("grid", plan.launch.grid)
    assert decision.inputs["registers"] == 64
    assert decision.inputs["sm_count"] == 132
    assert plan.resources == Resources(64, 0, 0, 0, 0, 1)
