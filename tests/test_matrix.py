"""Every legal kernel of an algorithm and an op is within its bound of float64, and its levels agree with each other.

Each kernel is emitted, run on the emulator with all of its detectors on, and compared element by element. All levels
of a problem, and what only `best` may choose, get the same packed weights, inputs and workspace.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from launches import Kernel, Kernels
from matrix import PRESETS, REGISTERS, Case, random_case
from plans import EVERY_STRATEGY, compiler_of, distinct, forced, is_legal, using

from vqcc.algorithms import from_mapping
from vqcc.algorithms.presets import resolve
from vqcc.hotness import profile_tensor
from vqcc.levels import LEVELS, STRATEGIES, Strategy
from vqcc.ops.gemm.dense_tile import DenseTile
from vqcc.ops.gemm.warpgroup_tile import WarpgroupTile
from vqcc.ops.gemv.bucket_tile import BucketTile
from vqcc.ops.gemv.fragment_tile import FragmentTile
from vqcc.ops.gemv.score_tile import ScoreTile
from vqcc.ops.linear.tile import LinearTile
from vqcc.passes.agreement import Agreed
from vqcc.passes.choice import DATAFLOWS
from vqcc.passes.dataflow import refusals
from vqcc.passes.placement import certain_placement
from vqcc.passes.tile import plan_tile
from vqcc.pipeline import analyze, plan_compiled, plan_kernel
from vqcc.plan import Split
from vqcc.problem import Boundaries
from vqcc.search import compile_plans

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from launches import Outcome

    from vqcc.levels import Dataflow
    from vqcc.plan import Plan
    from vqcc.problem import Problem

SAMPLE = 8
#: Kernels of a variant in `make test`, beside those of the levels.
MOST = 3
ALL = 120
#: All that a strategy may have, on tensor cores where they can take the entries.
ALIGNED = Strategy("slack", registers=True, codebook_centric=True, fusion="aligned", copies=32)


def planned_kernels(
    case: Case, profile: tuple[Any, ...], rng: np.random.Generator, most: int | None = None
) -> list[tuple[Problem, Plan]]:
    """Distinct kernels of a case: of its levels, of strategies that only `best` may take, and split otherwise.

    Of those that are no level's, `most` of each variant if that is given.
    """
    found: list[tuple[Problem, Plan]] = []
    for level in LEVELS:
        problems = case.problems(level, profile)
        if level in STRATEGIES and not is_legal(problems[0], STRATEGIES[level]):
            continue
        _, plans, _ = compile_plans(problems, compiler_of(problems[0], case.registers), Agreed("decode"))
        found += zip(problems, plans, strict=True)
    for problem in case.problems("best", profile):
        others = [
            (problem, forced(problem, strategy, registers=case.registers))
            for name, strategy in EVERY_STRATEGY.items()
            if name not in STRATEGIES and is_legal(problem, strategy)
        ]
        others += [(problem, plan) for plan in split_plans(problem, case, rng)]
        others = distinct(others)
        chosen = rng.permutation(len(others))[:most]
        found += [others[i] for i in chosen]
    return distinct(found)


def split_plans(problem: Problem, case: Case, rng: np.random.Generator) -> list[Plan]:
    """Plans of splits that the planner would not choose, on the CUDA cores and, where they can, on tensor cores.

    The finest, and one drawn. Blocks of several panels of x share no rows.
    """
    if case.kind == "gemm":
        return []
    _, column_tiles = problem.algorithm.scope.grid(*problem.op.weight_shape)
    tiles = [
        count
        for count in range(1, column_tiles + 1)
        if (count - 1) * -(-column_tiles // count) < column_tiles
    ]
    stages = [
        count
        for count in range(1, problem.algorithm.table_count + 1)
        if problem.algorithm.table_count % count == 0
    ]
    drawn = Split(int(rng.choice(tiles)), int(rng.choice(stages)))
    splits = [each for each in dict.fromkeys((Split(tiles[-1], stages[-1]), drawn)) if each.factor > 1]
    return [
        forced(problem, strategy, split=split, registers=case.registers)
        for split in splits
        for strategy in (STRATEGIES["o4"], ALIGNED)
    ]


def run_case(case: Case, cache_directory: Path, seed: int, most: int | None = None) -> Kernels:
    """Run the kernels of a case, at their bound on m and below it; returns those that decode as the paper's do."""
    rng = np.random.default_rng(seed)
    tensor = case.draw_tensor(rng)
    profile = (profile_tensor(tensor),) if case.skewed else ()
    planned = planned_kernels(case, profile, rng, most)
    kernels = Kernels(planned, tensor, cache_directory, by_frequency=case.skewed)
    check_kernels(kernels, rng)
    for dataflow in DATAFLOWS:  # the others' codes are packed in ways of their own
        if others := kernels_past_the_paper(case, dataflow, profile):
            check_kernels(Kernels(others, tensor, cache_directory, by_frequency=case.skewed), rng)
    return kernels


def kernels_past_the_paper(
    case: Case, dataflow: Dataflow, profile: tuple[Any, ...]
) -> list[tuple[Problem, Plan]]:
    """The kernels of a case that decode nothing or into fragments: for those of its variants that can have them."""
    found = []
    for problem in case.problems("best", profile):
        if dataflow == "decode" or any(refusals(problem, dataflow)):
            continue
        plan = analyze(problem, Strategy("none", dataflow=dataflow))
        tiled = plan_tile(problem, plan, certain_placement(problem, plan))
        if tiled is not None:
            found.append((problem, plan_compiled(problem, plan_kernel(problem, tiled, None), using(64))))
    return found


def check_kernels(kernels: Kernels, rng: np.random.Generator) -> None:
    """Check those of each variant together, at its bound on m and below it."""
    by_variant: dict[str, list[Kernel]] = {}
    for kernel in kernels.kernels:
        by_variant.setdefault(kernel.problem.variant.suffix, []).append(kernel)
    for group in by_variant.values():
        bound = group[0].problem.variant.sizes["m"]
        for m in {bound, int(rng.integers(1, bound + 1))}:
            check_group(kernels, group, m, rng)


def check_group(kernels: Kernels, group: Sequence[Kernel], m: int, rng: np.random.Generator) -> None:
    """Launch kernels on the same inputs: each is right, leaves the workspace as it must, and they agree."""
    inputs = kernels.draw(group[0].problem, m, rng, bias=bool(rng.random() < 0.7))
    outcomes: list[tuple[Kernel, Outcome]] = []
    for kernel in group:
        outcome = kernels.run(kernel, inputs)
        assert outcome.comparison.passed, f"{described(kernel)}, m = {m}: {outcome.comparison}"
        assert not arrivals(kernels, kernel.plan).any(), f"{described(kernel)} left arrivals behind"
        outcomes.append((kernel, outcome))
    for (one, its), (other, others) in combinations(outcomes, 2):
        gap = np.abs(its.result.astype(np.float64) - others.result.astype(np.float64))
        assert (gap <= its.bound + others.bound).all(), f"{described(one)} against {described(other)}"
        if summing(one.plan) == summing(other.plan):
            assert its.result.tobytes() == others.result.tobytes(), (
                f"{described(one)} sums as {described(other)} does, from the same entries"
            )
    for kernel, outcome in outcomes:
        assert kernel.plan.launch is not None
        if kernel.plan.launch.workspace_bytes:  # whatever the others left in it
            again = kernels.run(kernel, inputs)
            assert again.result.tobytes() == outcome.result.tobytes(), (
                f"{described(kernel)} is not determined"
            )


def described(kernel: Kernel) -> str:
    plan = kernel.plan
    return f"{kernel.problem.level} {plan.strategy}, {plan.tile}, {plan.placement}, {plan.split}, {plan.exchange}"


def arrivals(kernels: Kernels, plan: Plan) -> Any:
    """What a plan's kernel must leave zero of the workspace."""
    assert isinstance(
        plan.tile, LinearTile | ScoreTile | FragmentTile | BucketTile | WarpgroupTile | DenseTile
    )
    return kernels.workspace[: 4 * plan.tile.arrivals]


def summing(plan: Plan) -> object:
    """What the order of a kernel's sums depends on: not where entries lie, nor how far loops are unrolled."""
    assert plan.tile is not None
    assert plan.placement is not None
    if not isinstance(plan.tile, LinearTile):
        return plan.tile
    tile = replace(plan.tile, register_cap=1, unroll=1)
    return tile, plan.placement.resident_tiles, plan.split, plan.exchange


@pytest.mark.parametrize("seed", range(SAMPLE))
def test_random_configurations(seed: int, cache_directory: Path) -> None:
    run_case(random_case(seed), cache_directory, seed, MOST)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(SAMPLE, ALL))
def test_more_random_configurations(seed: int, cache_directory: Path) -> None:
    run_case(random_case(seed), cache_directory, seed)


def preset_case(preset: str, n: int, k: int, m: tuple[int, ...], gpu: str, **options: Any) -> Case:
    dtype = options.pop("dtype", "float16")
    return Case(resolve(preset), n, k, m, (dtype,), "best", gpu, **options)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset: str, cache_directory: Path) -> None:
    """A ragged shape, few blocks with several items each, and codes that make entries hot."""
    k = 560 if resolve(preset).vector_size == 8 else 556
    case = preset_case(preset, 37, k, (1, 5), "rtx4090", limits=(("sm_count", 3),), skewed=True)
    kernels = run_case(case, cache_directory, 1, MOST)
    if case.algorithm.scope.is_tensor:
        assert any(any(kernel.plan.placement.n_registers) for kernel in kernels.kernels)
    assert {kernel.plan.strategy for kernel in kernels.kernels} >= {STRATEGIES["gc"], STRATEGIES["o4"]}


SHAPES = ((1, 16), (5, 512), (16, 2048), (300, 264), (40, 1032))


@pytest.mark.full
@pytest.mark.parametrize("skewed", [False, True], ids=["uniform", "skewed"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("gpu", ["rtx4090", "h200"])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_over_shapes(preset: str, gpu: str, dtype: str, skewed: bool, cache_directory: Path) -> None:
    for i, (n, k) in enumerate(SHAPES):
        registers = REGISTERS[i % len(REGISTERS)]
        limits = (("sm_count", 2),) if i % 2 else ()
        case = preset_case(
            preset, n, k, (1, 5, 16), gpu, dtype=dtype, skewed=skewed, registers=registers, limits=limits
        )
        run_case(case, cache_directory, n)


def kmeans_case(n: int, k: int, m: tuple[int, ...], gpu: str, **options: Any) -> Case:
    """A case of a k-means algorithm; options are the algorithm's and the case's."""
    mine = {
        name: options.pop(name)
        for name in ("limits", "skewed", "even_stages", "registers", "boundaries")
        if name in options
    }
    dtype = options.pop("dtype", "float16")
    base = {"family": "kmeans", "vector_size": 4, "entries": 64, "residuals": 1, "scope": "tensor"}
    return Case(from_mapping({**base, "scales": "none", **options}), n, k, m, (dtype,), "best", gpu, **mine)


FEW_SMS = (("sm_count", 2),)
CASES = {
    "int8 tiles with group scales": kmeans_case(
        33, 606, (3,), "b200", vector_size=6, residuals=2, scope={"rows": 20, "cols": 96},
        scales={"group": 126}, codebook_dtype="int8", dtype="bfloat16", limits=FEW_SMS,
    ),
    "eight stages": kmeans_case(17, 328, (2, 16), "h200", vector_size=8, residuals=8, scales="row", limits=FEW_SMS),
    "vectors of twelve": kmeans_case(25, 636, (1, 5), "a100", vector_size=12, residuals=3, skewed=True, registers=66),
    "vectors of one": kmeans_case(9, 301, (1, 16), "rtx4090", vector_size=1, entries=16, residuals=2, skewed=True),
    "pairs": kmeans_case(40, 420, (1, 16), "rtx4090", vector_size=2, entries=256, residuals=3, limits=FEW_SMS),
    "vectors of sixteen": kmeans_case(40, 1040, (1, 16), "h100", vector_size=16, entries=16, skewed=True),
    "books in phases": kmeans_case(
        24, 1300, (1, 16), "rtx4090", entries=256, scope={"rows": 12, "cols": 52},
        limits=(("sm_count", 1), ("shared_bytes_per_block", 18432), ("shared_bytes_per_sm", 32768)),
    ),
    "many row blocks": kmeans_case(
        600, 144, (1, 16), "h200", entries=256, scope={"rows": 256, "cols": 48}, limits=(("sm_count", 500),)
    ),
    "tables that end inside a word": kmeans_case(9, 148, (2, 9), "b200", vector_size=2, entries=2, residuals=2),
    "one row, one column": kmeans_case(1, 1, (1, 16), "l40s", vector_size=1, entries=2),
    "registers and part of the entries, uniform": kmeans_case(
        30, 520, (1, 16), "rtx4090", vector_size=8, entries=256, residuals=2, boundaries=Boundaries(3, 100)
    ),
    "registers and part of the entries, skewed": kmeans_case(
        30, 520, (1, 16), "rtx4090", vector_size=8, entries=256, boundaries=Boundaries(2, 34), skewed=True
    ),
    "hot entries in the first stage": kmeans_case(
        40, 520, (1, 16), "h200", vector_size=8, residuals=2, skewed=True, even_stages=1, limits=FEW_SMS,
    ),
    "hot entries in two of four stages": kmeans_case(
        40, 260, (1, 16), "rtx4090", residuals=4, skewed=True, even_stages=2,
    ),
    "registers only": kmeans_case(30, 260, (1, 16), "h200", boundaries=Boundaries(4, 4), skewed=True),
    "all in registers": kmeans_case(30, 260, (1, 5), "h200", entries=4, boundaries=Boundaries(4, 4)),
    "nothing cached": kmeans_case(30, 260, (1, 16), "h200", boundaries=Boundaries(0, 0), skewed=True),
    "part of a computed table": replace(
        preset_case("quip-4", 30, 520, (1, 16), "rtx4090", limits=FEW_SMS), boundaries=Boundaries(5, 100)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str, cache_directory: Path) -> None:
    kernels = run_case(CASES[name], cache_directory, 3, MOST)
    wanted = CASES[name].boundaries
    for kernel in kernels.kernels:
        placement = kernel.plan.placement
        if kernel.plan.strategy.caching == "slack" and wanted.registers is not None:
            assert set(placement.n_registers) == {wanted.registers}
        if kernel.plan.strategy.caching == "slack" and wanted.shared is not None:
            assert wanted.shared - 16 < placement.n_shared <= wanted.shared


@pytest.mark.parametrize(
    ("name", "even"), [("hot entries in the first stage", 1), ("hot entries in two of four stages", 2)]
)
def test_stages_without_hot_entries_hold_none(name: str, even: int) -> None:
    """On either engine; what `test_cases` runs."""
    case = CASES[name]
    tensor = case.draw_tensor(np.random.default_rng(3))
    planned = planned_kernels(case, (profile_tensor(tensor),), np.random.default_rng(3))
    for engine in ("fma", "mma"):
        held = {
            plan.placement.n_registers
            for _, plan in planned
            if plan.exchange.engine == engine and plan.split.stages == 1 and any(plan.placement.n_registers)
        }
        assert held, engine
        for counts in held:
            assert all(counts[:-even])
            assert not any(counts[-even:])


def test_kernels_of_many_row_blocks_share_a_workspace(cache_directory: Path) -> None:
    """More arrivals than one cache line of them, of kernels whose sums lie elsewhere."""
    planned = planned_kernels(CASES["many row blocks"], (), np.random.default_rng(0))
    tiles = [plan.tile for _, plan in planned if plan.split.factor > 1]
    assert any(tile.row_blocks > 64 for tile in tiles)
    assert len({tile.workspace_bytes for tile in tiles}) > 1
    assert len({tile.arrivals for tile in tiles}) == 1


def test_books_in_phases_are_what_that_case_has() -> None:
    case = CASES["books in phases"]
    _, column_tiles = case.algorithm.scope.grid(case.n, case.k)
    resident = {
        plan.placement.resident_tiles
        for _, plan in planned_kernels(case, (), np.random.default_rng(0))
        if plan.level == "sc"
    }
    assert all(1 < count < column_tiles for count in resident)
    assert any(column_tiles % count for count in resident)


def test_the_sample_has_all_that_there_is() -> None:
    """What a plan can be made of, each in some kernel of `make test`."""
    cases = [*map(random_case, range(SAMPLE)), *CASES.values()]
    plans = [
        plan
        for case in cases
        if not case.skewed
        for _, plan in planned_kernels(case, (), np.random.default_rng(0))
    ]
    assert {(plan.exchange.engine, plan.exchange.fusion) for plan in plans} == {
        ("fma", "none"), ("fma", "register"), ("fma", "shared"),
        ("mma", "aligned"), ("mma", "register"), ("mma", "shared"),
    }  # fmt: skip
    assert any(plan.split.tiles > 1 and plan.split.stages > 1 for plan in plans)
    assert any(plan.split.factor > 1 and plan.tile.blocks > 2 * plan.launch.grid for plan in plans)
    assert {plan.layout.lanes for plan in plans} >= {32, 4}
    for engine in ("fma", "mma"):
        mine = [plan for plan in plans if plan.exchange.engine == engine]
        assert {1, 2} <= {plan.split.stages for plan in mine}
        assert {1, 2} <= {plan.split.tiles for plan in mine}
        assert any(any(plan.placement.n_registers) for plan in mine)
        assert any(plan.placement.copies > 1 for plan in mine)
        assert any(plan.placement.n_shared == 0 for plan in mine)


def test_the_matrix_is_large() -> None:
    """At least 1000 distinct kernels run in `make test-full`."""
    seeds = range(0, ALL, 10)
    kernels = sum(
        len(planned_kernels(case, (), np.random.default_rng(0))) for case in map(random_case, seeds)
    )
    assert kernels * ALL / len(seeds) >= 1000
