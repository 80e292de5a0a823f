from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given, settings
from matrix import PRESETS
from problems import gemv, kmeans, problem, problems

from vqcc.gpus.occupancy import blocks_per_sm
from vqcc.ops.gemv import GemvTile
from vqcc.passes.layout import plan_layout
from vqcc.passes.placement import plan_placement
from vqcc.passes.tile import plan_tile
from vqcc.plan import Plan

if TYPE_CHECKING:
    from vqcc.problem import Problem


def prepared(task: Problem) -> Plan:
    return plan_placement(task, plan_layout(task, Plan(task.kernel, task.level)))


def proposals(task: Problem) -> list[Plan]:
    """The plans of all attempts, until there are no more."""
    plan = prepared(task)
    found: list[Plan] = []
    while (planned := plan_tile(task, plan, len(found))) is not None:
        found.append(planned)
    return found


def tile_of(plan: Plan) -> GemvTile:
    assert isinstance(plan.tile, GemvTile)
    return plan.tile


def check(task: Problem, plan: Plan) -> None:
    """What every tile must keep, whatever it is for."""
    tile, gpu, layout, placement = tile_of(plan), task.gpu, plan.layout, plan.placement
    assert layout is not None
    assert placement is not None
    threads = 32 * tile.warps
    assert threads <= gpu.threads_per_block.integer
    assert 1 <= tile.minimum_blocks <= gpu.blocks_per_sm.integer
    assert threads * tile.minimum_blocks <= gpu.threads_per_sm.integer
    books = placement.resident_tiles * placement.table_bytes if placement.in_shared else 0
    shared = tile.shared_bytes + books
    assert shared <= gpu.shared_bytes_per_block.integer
    assert shared == books or tile.warps_along_row > 1
    # At the registers that the launch bounds leave, the SM holds the blocks that they promise.
    registers = min(255, gpu.registers_per_sm.integer // (tile.minimum_blocks * threads) // 8 * 8)
    assert registers >= 32
    assert blocks_per_sm(gpu, threads, registers, shared).blocks >= 1
    # The tile covers the rows: no band of books is cut, and no block has nothing to do.
    rows, _ = task.op.weight_shape
    tile_rows = min(task.algorithm.scope.tile(*task.op.weight_shape)[0], rows)
    bands = -(-rows // tile_rows)
    assert tile.row_blocks == bands * -(-tile_rows // tile.rows_per_block)
    assert tile.row_blocks * tile.rows_per_block >= rows
    assert tile.rows_per_warp * tile.warps_across_rows == tile.rows_per_block
    assert tile.warps_across_rows == 1 or tile.rows_per_warp * (tile.warps_across_rows // 2) < tile_rows
    # Warps along a row have segments to share; steps divide chunks.
    assert tile.warps_along_row <= max(1, layout.segments)
    assert layout.chunk_vectors % tile.unroll == 0
    assert tile.batch == task.variant.sizes["m"]
    assert tile.dtype == task.variant.dtype
    assert tile.in_shared == placement.in_shared
    assert tile.resident_tiles == placement.resident_tiles
    # x is loaded vector by vector: their alignment is what the vector size allows.
    assert (2 * task.algorithm.vector_size) % tile.activation_alignment == 0
    assert tile.activation_alignment in (2, 4, 8, 16)


@settings(max_examples=300)
@given(problems())
def test_every_proposal_fits(task: Problem) -> None:
    found = proposals(task)
    assert found, "no tile at all"
    for plan in found:
        check(task, plan)


@settings(max_examples=100)
@given(problems())
def test_later_proposals_leave_a_thread_more_room(task: Problem) -> None:
    """Each has fewer rows, or the same rows and no lower a register cap; the last is as small as it gets."""
    tiles = [tile_of(plan) for plan in proposals(task)]

    def room(tile: GemvTile) -> int:
        threads = 32 * tile.warps
        return min(255, task.gpu.registers_per_sm.integer // (threads * tile.minimum_blocks))

    for before, after in pairwise(tiles):
        assert after.rows_per_warp <= before.rows_per_warp
    assert tiles[-1].rows_per_warp == 1
    assert room(tiles[-1]) == max(room(tile) for tile in tiles if tile.rows_per_warp == 1)


@settings(max_examples=50)
@given(problems())
def test_a_plan_is_a_function_of_its_problem(task: Problem) -> None:
    plan = prepared(task)
    assert plan_tile(task, plan) == plan_tile(task, plan)
    assert plan_tile(task, plan, 1000) is None


def test_rows_share_activations_where_there_is_work_for_all() -> None:
    few = tile_of(proposals(problem("aqlm-2x8", n=512, k=4096))[0])
    many = tile_of(proposals(problem("aqlm-2x8", n=11008, k=4096))[0])
    assert few.rows_per_warp < many.rows_per_warp == 4


def test_warps_split_long_rows_only() -> None:
    short = tile_of(proposals(problem("aqlm-2x8", n=64, k=128))[0])
    long = tile_of(proposals(problem("aqlm-2x8", n=64, k=16384))[0])
    assert short.warps_along_row == 1
    assert short.partial_sum_bytes == 0
    assert long.warps_along_row == 4
    assert long.partial_sum_bytes == 4 * long.warps * long.rows_per_warp


def test_a_block_full_of_codebooks_has_no_room_for_partial_sums() -> None:
    """49 of many books of 2 KB leave 1 KB on a GPU of 99 KB."""
    options = {"gpu": "rtx4090", "n": 4096, "k": 32768, "m": 16}
    tiles = kmeans(scope={"rows": 256, "cols": 64})
    task = problem(tiles, **options)
    placement = prepared(task).placement
    assert placement is not None
    assert placement.resident_tiles * placement.table_bytes == 100352
    found = proposals(task)
    assert tile_of(found[0]).warps_along_row == 1
    for plan in found:
        check(task, plan)
    assert tile_of(proposals(problem(tiles, level="gc", **options))[0]).warps_along_row > 1


def test_unrolling_is_bounded() -> None:
    for preset in PRESETS:
        for m in (1, 4, 16):
            task = problem(preset, level="gc", n=4096, k=4096, m=m)
            tile = tile_of(proposals(task)[0])
            step = tile.rows_per_warp * m * task.algorithm.vector_size * tile.unroll
            assert step <= 512 or tile.unroll == 1


def test_decisions_are_noted() -> None:
    plan = proposals(problem("gptvq-2", n=1024, k=4096))[0]
    decisions = {decision.name: decision for decision in plan.decisions}
    tile = tile_of(plan)
    assert decisions["rows_per_warp"].value == tile.rows_per_warp
    assert decisions["warps"].value == tile.warps
    assert decisions["warps_along_row"].value == tile.warps_along_row
    assert decisions["unroll"].value == tile.unroll
    assert all(decision.formula and decision.reason for decision in plan.decisions)


def test_tiny_problems_have_tiles() -> None:
    for n, k in ((1, 1), (1, 3), (2, 1), (5, 2)):
        task = problem(kmeans(vector_size=1, entries=2), n=n, k=k, m=16)
        assert gemv(n=n, k=k).weight_shape == (n, k)
        for plan in proposals(task):
            check(task, plan)
            assert tile_of(plan).blocks <= n
