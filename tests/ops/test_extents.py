"""The largest weights that the op's checks admit have kernels whose constants do not overflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from dealing import dealt
from plans import forced
from problems import kmeans, problem

from vqcc.codegen.render import render_source
from vqcc.emulator import build
from vqcc.levels import STRATEGIES
from vqcc.ops.linear.tile import LinearTile
from vqcc.passes.dataflow import refusals
from vqcc.plan import Split

if TYPE_CHECKING:
    from pathlib import Path

#: A packed row takes a word at least, and codes 2 GiB at most.
MOST_ROWS = 2**29 - 1


@pytest.mark.parametrize("rows", [MOST_ROWS, 3 * 2**27])
def test_arrivals_of_the_most_rows_have_room(rows: int, cache_directory: Path) -> None:
    """A counter for each row: 2 GiB of them, and sums after those. The compiler refuses constants that overflow."""
    stages = kmeans(vector_size=1, entries=16, residuals=2)
    task = problem(stages, level="o3", n=rows, k=1)
    assert not list(task.op.check(task.algorithm, task.gpu))
    plan = forced(task, STRATEGIES["o3"], split=Split(1, 2))
    assert isinstance(plan.tile, LinearTile)
    assert plan.tile.workspace_bytes > 4 * rows
    kernels = build(render_source([task], [plan]), cache_directory=cache_directory / "emulator")
    assert kernels is not None


def test_more_rows_are_refused() -> None:
    stages = kmeans(vector_size=1, entries=16, residuals=2)
    task = problem(stages, n=MOST_ROWS + 1, k=1)
    assert [finding.code for finding in task.op.check(task.algorithm, task.gpu)] == ["VQ0307"]


def test_a_warpgroups_kernel_of_the_most_rows(cache_directory: Path) -> None:
    """Sets of rows, and offsets of codes."""
    task = problem(kmeans(vector_size=8, entries=256), kind="gemm", n=2**26, k=8, m=64, level="best")
    assert not list(task.op.check(task.algorithm, task.gpu))
    plan = dealt(task, "warpgroup")
    assert plan.tile is not None
    assert build(render_source([task], [plan]), cache_directory=cache_directory / "emulator") is not None
    more = problem(kmeans(vector_size=8, entries=256), kind="gemm", n=2**27, k=8, m=64, level="best")
    assert any("2 GiB" in reason for reason in refusals(more, "warpgroup"))
