"""Tiles of every strategy fit the GPU, cover the work, and later ones leave a thread more registers."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix import GPUS, PRESETS, changed
from plans import EVERY_STRATEGY, is_legal
from problems import gemv, kmeans, problem, problems

from vqcc.gpus.occupancy import blocks_per_sm
from vqcc.levels import STRATEGIES, Strategy
from vqcc.ops.linear.tile import LinearTile
from vqcc.passes.placement import part_tiles
from vqcc.pipeline import base_kernel, plan_base, plan_kernel

if TYPE_CHECKING:
    from vqcc.plan import Plan
    from vqcc.problem import Problem

ALIGNED = Strategy("slack", registers=True, codebook_centric=True, fusion="aligned")
strategies = st.sampled_from(list(EVERY_STRATEGY.values()))
#: Rows that one multiply of a tensor core takes.
GROUP_ROWS = 8


def proposals(task: Problem, strategy: Strategy = STRATEGIES["gc"]) -> list[Plan]:
    """The plans of all attempts, until there are no more."""
    found: list[Plan] = []
    while (planned := plan_base(task, strategy, len(found))) is not None:
        found.append(planned)
    return found


def first(task: Problem, strategy: Strategy = STRATEGIES["gc"]) -> LinearTile:
    return tile_of(proposals(task, strategy)[0])


def kernel_of(task: Problem, plan: Plan) -> Plan:
    """The kernel of a tile that is compiled first: a base kernel, or the only one."""
    return base_kernel(task, plan) if plan.strategy.caching == "slack" else plan_kernel(task, plan, None)


def tile_of(plan: Plan) -> LinearTile:
    assert isinstance(plan.tile, LinearTile)
    return plan.tile


def check(task: Problem, plan: Plan) -> None:
    """What every tile must keep, whatever it is for."""
    check_resources(task, plan)
    check_rows(task, plan)
    tile, layout = tile_of(plan), plan.layout
    assert layout is not None
    # Warps along a row have chunks to share; steps divide chunks.
    chunks = layout.row_words // layout.chunk_words
    assert tile.warps_along_row <= max(1, chunks)
    assert layout.chunk_vectors % tile.unroll == 0
    assert tile.batch == task.variant.sizes["m"]
    assert tile.dtype == task.variant.dtype
    # x is loaded vector by vector: their alignment is what the vector size allows.
    assert (2 * task.algorithm.vector_size) % tile.activation_alignment == 0
    assert tile.activation_alignment in (2, 4, 8, 16)
    if plan.exchange.engine == "mma":
        vectors = 2 if task.algorithm.vector_size == 2 else 1
        assert tile.rows_per_warp % GROUP_ROWS == 0
        assert layout.chunk_vectors % (tile.unroll * vectors) == 0


def check_resources(task: Problem, plan: Plan) -> None:
    tile, gpu = tile_of(plan), task.gpu
    threads = 32 * tile.warps
    assert threads <= gpu.threads_per_block.integer
    kernel = kernel_of(task, plan)
    assert 1 <= kernel.minimum_blocks <= gpu.blocks_per_sm.integer
    assert threads * kernel.minimum_blocks <= gpu.threads_per_sm.integer
    assert kernel.placement is not None
    shared = tile.shared_bytes + kernel.placement.shared_bytes
    assert shared <= gpu.shared_bytes_per_block.integer
    sums = 4 * tile.warps_along_row * tile.rows_per_block * tile.batch
    assert (
        sums + tile.warps * tile.scratch_bytes
        <= tile.shared_bytes
        < sums + tile.warps * tile.scratch_bytes + 160
    )
    assert (tile.scratch_bytes > 0) == (plan.exchange.fusion == "shared")
    assert register_cap(task, plan) >= 32


def register_cap(task: Problem, plan: Plan) -> int:
    """The most registers of a thread at which an SM holds the blocks that the launch bounds promise, or 0."""
    kernel, tile = kernel_of(task, plan), tile_of(plan)
    assert kernel.placement is not None
    shared = tile.shared_bytes + kernel.placement.shared_bytes
    fitting = (
        registers
        for registers in range(248, 0, -8)
        if blocks_per_sm(task.gpu, 32 * tile.warps, registers, shared).blocks >= kernel.minimum_blocks
    )
    return next(fitting, 0)


def check_rows(task: Problem, plan: Plan) -> None:
    """The tile covers the rows: no band of books is cut, no block has nothing to do; parts share a workspace."""
    tile = tile_of(plan)
    rows, _ = task.op.weight_shape
    tile_rows = min(task.algorithm.scope.tile(*task.op.weight_shape)[0], rows)
    bands = -(-rows // tile_rows)
    assert tile.row_blocks == bands * -(-tile_rows // tile.rows_per_block)
    assert tile.row_blocks * tile.rows_per_block >= rows
    assert tile.rows_per_warp * tile.warps_across_rows == tile.rows_per_block
    assert tile.warps_across_rows == 1 or tile.rows_per_warp * (tile.warps_across_rows // 2) < tile_rows
    assert tile.parts == plan.split.factor
    assert tile.blocks == tile.row_blocks * tile.parts
    assert tile.arrivals == bands * tile_rows >= tile.row_blocks
    if tile.parts == 1:
        assert tile.workspace_bytes == 0
    else:
        sums = tile.row_blocks * tile.parts * tile.rows_per_block * tile.batch * 4
        arrivals = tile.workspace_bytes - sums
        assert arrivals % 256 == 0
        assert 4 * tile.arrivals <= arrivals < 4 * tile.arrivals + 256


@settings(max_examples=300)
@given(problems(), strategies)
def test_every_proposal_fits(task: Problem, strategy: Strategy) -> None:
    if not is_legal(task, strategy):
        return
    found = proposals(task, strategy)
    assert found, "no tile at all"
    for plan in found:
        check(task, plan)


@settings(max_examples=100)
@given(problems(), strategies)
def test_later_proposals_leave_a_thread_more_room(task: Problem, strategy: Strategy) -> None:
    """Each has fewer rows, or the same rows and no lower a register cap; the last is as small as it gets."""
    if not is_legal(task, strategy):
        return
    plans = proposals(task, strategy)
    tiles = [tile_of(plan) for plan in plans]

    for before, after in pairwise(tiles):
        assert after.rows_per_warp <= before.rows_per_warp
    smallest = GROUP_ROWS if plans[0].exchange.engine == "mma" else 1
    assert tiles[-1].rows_per_warp == smallest
    room = [register_cap(task, plan) for plan in plans]
    assert room[-1] == max(
        each for each, tile in zip(room, tiles, strict=True) if tile.rows_per_warp == smallest
    )
    assert room[-1] >= 128, "what needs most registers gets them"


@settings(max_examples=50)
@given(problems(), strategies)
def test_a_plan_is_a_function_of_its_problem(task: Problem, strategy: Strategy) -> None:
    if not is_legal(task, strategy):
        return
    assert plan_base(task, strategy) == plan_base(task, strategy)
    assert plan_base(task, strategy, 1000) is None


@settings(max_examples=100)
@given(problems(), strategies)
def test_kernels_of_a_library_agree_where_arrivals_end(task: Problem, strategy: Strategy) -> None:
    """They share a workspace: what one leaves zero must be what another counts in."""
    if not is_legal(task, strategy):
        return
    found = set()
    for m in (1, 5, 16):
        op = task.op.model_copy(update={"m": (m,)})
        other = type(task)(
            task.library, task.algorithm, op, op.variants()[0], task.gpu, task.level, task.boundaries
        )
        found |= {tile_of(plan).arrivals for plan in proposals(other, strategy)}
    assert len(found) == 1


@pytest.mark.parametrize("strategy", [STRATEGIES["o1"], ALIGNED])
def test_rows_share_activations_where_there_is_work_for_all(strategy: Strategy) -> None:
    few = first(problem("aqlm-2x8", n=256, k=2048), strategy)
    many = first(problem("aqlm-2x8", n=22016, k=8192), strategy)
    assert few.rows_per_warp < many.rows_per_warp


@pytest.mark.parametrize("strategy", [STRATEGIES["o1"], ALIGNED])
def test_warps_split_long_rows_only(strategy: Strategy) -> None:
    short = first(problem("aqlm-2x8", n=64, k=32), strategy)
    long = first(problem("aqlm-2x8", n=64, k=16384), strategy)
    assert short.warps_along_row == 1
    assert long.warps_along_row > 1


def test_a_block_full_of_codebooks_has_room_for_sums() -> None:
    """47 of many books of 2 KB on a GPU of 99 KB."""
    tiles = kmeans(scope={"rows": 256, "cols": 64})
    task = problem(tiles, gpu="rtx4090", n=4096, k=32768, m=16)
    found = proposals(task, STRATEGIES["sc"])
    for plan in found:
        placement = kernel_of(task, plan).placement
        assert placement is not None
        assert placement.shared_bytes == 47 * 2048
        check(task, plan)


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("preset", PRESETS)
def test_unrolling_is_bounded(preset: str, gpu: str) -> None:
    """An unrolled step is no more code than an instruction cache of some 100 KB of 16-byte instructions holds."""
    for m in (1, 5, 16):
        task = problem(preset, gpu=gpu, n=4096, k=4096, m=m)
        algorithm = task.algorithm
        for strategy in (STRATEGIES["gc"], STRATEGIES["o4"], ALIGNED):
            plan = proposals(task, strategy)[0]
            tile = tile_of(plan)
            decoded = tile.rows_per_warp * algorithm.residuals * tile.unroll
            if plan.exchange.engine == "mma":
                assert decoded // GROUP_ROWS * 4 <= 1000
            else:
                multiplies = tile.rows_per_warp * m * algorithm.vector_size * tile.unroll
                assert multiplies <= 1024 or tile.unroll == 1


@pytest.mark.parametrize("strategy", [STRATEGIES["o3"], ALIGNED])
def test_decisions_are_noted(strategy: Strategy) -> None:
    plan = proposals(problem("gptvq-2", n=1024, k=4096), strategy)[0]
    decisions = {decision.name: decision for decision in plan.decisions}
    tile = tile_of(plan)
    rows = {"fma": ("rows_per_warp", 1), "mma": ("row_groups_per_warp", GROUP_ROWS)}
    name, unit = rows[plan.exchange.engine]
    assert decisions[name].value == tile.rows_per_warp // unit
    assert decisions["warps"].value == tile.warps
    assert decisions["warps"].inputs["row_blocks"] == tile.row_blocks
    assert all(decision.formula and decision.reason for decision in plan.decisions)


@pytest.mark.parametrize("strategy", EVERY_STRATEGY.values(), ids=EVERY_STRATEGY)
def test_tiny_problems_have_tiles(strategy: Strategy) -> None:
    for n, k in ((1, 1), (1, 3), (2, 1), (5, 2)):
        task = problem(kmeans(vector_size=1, entries=2), n=n, k=k, m=16)
        assert gemv(n=n, k=k).weight_shape == (n, k)
        for plan in proposals(task, strategy):
            check(task, plan)
            assert tile_of(plan).blocks <= n


@pytest.mark.parametrize("strategy", [STRATEGIES["gc"], STRATEGIES["o1"], STRATEGIES["o4"], ALIGNED])
@pytest.mark.parametrize(
    "limits",
    [
        {"threads_per_block": 256},
        {"registers_per_block": 8192},
        {"registers_per_thread": 64},
        {"sm_count": 1},
        {"sm_count": 10_000},
        {"blocks_per_sm": 1},
        {"shared_bytes_per_block": 16384},
    ],
    ids=str,
)
def test_gpus_of_ones_own(limits: dict[str, int], strategy: Strategy) -> None:
    task = problem("aqlm-2x8", gpu=changed("h200", **limits), n=512, k=1024, m=16)
    found = proposals(task, strategy)
    assert found
    for plan in found:
        tile, gpu = tile_of(plan), task.gpu
        assert 32 * tile.warps <= gpu.threads_per_block.integer
        assert tile.shared_bytes <= gpu.shared_bytes_per_block.integer
        assert kernel_of(task, plan).minimum_blocks <= gpu.blocks_per_sm.integer
        assert register_cap(task, plan) >= 32


def test_parts_have_the_books_of_their_own_columns() -> None:
    task = problem("gptvq-2", n=16, k=16384, m=16)
    plan = proposals(task, ALIGNED)[0]
    assert plan.split.tiles > 1
    assert part_tiles(task, plan) == -(-64 // plan.split.tiles)
    assert tile_of(plan).workspace_bytes > 0
