"""gemm by weights that are decoded to memory first, on the emulator: all kinds of weights, rings, cut tiles."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dealing import dealt, launched, task_of
from launches import Kernels
from problems import kmeans, problem

from vqcc.levels import Strategy
from vqcc.ops.gemm.dense_tile import DenseTile, count_dense_cycles
from vqcc.passes.dataflow import refusals
from vqcc.passes.placement import certain_placement
from vqcc.passes.tile import machine_of, workload_of
from vqcc.pipeline import analyze

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.problem import Problem

TILED = kmeans(vector_size=4, entries=256, scope={"rows": 128, "cols": 64}, scales="none")
GROUPS = kmeans(vector_size=4, entries=256, scales={"group": 32})
ROWS = kmeans(vector_size=4, entries=256, scales="row")
TENSOR = kmeans(vector_size=8, entries=64, scales="tensor")
SUMMED_GROUPS = kmeans(vector_size=8, entries=64, residuals=2, scales={"group": 64})
#: Cases, and what is changed of their tiles.
CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"algorithm": "gptvq-2", "n": 600, "k": 1096, "m": 140}, {}),
    ({"algorithm": "gptvq-4", "n": 270, "k": 1304, "m": 300}, {"ring": 1, "decoding_warps": 2}),
    ({"algorithm": "aqlm-2x8", "n": 700, "k": 520, "m": 200, "dtype": "bfloat16"}, {"ring": 1, "stages": 3}),
    ({"algorithm": "aqlm-2x8", "n": 300, "k": 264, "m": 130}, {"shared_books": False}),
    ({"algorithm": "quip-2", "n": 80, "k": 520, "m": 64, "dtype": "bfloat16"}, {}),
    ({"algorithm": "quip-4", "n": 80, "k": 520, "m": 130}, {}),
    ({"algorithm": "aqlm-3", "n": 70, "k": 600, "m": 20}, {}),
    ({"algorithm": "vq-2-8-1", "n": 130, "k": 392, "m": 33}, {}),
    ({"algorithm": "vq-16-8-1", "n": 256, "k": 1024, "m": 128}, {}),
    ({"algorithm": TILED, "n": 256, "k": 712, "m": 100, "dtype": "bfloat16"}, {"ring": 1}),
    ({"algorithm": GROUPS, "n": 300, "k": 200, "m": 40}, {}),
    # Several tiles of each block; rows of y aligned to 16 bytes, and to 2.
    ({"algorithm": ROWS, "n": 605, "k": 200, "m": 300}, {}),
    ({"algorithm": ROWS, "n": 524, "k": 136, "m": 400, "dtype": "bfloat16"}, {"ring": 1}),
    ({"algorithm": TENSOR, "n": 601, "k": 136, "m": 290}, {"decoding_warps": 1}),
    ({"algorithm": SUMMED_GROUPS, "n": 300, "k": 264, "m": 40, "dtype": "bfloat16"}, {}),
]


def name_of(case: dict[str, Any]) -> str:
    algorithm = case["algorithm"]
    named = algorithm if isinstance(algorithm, str) else f"{algorithm['vector_size']}x{algorithm['entries']}"
    return "-".join([named, *(str(value) for key, value in case.items() if key != "algorithm")])


def task(case: dict[str, Any]) -> Problem:
    return task_of({"sm_count": 3, "kind": "gemm", **case})


@pytest.mark.parametrize(("case", "tile"), CASES, ids=[name_of(case) for case, _ in CASES])
def test_results(case: dict[str, Any], tile: dict[str, Any], cache_directory: Path) -> None:
    own = task(case)
    for outcome in launched(own, dealt(own, "dense", **tile), cache_directory):
        assert outcome.comparison.passed, outcome.comparison


@pytest.mark.parametrize("m", [1, 64, 65, 128, 129, 257])
def test_rows_of_x_past_m_are_masked(m: int, cache_directory: Path) -> None:
    own = task({"algorithm": "vq-4-8-1", "n": 300, "k": 72, "m": 300})
    for outcome in launched(own, dealt(own, "dense"), cache_directory, m=m):
        assert outcome.comparison.passed, outcome.comparison


def test_rows_of_x_far_apart(cache_directory: Path) -> None:
    """Of a launch of fewer rows than the bound, with NaN between them."""
    own = task({"algorithm": ROWS, "n": 300, "k": 200, "m": 400})
    plan = dealt(own, "dense")
    rng = np.random.default_rng(0)
    kernels = Kernels([(own, plan)], own.algorithm.random_tensor(rng, "w", 300, 200), cache_directory)
    for m in (201, 400):
        inputs = kernels.draw(own, m, rng, bias=True)
        x = inputs.case.inputs["x"]
        wide = np.full((m, 456), np.nan, x.dtype)
        wide[:, : x.shape[1]] = x
        case = replace(
            inputs.case,
            inputs={**inputs.case.inputs, "x": wide},
            scalars={**inputs.case.scalars, "x_stride": 456},
        )
        outcome = kernels.run(kernels.kernels[0], replace(inputs, case=case))
        assert outcome.comparison.passed, outcome.comparison


def test_aligned_rows_of_y(cache_directory: Path) -> None:
    """Of n + 3 elements between rows of y, every eighth n makes rows that are stored by whole words."""
    for n in (301, 261, 299):  # 16, 16 and 4 bytes
        own = task({"algorithm": "vq-4-8-1", "n": n, "k": 72, "m": 40})
        for outcome in launched(own, dealt(own, "dense"), cache_directory):
            assert outcome.comparison.passed, outcome.comparison


def test_a_nan_stays_in_its_row(cache_directory: Path) -> None:
    own = task({"algorithm": "aqlm-2x8", "n": 70, "k": 264, "m": 40})
    plan = dealt(own, "dense")
    rng = np.random.default_rng(0)
    kernels = Kernels([(own, plan)], own.algorithm.random_tensor(rng, "w", 70, 264), cache_directory)
    inputs = kernels.draw(own, 40, rng, bias=False)
    inputs.case.inputs["x"][7, 3] = np.nan
    result = kernels.run(kernels.kernels[0], inputs).result
    assert np.isnan(result[7]).all()
    assert not np.isnan(np.delete(result, 7, axis=0)).any()


def test_counters_are_left_zero(cache_directory: Path) -> None:
    own = task({"algorithm": "aqlm-2x8", "n": 600, "k": 72, "m": 400})
    plan = dealt(own, "dense")
    rng = np.random.default_rng(0)
    kernels = Kernels([(own, plan)], own.algorithm.random_tensor(rng, "w", 600, 72), cache_directory)
    assert isinstance(plan.tile, DenseTile)
    for m in (140, 400):
        kernels.run(kernels.kernels[0], kernels.draw(own, m, rng, bias=False))
        assert not kernels.workspace[: 4 * plan.tile.arrivals].any()
        assert kernels.workspace[4 * plan.tile.arrivals :].any()


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"gpu": "rtx4090"}, "rtx4090 has no multiplies of a warpgroup"),
        ({"gpu": "b200"}, "b200 has no multiplies of a warpgroup"),
        ({"algorithm": "vq-4-8-1", "k": 516}, "no whole words of 16 bytes"),
        ({"kind": "gemv", "m": 1}, "gemv has no such kernels"),
    ],
)
def test_what_has_no_dense_kernel(case: dict[str, Any], reason: str) -> None:
    base = {"algorithm": "aqlm-2x8", "n": 64, "k": 528, "m": 32, "kind": "gemm"}
    found = list(refusals(task_of({**base, **case}), "dense"))
    assert any(reason in each for each in found), found


def tiles_of(own: Problem) -> list[tuple[DenseTile, float]]:
    """Tiles of a problem, with the cycles that are predicted of each."""
    plan = analyze(own, Strategy("none", dataflow="dense"))
    work, machine = workload_of(own, plan, certain_placement(own, plan)), machine_of(own.gpu)
    found = [tile for tile, _ in own.op.every_tile(own.variant, work, machine) if isinstance(tile, DenseTile)]
    return [(tile, sum(count_dense_cycles(tile, work, machine).values())) for tile in found]


def test_the_ring_is_as_large_as_it_must_be() -> None:
    """Pieces that are multiplied at a time, and a few more; no more than there are, or than memory is given for."""
    rings = {}
    for n, k, m in ((28672, 8192, 4096), (28672, 8192, 1024), (1024, 8192, 1024), (8192, 28672, 1024)):
        own = problem("gptvq-2", kind="gemm", n=n, k=k, m=m, level="best")
        tile, _ = tiles_of(own)[0]
        rings[n, k, m] = tile.ring
        assert tile.input_bytes == 2 * m * k
        assert tile.workspace_bytes <= 2**28 + 2**22 + tile.input_bytes
    assert rings == {
        (28672, 8192, 4096): 8,
        (28672, 8192, 1024): 20,
        (1024, 8192, 1024): 4,
        (8192, 28672, 1024): 18,
    }


def test_x_has_room_in_the_workspace() -> None:
    """2^30 bytes at most."""
    assert tiles_of(problem("gptvq-2", kind="gemm", n=512, k=32768, m=16384, level="best"))
    assert not tiles_of(problem("gptvq-2", kind="gemm", n=512, k=36864, m=16384, level="best"))


def test_books_without_room_stay_in_global_memory() -> None:
    small = problem("aqlm-2x8", kind="gemm", n=4096, k=4096, m=1024, level="best")
    large = problem("aqlm-1x16", kind="gemm", n=4096, k=4096, m=1024, level="best")
    assert tiles_of(small)[0][0].shared_books
    assert {tile.shared_books for tile, _ in tiles_of(large)} == {False}


def test_more_rows_take_no_less() -> None:
    times = [
        min(
            cycles
            for _, cycles in tiles_of(problem("gptvq-2", kind="gemm", n=8192, k=8192, m=m, level="best"))
        )
        for m in (128, 512, 1024, 4096, 16384)
    ]
    assert times == sorted(times)
