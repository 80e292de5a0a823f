from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix import changed
from plans import EVERY_STRATEGY, forced, is_legal, using
from problems import kmeans, problem, problems

from vqcc.diagnostics import VqccError
from vqcc.gpus.occupancy import blocks_per_sm, carveout_percent
from vqcc.levels import STRATEGIES, Strategy
from vqcc.passes.launch import plan_launch
from vqcc.plan import Split

if TYPE_CHECKING:
    from vqcc.plan import Launch, Plan
    from vqcc.problem import Problem

strategies = st.sampled_from(list(EVERY_STRATEGY.values()))


def launched(task: Problem, registers: int, strategy: Strategy = STRATEGIES["sc"], static: int = 0) -> Plan:
    return plan_launch(task, forced(task, strategy), using(registers, static=static))


def launch_of(plan: Plan) -> Launch:
    assert plan.launch is not None
    return plan.launch


@settings(max_examples=200)
@given(problems(), strategies, st.integers(24, 255))
def test_launches_fit(task: Problem, strategy: Strategy, registers: int) -> None:
    if not is_legal(task, strategy):
        return
    plan, gpu = forced(task, strategy, registers=registers), task.gpu
    launch, tile = launch_of(plan), plan.tile
    assert tile is not None
    assert launch.blocks_per_sm >= 1
    assert 1 <= launch.grid <= tile.blocks
    assert launch.grid <= launch.blocks_per_sm * gpu.sm_count.integer
    assert launch.grid in {tile.blocks, launch.blocks_per_sm * gpu.sm_count.integer}
    assert launch.threads == 32 * tile.warps <= gpu.threads_per_block.integer
    assert launch.threads * launch.blocks_per_sm <= gpu.threads_per_sm.integer
    assert launch.dynamic_shared_bytes == plan.dynamic_shared_bytes <= gpu.shared_bytes_per_block.integer
    reserved = gpu.shared_bytes_reserved.integer
    assert launch.blocks_per_sm * (launch.dynamic_shared_bytes + reserved) <= gpu.shared_bytes_per_sm.integer
    assert plan.resources is not None
    found = blocks_per_sm(gpu, launch.threads, plan.resources.registers, launch.dynamic_shared_bytes)
    assert (launch.blocks_per_sm, launch.limited_by) == (found.blocks, found.limited_by)
    assert launch.workspace_bytes == tile.workspace_bytes
    needs_any = launch.dynamic_shared_bytes > 0
    assert launch.carveout_percent == (carveout_percent(gpu, found) if needs_any else 0)
    assert (launch.carveout_percent > 0) == needs_any
    assert (launch.workspace_bytes > 0) == (plan.split.factor > 1)


@settings(max_examples=100)
@given(problems(), strategies)
def test_what_the_slack_gave_costs_no_block(task: Problem, strategy: Strategy) -> None:
    """The kernel with its cache has the blocks per SM of the base kernel, if it needs no more registers."""
    if strategy.caching != "slack":
        return
    plan = forced(task, strategy)
    assert plan.slack is not None
    assert launch_of(plan).blocks_per_sm == plan.slack.blocks_per_sm


def test_the_grid_fills_the_gpu_once() -> None:
    plan = launched(problem("aqlm-2x8", n=22016, k=4096), 64)
    launch = launch_of(plan)
    assert launch.grid == launch.blocks_per_sm * 132
    assert plan.tile is not None
    assert plan.tile.blocks > launch.grid


def test_the_grid_is_no_larger_than_the_work() -> None:
    plan = launched(problem("aqlm-2x8", n=8, k=4096), 64)
    assert plan.tile is not None
    assert launch_of(plan).grid == plan.tile.blocks <= 8


def test_parts_of_rows_are_work_too() -> None:
    task = problem(kmeans(residuals=2), n=64, k=4096)
    whole, parted = (forced(task, STRATEGIES["o3"], split=Split(1, stages)).tile for stages in (1, 2))
    assert whole is not None
    assert parted is not None
    assert whole.workspace_bytes == 0 < parted.workspace_bytes
    plan = forced(task, STRATEGIES["o3"], split=Split(1, 2))
    assert launch_of(plan).grid == parted.blocks
    assert parted.blocks % 2 == 0


def test_registers_limit_the_blocks() -> None:
    task = problem("aqlm-2x8", n=22016, k=4096)
    few, some, many = (launch_of(launched(task, registers)) for registers in (32, 64, 128))
    assert few.blocks_per_sm > some.blocks_per_sm > many.blocks_per_sm
    assert many.limited_by == some.limited_by == "registers"
    assert few.limited_by in {"warps", "registers", "shared"}


def test_shared_memory_limits_the_blocks() -> None:
    plan = launched(problem("aqlm-3", n=11008, k=4096), 64)
    assert (launch_of(plan).blocks_per_sm, launch_of(plan).limited_by) == (1, "shared")
    assert launch_of(plan).dynamic_shared_bytes >= 131072


def test_shared_memory_is_sums_then_books() -> None:
    for level, books in (("gc", 0), ("sc", 8192)):
        plan = forced(problem("aqlm-2x8", n=64, k=16384), STRATEGIES[level])
        assert plan.tile is not None
        assert plan.tile.shared_bytes > 0
        assert plan.dynamic_shared_bytes == plan.tile.shared_bytes + books


def test_static_shared_memory_counts() -> None:
    task = problem("aqlm-2x8", n=11008, k=4096)
    without, with_static = launched(task, 32), launched(task, 32, static=100 * 1024)
    assert launch_of(with_static).blocks_per_sm < launch_of(without).blocks_per_sm


def test_a_kernel_that_fits_no_sm_is_refused() -> None:
    task = problem("aqlm-2x8", gpu=changed("h200", registers_per_block=16384))
    plan = forced(task, STRATEGIES["gc"])
    with pytest.raises(VqccError) as caught:
        plan_launch(task, plan, using(255))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "VQ0405"
    assert "255 registers" in diagnostic.message
    assert "registers" in diagnostic.message
    assert diagnostic.help


def test_the_decision_has_the_numbers() -> None:
    plan = launched(problem("aqlm-2x8", n=11008, k=4096), 64)
    decision = plan.decisions[-1]
    assert plan.tile is not None
    assert (decision.name, decision.value) == ("grid", launch_of(plan).grid)
    assert decision.inputs["registers"] == 64
    assert decision.inputs["sm_count"] == 132
    assert decision.inputs["items"] == plan.tile.blocks
    assert decision.section == "V-B, Fig. 10"
    assert plan.resources == using(64)
