"""Score tables: kernels that never decode a weight are right, never meet in a bank, and look up what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dealing import dealt, launched, task_of
from launches import Kernels
from libraries import FakeToolchain, build_fake
from problems import kmeans, problem

from vqcc.code_layouts import RotatedLayout
from vqcc.ops.gemv.score_tile import ScoreTile
from vqcc.passes.dataflow import refusals
from vqcc.plan import Rejected
from vqcc.problem import Boundaries

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.building import Built
    from vqcc.codegen.toolchain import Compiled
    from vqcc.problem import Problem

CASES: list[dict[str, Any]] = [
    # One round and several, one part of the columns and many, whole and ragged in every direction.
    {"algorithm": "aqlm-2x8", "n": 64, "k": 512},
    {"algorithm": "aqlm-2x8", "n": 33, "k": 1096, "sm_count": 2},
    {"algorithm": "aqlm-2x8", "n": 100, "k": 264, "sm_count": 3},
    {"algorithm": "aqlm-2x8", "n": 70, "k": 1032, "sm_count": 5},
    {"algorithm": "vq-4-8-1", "n": 1, "k": 4},
    {"algorithm": "vq-4-8-1", "n": 300, "k": 516, "gpu": "rtx4090"},
    {"algorithm": "vq-2-8-1", "n": 40, "k": 390, "gpu": "rtx4090", "sm_count": 1},
    {"algorithm": "vq-2-8-3", "n": 65, "k": 130, "dtype": "bfloat16"},
    {"algorithm": "vq-16-8-3", "n": 37, "k": 1040, "dtype": "bfloat16", "sm_count": 4},
    {"algorithm": "vq-16-8-1", "n": 1100, "k": 528, "sm_count": 1},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_results_are_within_their_bound(case: dict[str, Any], cache_directory: Path) -> None:
    task = task_of(case)
    for outcome in launched(task, dealt(task, "score"), cache_directory):
        assert outcome.comparison.passed, outcome.comparison


def random_tile(tile: ScoreTile, rng: np.random.Generator) -> dict[str, int]:
    """Another way to deal the same work: more or fewer parts, warps and regions."""
    return {
        "warps": int(rng.choice([2, 4, 6, 16])),
        "regions": int(rng.integers(1, 3)),
        "row_parts": int(rng.integers(1, tile.row_groups + 1)),
        "column_parts": int(rng.integers(1, tile.rounds + 1)),
    }


def check_random_tiles(seed: int, cache_directory: Path) -> None:
    rng = np.random.default_rng([seed, 11])
    x = int(rng.choice([2, 4, 8, 16]))
    case = {
        "algorithm": f"vq-{x}-8-{rng.integers(1, 4)}",
        "n": int(rng.integers(1, 200)),
        "k": x * int(rng.integers(1, 700 // x)),
        "dtype": str(rng.choice(["float16", "bfloat16"])),
    }
    task = task_of(case)
    plan = dealt(task, "score")
    assert isinstance(plan.tile, ScoreTile)
    for outcome in launched(task, dealt(task, "score", **random_tile(plan.tile, rng)), cache_directory):
        assert outcome.comparison.passed, outcome.comparison


@pytest.mark.parametrize("seed", range(8))
def test_any_way_to_deal_the_work_is_right(seed: int, cache_directory: Path) -> None:
    check_random_tiles(seed, cache_directory)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(8, 60))
def test_more_ways_to_deal_the_work_are_right(seed: int, cache_directory: Path) -> None:
    check_random_tiles(seed, cache_directory)


@pytest.mark.parametrize("scale", [2.0**-16, 2.0**13])
def test_tiny_and_huge_inputs_are_right(scale: float, cache_directory: Path) -> None:
    """Scores are fp32: they neither overflow nor lose bits where x is at either end of its type."""
    task = task_of({"algorithm": "aqlm-2x8", "n": 64, "k": 512})
    rng = np.random.default_rng(7)
    tensor = task.algorithm.random_tensor(rng, "w", *task.op.weight_shape)
    kernels = Kernels([(task, dealt(task, "score"))], tensor, cache_directory)
    inputs = kernels.draw(task, 1, rng, bias=False, scale=scale)
    outcome = kernels.run(kernels.kernels[0], inputs)
    assert outcome.comparison.passed, outcome.comparison
    x = inputs.case.inputs["x"][:, :512].astype(np.float64)
    assert np.isfinite(x).all()
    assert (np.abs(x).max() > 8192) == (scale > 1)


def test_look_ups_and_tables_meet_no_bank_twice(cache_directory: Path) -> None:
    """Loads of shared memory take the wavefronts of their width, whatever the codes are; so do stores."""
    task = task_of({"algorithm": "aqlm-2x8", "n": 64, "k": 1024, "sm_count": 2})
    plan = dealt(task, "score")
    outcome, *_ = launched(task, plan, cache_directory, count=True)
    counters = outcome.counters
    assert counters is not None
    assert isinstance(plan.layout, RotatedLayout)
    assert isinstance(plan.tile, ScoreTile)
    assert counters.shared_load_wavefronts == counters.shared_load_ideal
    assert counters.shared_store_wavefronts == counters.shared_store_ideal
    # Every code is looked up once: that is what 32 lanes of each group do in each step.
    look_ups = 2 * plan.layout.panels * RotatedLayout.PANEL_CODES
    codes = look_ups // 16 * 4
    assert counters.shared_load_wavefronts >= look_ups + codes


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (problem("aqlm-2x8", m=2), "1 row of inputs, not 2"),
        (problem("aqlm-2x8", boundaries=Boundaries(shared=64)), "the spec's cache"),
        (problem(kmeans(vector_size=2, entries=256, residuals=4), n=2**20, k=2**10), "2 GiB"),
        (problem("aqlm-3"), "12 bits"),
        (problem("gptvq-2", n=512, k=512), "tables of its own"),
        (problem(kmeans(vector_size=6, entries=256), k=600), "vectors of 6"),
        (problem(kmeans(vector_size=8, entries=256, scales={"group": 64}), k=512), "different scales"),
        (problem(kmeans(vector_size=8, entries=256, codebook_dtype="int8")), "not exact"),
    ],
)
def test_what_has_no_score_tables_is_told_why(task: Problem, reason: str) -> None:
    assert any(reason in found for found in refusals(task, "score"))
    assert not any(refusals(task, "decode"))


def scored_everywhere(built: Built) -> set[str]:
    return {plan.strategy.dataflow for build in built.gpus for plan in build.plans}


def test_all_kernels_of_a_library_read_the_same_codes() -> None:
    """GPUs and m that by themselves would choose apart agree on one dataflow."""
    alone = [
        scored_everywhere(build_fake(n=8192, k=8192, m=m, gpu=gpu, level="best"))
        for m, gpu in ((1, "h200"), (16, "h200"), (1, "b200"))
    ]
    assert alone[:2] == [{"score"}, {"fragment"}]
    both = build_fake(n=8192, k=8192, m=[1, 16], level="best")
    assert scored_everywhere(both) == {"fragment"}
    (decision, *_) = both.gpus[0].plans[0].decisions
    assert any(
        other.value == "score"
        and "m16_float16 of this library: it serves 1 row of inputs, not 16" in other.reason
        for other in decision.rejected
    )
    for gpus in (["h200", "rtx4090"], ["h200", "a40", "b200"]):
        several = build_fake(n=8192, k=8192, m=[1, 2], gpu=gpus, level="best")
        assert len(scored_everywhere(several)) == 1
        assert len({plan.layout for build in several.gpus for plan in build.plans}) == 1


def test_a_library_has_the_next_dataflow_if_no_tile_of_score_tables_compiles() -> None:
    """On all of its GPUs, though it is one kernel on one of them that spills."""

    class Spilling(FakeToolchain):
        def compile(self, source: str, **options: Any) -> Compiled:
            compiled = super().compile(source, **options)
            if "ScoreGemv" not in source or options["target"] != "sm_80":
                return compiled
            spilling = {name: replace(each, spill_store_bytes=8) for name, each in compiled.resources.items()}
            return replace(compiled, resources=spilling)

    options = {"n": 16384, "k": 16384, "m": 1, "gpu": ["h200", "a100"], "level": "best"}
    assert scored_everywhere(build_fake(**options)) == {"score"}
    built = build_fake(toolchain=Spilling(), **options)
    assert scored_everywhere(built) == {"fragment"}
    (decision, *_) = built.gpus[0].plans[0].decisions
    assert any(
        other == Rejected("score", "each of its tiles spills registers") for other in decision.rejected
    )
