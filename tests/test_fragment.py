"""Codes in the order of fragments: every algorithm that has them, few and many rows of x, any way to deal the work."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dealing import dealt, launched, task_of
from launches import Kernels
from libraries import build_fake
from plans import using
from problems import kmeans, problem

from vqcc.building import write_library
from vqcc.levels import Strategy
from vqcc.library import load_library
from vqcc.ops.gemv.fragment_tile import FragmentTile, count_visit, every_fragment_tile
from vqcc.passes.dataflow import refusals
from vqcc.passes.placement import certain_placement
from vqcc.passes.tile import machine_of, workload_of
from vqcc.pipeline import analyze, plan_compiled, plan_kernel
from vqcc.problem import Boundaries

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.problem import Problem

FRAGMENT = Strategy("none", dataflow="fragment")
TILED = kmeans(vector_size=4, entries=256, scope={"rows": 64, "cols": 32}, scales="none")
CASES: list[dict[str, Any]] = [
    {"algorithm": "aqlm-2x8", "n": 64, "k": 512},
    {"algorithm": "aqlm-2x8", "n": 33, "k": 1096, "m": 16, "sm_count": 2},
    {"algorithm": "aqlm-2x8", "n": 100, "k": 264, "m": 5, "sm_count": 3},
    {"algorithm": "vq-4-8-1", "n": 1, "k": 4},
    {"algorithm": "vq-4-8-1", "n": 300, "k": 516, "m": 3, "gpu": "rtx4090"},
    {"algorithm": "vq-2-8-1", "n": 40, "k": 390, "m": 2, "sm_count": 1},
    {"algorithm": "vq-2-8-3", "n": 65, "k": 130, "m": 9, "dtype": "bfloat16"},
    {"algorithm": "vq-16-8-3", "n": 37, "k": 1040, "m": 4, "dtype": "bfloat16", "sm_count": 4},
    {"algorithm": "vq-16-8-1", "n": 130, "k": 528, "m": 16, "sm_count": 1},
    {"algorithm": "aqlm-3", "n": 70, "k": 600, "m": 1, "sm_count": 2},
    {"algorithm": "aqlm-3", "n": 70, "k": 600, "m": 7, "sm_count": 2},
    {"algorithm": "quip-2", "n": 80, "k": 520, "m": 1, "sm_count": 2},
    {"algorithm": "quip-4", "n": 80, "k": 520, "m": 4, "dtype": "bfloat16", "sm_count": 2},
    {"algorithm": "quip-4", "n": 33, "k": 264, "m": 16, "sm_count": 2},
    {"algorithm": "gptvq-2", "n": 512, "k": 1300, "m": 1, "sm_count": 3},
    {"algorithm": "gptvq-2", "n": 300, "k": 2052, "m": 16, "sm_count": 2},
    {"algorithm": "gptvq-4", "n": 270, "k": 514, "m": 4, "sm_count": 2},
    {"algorithm": "gptvq-2", "n": 700, "k": 256, "m": 6, "sm_count": 3},
    {"algorithm": TILED, "n": 130, "k": 200, "m": 2, "sm_count": 2},
    {"algorithm": kmeans(vector_size=4, entries=1024, residuals=1), "n": 50, "k": 260, "m": 3},
    {"algorithm": kmeans(vector_size=2, entries=16, residuals=2), "n": 50, "k": 260, "m": 11},
]


def name_of(case: dict[str, Any]) -> str:
    algorithm = case["algorithm"]
    named = algorithm if isinstance(algorithm, str) else f"{algorithm['vector_size']}x{algorithm['entries']}"
    return "-".join([named, *(str(value) for key, value in case.items() if key != "algorithm")])


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_results_are_within_their_bound(case: dict[str, Any], cache_directory: Path) -> None:
    task = task_of(case)
    for outcome in launched(task, dealt(task, "fragment"), cache_directory):
        assert outcome.comparison.passed, outcome.comparison


@pytest.mark.parametrize("m", [1, 3, 9, 15])
def test_missing_rows_of_x_are_masked(m: int, cache_directory: Path) -> None:
    bound = 4 if m < 4 else 16
    task = task_of({"algorithm": "vq-4-8-1", "n": 70, "k": 260, "m": bound, "sm_count": 2})
    for outcome in launched(task, dealt(task, "fragment"), cache_directory, m=m):
        assert outcome.comparison.passed, outcome.comparison


def drawn_case(rng: np.random.Generator) -> dict[str, Any]:
    """Any algorithm, shape, m and type; not all of them have fragments."""
    x = int(rng.choice([2, 4, 8, 16]))
    bits = int(rng.choice([4, 8, 8, 9]))
    tiled = bool(rng.integers(0, 2)) and x < 16
    scope = {"rows": 32 * int(rng.choice([1, 2, 3, 4])), "cols": 64} if tiled else "tensor"
    return {
        "algorithm": kmeans(vector_size=x, entries=2**bits, residuals=int(rng.integers(1, 3)), scope=scope),
        "n": int(rng.integers(1, 200)),
        "k": x * int(rng.integers(1, 700 // x)),
        "m": int(rng.integers(1, 17)),
        "dtype": str(rng.choice(["float16", "bfloat16"])),
    }


def check_random_tile(seed: int, cache_directory: Path) -> None:
    """Any tile, dealt to any number of blocks, is right."""
    rng = np.random.default_rng([seed, 17])
    tiles: list[FragmentTile] = []
    while not tiles:  # drawn again where there is no such layout, or books and steps fit no block
        case = drawn_case(rng)
        task = task_of(case)
        if any(refusals(task, "fragment")):
            continue
        plan = analyze(task, FRAGMENT)
        work = workload_of(task, plan, certain_placement(task, plan))
        tiles = list(every_fragment_tile(case["n"], task.variant, work, machine_of(task.gpu)))
    tile = tiles[rng.integers(len(tiles))]
    tile = replace(tile, blocks=int(rng.integers(1, tile.sets * tile.visits + 1)))
    plan = plan_compiled(task, plan_kernel(task, replace(plan, tile=tile), None), using(64))
    for outcome in launched(task, plan, cache_directory):
        assert outcome.comparison.passed, (case, tile, outcome.comparison)


@pytest.mark.parametrize("seed", range(12))
def test_any_tile_is_right(seed: int, cache_directory: Path) -> None:
    check_random_tile(seed, cache_directory)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(12, 90))
def test_more_tiles_are_right(seed: int, cache_directory: Path) -> None:
    check_random_tile(seed, cache_directory)


@pytest.mark.parametrize(
    ("algorithm", "k", "m"),
    [
        ("aqlm-2x8", 1024, 16),
        ("vq-4-8-1", 1024, 1),
        ("vq-2-8-1", 512, 4),
        ("quip-4", 512, 2),
        ("gptvq-2", 2048, 16),
    ],
)
def test_look_ups_meet_no_bank_twice(algorithm: str, k: int, m: int, cache_directory: Path) -> None:
    """Loads of shared memory take the wavefronts of their width, whatever the codes are: of entries and of x."""
    task = task_of({"algorithm": algorithm, "n": 256, "k": k, "m": m, "sm_count": 2})
    outcome, *_ = launched(task, dealt(task, "fragment"), cache_directory, count=True)
    assert outcome.counters is not None
    assert outcome.counters.shared_load_wavefronts == outcome.counters.shared_load_ideal


@pytest.mark.parametrize("band_rows", [None, 64])
def test_wavefronts_are_as_the_model_counts_them(band_rows: int | None, cache_directory: Path) -> None:
    """Of one block's visits; the emulator counts what books take at the start, and the last sums, besides.

    A band of rows has books of its own: they are brought once for all its visits.
    """
    scope = "tensor" if band_rows is None else {"rows": band_rows, "cols": 16384}
    algorithm = kmeans(vector_size=4, entries=256, residuals=1, scope=scope)
    task = task_of({"algorithm": algorithm, "n": 256, "k": 16384, "m": 16, "sm_count": 1})
    plan = dealt(task, "fragment")
    outcome, *_ = launched(task, plan, cache_directory, count=True)
    tile, counters = plan.tile, outcome.counters
    assert isinstance(tile, FragmentTile)
    assert counters is not None
    work = workload_of(task, plan, certain_placement(task, plan))
    counted = tile.visits_per_block * count_visit(tile, work).wavefronts
    found = counters.shared_load_wavefronts + counters.shared_store_wavefronts
    codes = 4 * 256 * 16384 / 4 / 512  # loads of codes go through the same pipe, but are of global memory
    assert found + codes == pytest.approx(counted, rel=0.1)


def test_an_input_that_is_not_finite_stays_in_its_row(cache_directory: Path) -> None:
    """Operands hold several rows of x: one request's NaN is no other's."""
    for m in (4, 16):
        task = task_of({"algorithm": "aqlm-2x8", "n": 64, "k": 512, "m": m})
        rng = np.random.default_rng(5)
        tensor = task.algorithm.random_tensor(rng, "w", *task.op.weight_shape)
        kernels = Kernels([(task, dealt(task, "fragment"))], tensor, cache_directory)
        inputs = kernels.draw(task, m, rng, bias=False)
        clean = kernels.run(kernels.kernels[0], inputs).result
        inputs.case.inputs["x"][1, 7] = np.nan
        inputs.case.inputs["x"][2, 300] = np.inf
        spoilt = kernels.run(kernels.kernels[0], inputs).result
        kept = [row for row in range(m) if row not in {1, 2}]
        assert not np.isfinite(spoilt[1:3]).any()
        assert spoilt[kept].tobytes() == clean[kept].tobytes()


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (problem("aqlm-2x8", boundaries=Boundaries(shared=64)), "the spec's cache"),
        (problem(kmeans(vector_size=6, entries=256), k=600), "vectors of 6"),
        (problem(kmeans(vector_size=8, entries=256, scales={"group": 64}), k=512), "different scales"),
        (problem(kmeans(vector_size=8, entries=256, codebook_dtype="int8")), "not exact"),
        (problem(kmeans(scope={"rows": 100, "cols": 64}), n=500, k=512), "tiles of 100 rows"),
        (problem(kmeans(scope={"rows": 64, "cols": 36}), n=500, k=512), "no step of whole words"),
        (problem(kmeans(vector_size=2, entries=256, residuals=4), n=2**20, k=2**10), "2 GiB"),
    ],
)
def test_what_has_no_fragments_is_told_why(task: Problem, reason: str) -> None:
    assert any(reason in found for found in refusals(task, "fragment"))
    assert not any(refusals(task, "decode"))


def test_all_rows_of_x_share_one_packed_file() -> None:
    """Libraries for several m have one layout of codes, whatever the operands are."""
    for preset in ("gptvq-2", "quip-4", "aqlm-2x8"):
        layouts = {
            dealt(task_of({"algorithm": preset, "n": 512, "k": 1024, "m": m}), "fragment").layout
            for m in (1, 4, 16)
        }
        assert len(layouts) == 1


@pytest.mark.parametrize("m", [1, 16])
def test_a_library_comes_back_from_its_bundle(m: int, tmp_path: Path) -> None:
    """The manifest carries the layout and the tile."""
    built = build_fake("gptvq-2", n=4096, k=4096, m=m, level="best")
    write_library(built, tmp_path / built.name)
    library = load_library(tmp_path / built.name)
    (plan,) = built.gpus[0].plans
    (kernel,) = library.builds["h200"].kernels
    assert library.layout == plan.layout
    assert (kernel.tile, kernel.launch) == (plan.tile, plan.launch)
    assert isinstance(kernel.tile, FragmentTile)
