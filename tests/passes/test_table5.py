"""Table V for an RTX 4090, from the presets: what limits or favours each optimization."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from plans import is_legal
from problems import problem

from vqcc.levels import STRATEGIES
from vqcc.ops.base import ComputeLayout
from vqcc.ops.linear.tile import LinearTile
from vqcc.passes.exchange import choose_fusion, shuffle_count
from vqcc.passes.layout import plan_layout
from vqcc.passes.split import SUM_BYTES, plan_split
from vqcc.pipeline import plan_base
from vqcc.plan import Plan

if TYPE_CHECKING:
    from vqcc.problem import Problem

#: The engines that the paper gives GeMM and GeMV (Sec. VII-C): fragments of two elements, single elements.
GEMM, GEMV = ComputeLayout("mma", 2, 4), ComputeLayout("fma", 1, 32)


def codebook_bytes_per_block(problem: Problem) -> int:
    """All books that a row of the weight meets, as the device holds them."""
    _, column_tiles = problem.algorithm.scope.grid(*problem.op.weight_shape)
    return column_tiles * problem.algorithm.table_bytes


@pytest.mark.parametrize(
    ("preset", "kibibytes"),
    [
        ("aqlm-3", 128),  # 4096 entries of 8 float16, two stages
        ("gptvq-2", 32),  # 256 entries of 4 float16 for each of 4096 / 256 tiles along a row
    ],
)
def test_codebook_bytes_per_block(preset: str, kibibytes: int) -> None:
    assert codebook_bytes_per_block(problem(preset, gpu="rtx4090", n=4096, k=4096)) == 1024 * kibibytes


def test_a_computed_codebook_needs_what_the_paper_counts() -> None:
    """The paper's 2 KB are 256 rows of 8 int8; ours are 256 rows of eight nibbles, and what each of 256 signs does."""
    task = problem("quip-4", gpu="rtx4090", n=4096, k=4096)
    algorithm = task.algorithm
    rows_of_int8 = algorithm.table_entries * algorithm.vector_size
    assert algorithm.table_entries == algorithm.constant_entries == 256
    assert 8 * algorithm.entry_stride == 4 * algorithm.vector_size  # bits of a row, and of a mask
    assert codebook_bytes_per_block(task) == rows_of_int8 == 2048


@pytest.mark.parametrize(("preset", "gemm", "gemv"), [("quip-4", 3, 7), ("aqlm-3", 3, 7), ("gptvq-2", 1, 3)])
def test_shuffles(preset: str, gemm: int, gemv: int) -> None:
    vector_size = problem(preset).algorithm.vector_size
    assert shuffle_count(vector_size, GEMM.width) == gemm
    assert shuffle_count(vector_size, GEMV.width) == gemv


def test_shuffles_of_a_value_cache() -> None:
    """CQ-2 has vectors of 4 channels; the weighted sum over tokens wants single ones of them."""
    assert shuffle_count(4, GEMV.width) == 3


def test_where_the_paper_fuses_through_registers() -> None:
    """Sec. VII-C: GeMM gains by one to three shuffles; GeMV's seven are too many for vectors of 8."""
    ratio = float(problem(gpu="rtx4090").gpu.shared_roundtrip_per_shuffle.value)
    chosen = {
        preset: tuple(
            choose_fusion(shuffle_count(problem(preset).algorithm.vector_size, engine.width), ratio)
            for engine in (GEMM, GEMV)
        )
        for preset in ("quip-4", "aqlm-3", "gptvq-2")
    }
    assert chosen == {
        "quip-4": ("register", "shared"),
        "aqlm-3": ("register", "shared"),
        "gptvq-2": ("register", "register"),
    }


@pytest.mark.parametrize("preset", ["quip-4", "aqlm-3", "gptvq-2"])
def test_output_of_a_block_is_less_than_a_kilobyte(preset: str) -> None:
    """The paper's bound for GeMV holds for the sums of one row of x, at every level and of every tile."""
    for level, strategy in STRATEGIES.items():
        task = problem(preset, gpu="rtx4090", level=level, n=4096, k=4096)
        if not is_legal(task, strategy):
            continue
        attempt = 0
        while (plan := plan_base(task, strategy, attempt)) is not None:
            assert isinstance(plan.tile, LinearTile)
            assert plan.tile.rows_per_block * plan.tile.batch * SUM_BYTES < 1024
            attempt += 1
        assert attempt


@pytest.mark.parametrize("preset", ["aqlm-3", "gptvq-2"])
def test_output_of_a_launch_is_what_the_split_weighs(preset: str) -> None:
    task = problem(preset, gpu="rtx4090", n=4096, k=4096)
    plan = plan_split(task, plan_layout(task, Plan(task.kernel, "o3", STRATEGIES["o3"])))
    assert plan.decisions[-1].inputs["output_bytes"] == 4096 * SUM_BYTES
