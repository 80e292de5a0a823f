"""gemm on the emulator: every level and algorithm, panels of rows of x, and multiplies of a warpgroup."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dealing import dealt, launched, task_of
from launches import Kernels
from libraries import build_fake
from matrix import PRESETS, Case, random_case
from plans import using
from problems import kmeans, problem
from test_matrix import MOST, check_kernels, preset_case, run_case

from vqcc.building import write_library
from vqcc.levels import STRATEGIES, Strategy
from vqcc.library import load_library
from vqcc.ops.gemm.panels import GEMM_DATAFLOWS
from vqcc.ops.gemm.warpgroup_tile import WarpgroupTile
from vqcc.passes.dataflow import refusals
from vqcc.passes.placement import certain_placement
from vqcc.passes.tile import machine_of, workload_of
from vqcc.pipeline import analyze, plan_compiled, plan_kernel

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.problem import Problem

SAMPLE, ALL = 3, 60
#: Bounds on m: less than a panel, a whole one, several of which the last is cut.
BOUNDS = ((17,), (64,), (33, 150))
TILED = kmeans(vector_size=4, entries=256, scope={"rows": 128, "cols": 64}, scales="none")
WARPGROUP_CASES: list[dict[str, Any]] = [
    {"algorithm": "aqlm-2x8", "n": 300, "k": 1096, "m": 40},
    {"algorithm": "aqlm-2x8", "n": 100, "k": 264, "m": 200, "dtype": "bfloat16"},
    {"algorithm": "vq-4-8-1", "n": 140, "k": 520, "m": 70},
    {"algorithm": "vq-2-8-1", "n": 130, "k": 392, "m": 33},
    {"algorithm": "quip-2", "n": 80, "k": 520, "m": 64, "dtype": "bfloat16"},
    {"algorithm": "quip-4", "n": 80, "k": 520, "m": 130},
    {"algorithm": "aqlm-3", "n": 70, "k": 600, "m": 20},
    {"algorithm": "gptvq-2", "n": 512, "k": 4104, "m": 48},
    {"algorithm": "gptvq-4", "n": 270, "k": 1304, "m": 17},
    {"algorithm": TILED, "n": 256, "k": 712, "m": 100, "dtype": "bfloat16"},
    {"algorithm": kmeans(vector_size=4, entries=1024), "n": 50, "k": 264, "m": 90},
    {"algorithm": "vq-4-8-1", "n": 40, "k": 516, "m": 50},
    {"algorithm": "vq-2-8-1", "n": 40, "k": 262, "m": 50},
]


def gemm_case(case: Case, m: tuple[int, ...]) -> Case:
    return replace(case, kind="gemm", m=m)


@pytest.mark.parametrize("seed", range(SAMPLE))
def test_random_configurations(seed: int, cache_directory: Path) -> None:
    case = gemm_case(random_case(seed + 100), BOUNDS[seed % len(BOUNDS)])
    run_case(case, cache_directory, seed, MOST)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(SAMPLE, ALL))
def test_more_random_configurations(seed: int, cache_directory: Path) -> None:
    run_case(gemm_case(random_case(seed + 100), BOUNDS[seed % len(BOUNDS)]), cache_directory, seed, 2 * MOST)


@pytest.mark.parametrize("preset", ["aqlm-2x8", "quip-4"])
def test_levels(preset: str, cache_directory: Path) -> None:
    """A ragged shape and a cut panel; levels below o4 go through shared memory, o4 as Algorithm 1 says."""
    case = gemm_case(preset_case(preset, 37, 560, (), "h200", limits=(("sm_count", 3),)), (70,))
    kernels = run_case(case, cache_directory, 1, MOST)
    fusions = {kernel.problem.level: kernel.plan.exchange.fusion for kernel in kernels.kernels}
    assert {fusions[level] for level in ("gc", "sc") if level in fusions} == {"shared"}
    assert {kernel.plan.exchange.engine for kernel in kernels.kernels} == {"mma"}
    assert {kernel.plan.strategy for kernel in kernels.kernels} >= {STRATEGIES["gc"], STRATEGIES["o4"]}


@pytest.mark.full
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("gpu", ["rtx4090", "h200"])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset: str, gpu: str, dtype: str, cache_directory: Path) -> None:
    for n, k, m in ((5, 512, 17), (300, 264, 64), (40, 1032, 130)):
        case = gemm_case(preset_case(preset, n, k, (), gpu, dtype=dtype), (m,))
        run_case(case, cache_directory, n, MOST)


def name_of(case: dict[str, Any]) -> str:
    algorithm = case["algorithm"]
    named = algorithm if isinstance(algorithm, str) else f"{algorithm['vector_size']}x{algorithm['entries']}"
    return "-".join([named, *(str(value) for key, value in case.items() if key != "algorithm")])


@pytest.mark.parametrize("case", WARPGROUP_CASES, ids=name_of)
def test_results_of_warpgroups(case: dict[str, Any], cache_directory: Path) -> None:
    task = task_of({**case, "kind": "gemm"})
    for outcome in launched(task, dealt(task, "warpgroup"), cache_directory):
        assert outcome.comparison.passed, outcome.comparison


@pytest.mark.parametrize("m", [1, 31, 32, 33, 65])
def test_rows_of_x_past_m_are_masked(m: int, cache_directory: Path) -> None:
    task = task_of({"algorithm": "vq-4-8-1", "n": 140, "k": 520, "m": 70, "kind": "gemm"})
    for outcome in launched(task, dealt(task, "warpgroup"), cache_directory, m=m):
        assert outcome.comparison.passed, outcome.comparison


def warpgroup_tiles(task: Problem) -> list[tuple[WarpgroupTile, float]]:
    """Tiles of a problem, with the cycles that are predicted of each."""
    plan = analyze(task, Strategy("none", dataflow="warpgroup"))
    work, machine = workload_of(task, plan, certain_placement(task, plan)), machine_of(task.gpu)
    dataflow = GEMM_DATAFLOWS["warpgroup"]
    n, _ = task.op.weight_shape
    return [
        (tile, sum(dataflow.cycles(tile, work, machine).values()))
        for tile in dataflow.every(n, task.variant, work, machine)
    ]


@pytest.mark.parametrize("algorithm", ["aqlm-2x8", pytest.param("gptvq-2", marks=pytest.mark.full)])
def test_every_way_to_deal_the_work(algorithm: str, cache_directory: Path) -> None:
    """One kernel for each number of warpgroups, rows of x and stages of a round, on the same weights and workspace."""
    task = task_of({"algorithm": algorithm, "n": 300, "k": 1032, "m": 100, "kind": "gemm"})
    plan = analyze(task, Strategy("none", dataflow="warpgroup"))
    tiles = {
        (tile.batch, tile.warpgroups, tile.round_stages, tile.splits): tile
        for tile, _ in warpgroup_tiles(task)
    }
    assert {batch for batch, *_ in tiles} == {32, 64, 128}
    assert {tile.panels > 1 for tile in tiles.values()} == {False, True}
    rng = np.random.default_rng(5)
    chosen = [tiles[key] for key in sorted(tiles)[:: max(1, len(tiles) // 5)]]
    assert {tile.splits for tile in chosen} == {False, True}
    planned = [
        (task, plan_compiled(task, plan_kernel(task, replace(plan, tile=tile), None), using(64)))
        for tile in chosen
    ]
    tensor = task.algorithm.random_tensor(rng, "w", *task.op.weight_shape)
    check_kernels(Kernels(planned, tensor, cache_directory), rng)


@pytest.mark.parametrize(("blocks", "m"), [(2, 20), (3, 70), (4, 70), (5, 130), (7, 33), (64, 70)])
def test_blocks_share_tiles(blocks: int, m: int, cache_directory: Path) -> None:
    """Fewer tiles than blocks, more, and parts of one by three and more blocks."""
    task = task_of({"algorithm": "vq-4-8-1", "n": 300, "k": 776, "m": 130, "kind": "gemm"})
    plan = analyze(task, Strategy("none", dataflow="warpgroup"))
    tile = next(
        tile
        for tile, _ in warpgroup_tiles(task)
        if tile.batch == 32 and tile.round_stages == 1 and tile.splits
    )
    plan = plan_compiled(
        task, plan_kernel(task, replace(plan, tile=replace(tile, blocks=blocks)), None), using(64)
    )
    for outcome in launched(task, plan, cache_directory, m=m):
        assert outcome.comparison.passed, outcome.comparison


@pytest.mark.parametrize(
    ("algorithm", "group", "m"),
    [
        ("vq-4-8-1", 2, 130),
        ("vq-4-8-1", 4, 20),
        ("gptvq-2", 4, 130),
        ("gptvq-2", 2, 90),
        pytest.param("vq-4-8-1", 4, 130, marks=pytest.mark.full),
        pytest.param("vq-4-8-1", 2, 90, marks=pytest.mark.full),
        pytest.param("gptvq-2", 2, 130, marks=pytest.mark.full),
        pytest.param("gptvq-2", 4, 20, marks=pytest.mark.full),
    ],
)
def test_panels_take_turns(algorithm: str, group: int, m: int, cache_directory: Path) -> None:
    """In groups, and past the last whole one; with books that stay and that change."""
    task = task_of({"algorithm": algorithm, "n": 300, "k": 1032, "m": 130, "kind": "gemm"})
    plan = analyze(task, Strategy("none", dataflow="warpgroup"))
    tile = next(tile for tile, _ in warpgroup_tiles(task) if tile.batch == 32 and tile.splits)
    plan = replace(plan, tile=replace(tile, blocks=3, panel_group=group))
    for outcome in launched(
        task, plan_compiled(task, plan_kernel(task, plan, None), using(64)), cache_directory, m=m
    ):
        assert outcome.comparison.passed, outcome.comparison


def test_x_of_a_group_fits_the_second_level_cache() -> None:
    for (n, k), m, group in (((28672, 8192), 4096, 8), ((8192, 28672), 4096, 2), ((8192, 8192), 256, 2)):
        task = problem("gptvq-2", kind="gemm", n=n, k=k, m=m, level="best")
        tile = next(tile for tile, _ in warpgroup_tiles(task) if tile.batch == 128 and tile.warpgroups == 2)
        assert tile.panel_group == group


def test_a_nan_stays_in_its_row(cache_directory: Path) -> None:
    task = task_of({"algorithm": "aqlm-2x8", "n": 70, "k": 264, "m": 40, "kind": "gemm"})
    plan = dealt(task, "warpgroup")
    rng = np.random.default_rng(0)
    kernels = Kernels([(task, plan)], task.algorithm.random_tensor(rng, "w", 70, 264), cache_directory)
    inputs = kernels.draw(task, 40, rng, bias=False)
    inputs.case.inputs["x"][7, 3] = np.nan
    result = kernels.run(kernels.kernels[0], inputs).result
    assert np.isnan(result[7]).all()
    assert not np.isnan(np.delete(result, 7, axis=0)).any()


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"gpu": "rtx4090"}, "rtx4090 has no multiplies of a warpgroup"),
        ({"gpu": "b200"}, "b200 has no multiplies of a warpgroup"),
        ({"algorithm": "vq-16-8-1"}, "vectors of 16 are longer"),
        ({"algorithm": "quip-4", "dtype": "bfloat16"}, "stages with factors"),
        ({"kind": "gemv", "m": 1}, "gemv has no such kernels"),
    ],
)
def test_what_has_no_warpgroups(case: dict[str, Any], reason: str) -> None:
    base = {"algorithm": "aqlm-2x8", "n": 64, "k": 528, "m": 32, "kind": "gemm"}
    found = list(refusals(task_of({**base, **case}), "warpgroup"))
    assert any(reason in each for each in found), found


def test_the_target_has_the_instructions(tmp_path: Path) -> None:
    """Only sources with multiplies of a warpgroup are compiled for sm_90a, whose cubins run where sm_90's do."""
    from libraries import FakeToolchain

    for shape, target in (((28672, 8192), "sm_90a"), ((64, 256), "sm_90")):
        toolchain = FakeToolchain(registers=160 if target == "sm_90a" else 40)
        n, k = shape
        built = build_fake("aqlm-2x8", kind="gemm", m=64, n=n, k=k, level="best", toolchain=toolchain)
        assert toolchain.targets[-1] == target
        assert built.gpus[0].gpu.target == "sm_90"


def test_a_library_of_several_bounds(tmp_path: Path) -> None:
    """Its manifest keeps panels, and a launch has the grid once for each."""
    built = build_fake("aqlm-2x8", kind="gemm", m=[32, 300], n=128, k=512, level="sc")
    write_library(built, tmp_path / "library")
    small, large = load_library(tmp_path / "library").builds["h200"].kernels
    assert small.launch.panel_rows == 0
    assert small.launch.blocks_for({"m": 20}) == small.launch.grid
    assert large.launch.panel_rows == 64
    assert large.launch.blocks_for({"m": 64}) == large.launch.grid
    assert large.launch.blocks_for({"m": 65}) == 2 * large.launch.grid
    assert large.launch.blocks_for({"m": 300}) == 5 * large.launch.grid


def test_more_rows_take_no_less() -> None:
    times = []
    for m in (17, 32, 64, 128, 256, 1024):
        task = problem("gptvq-2", kind="gemm", n=8192, k=8192, m=m, level="best")
        times.append(min(cycles for _, cycles in warpgroup_tiles(task)))
    assert times == sorted(times)


def test_a_tile_that_spills_is_followed_by_smaller_ones() -> None:
    """Each proposal leaves a thread more registers than the one before: fewer rows of x, in the end."""
    task = problem("aqlm-2x8", kind="gemm", n=28672, k=8192, m=256, level="best")
    plan = analyze(task, Strategy("none", dataflow="warpgroup"))
    work, machine = workload_of(task, plan, certain_placement(task, plan)), machine_of(task.gpu)
    tiles = [tile for tile, _ in task.op.tiles(task.variant, work, machine)]
    batches = [tile.batch for tile in tiles if isinstance(tile, WarpgroupTile)]
    assert batches[0] == 128
    assert {64, 32} & set(batches[1:])
