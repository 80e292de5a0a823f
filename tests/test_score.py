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
from vqcc.passes.dataflow import SCORED_ROWS, refusals
from vqcc.plan import Rejected
from vqcc.problem import Boundaries

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.building import Built
    from vqcc.codegen.toolchain import Compiled
    from vqcc.problem import Problem

#: Relative error of random sums that are rounded to float16, and some.
FLOAT16_ERROR = 6e-4
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
    # Two and four rows of x, and fewer than the tables have.
    {"algorithm": "aqlm-2x8", "n": 33, "k": 1096, "m": 2, "sm_count": 2},
    {"algorithm": "aqlm-2x8", "n": 100, "k": 264, "m": 4, "sm_count": 3},
    {"algorithm": "vq-4-8-1", "n": 300, "k": 516, "m": 3, "gpu": "rtx4090"},
    {"algorithm": "vq-2-8-3", "n": 65, "k": 130, "m": 4, "dtype": "bfloat16"},
    {"algorithm": "vq-16-8-1", "n": 37, "k": 1040, "m": 2, "dtype": "bfloat16", "sm_count": 4},
    # Codes of twelve bits.
    {"algorithm": "aqlm-3", "n": 64, "k": 512},
    {"algorithm": "aqlm-3", "n": 33, "k": 1096, "sm_count": 2},
    {"algorithm": "vq-4-12-1", "n": 1, "k": 4},
    {"algorithm": "vq-2-12-3", "n": 70, "k": 130, "dtype": "bfloat16", "sm_count": 5},
    {"algorithm": "vq-16-12-1", "n": 300, "k": 528, "sm_count": 1},
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
        "regions": int(rng.integers(1, 3)) if tile.code_bits == 8 else 1,
        "row_parts": int(rng.integers(1, tile.row_groups + 1)),
        "column_parts": int(rng.integers(1, tile.rounds + 1)),
    }


def check_random_tiles(seed: int, cache_directory: Path) -> None:
    rng = np.random.default_rng([seed, 11])
    x = int(rng.choice([2, 4, 8, 16]))
    code_bits = int(rng.choice([8, 8, 12]))
    case = {
        "algorithm": f"vq-{x}-{code_bits}-{rng.integers(1, 4)}",
        "n": int(rng.integers(1, 200)),
        "k": x * int(rng.integers(1, 700 // x)),
        "dtype": str(rng.choice(["float16", "bfloat16"])),
        "m": int(rng.integers(1, SCORED_ROWS[code_bits] + 1)),
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


SCORES = [("aqlm-2x8", 1), ("aqlm-2x8", 2), ("vq-4-8-1", 4), ("aqlm-3", 1)]


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**-45, 2.0**45, 2.0**100])
@pytest.mark.parametrize(("algorithm", "m"), SCORES)
def test_tiny_and_huge_bfloat16_is_right(algorithm: str, m: int, scale: float, cache_directory: Path) -> None:
    """bfloat16 has a range that float16 scores do not: they are scaled by what it has."""
    task = task_of({"algorithm": algorithm, "n": 64, "k": 512, "m": m, "dtype": "bfloat16"})
    for outcome in launched(task, dealt(task, "score"), cache_directory, scale=scale):
        assert outcome.comparison.passed, outcome.comparison


@pytest.mark.parametrize("scale", [2.0**-16, 2.0**13])
@pytest.mark.parametrize(("algorithm", "m"), SCORES)
def test_tiny_and_huge_inputs_are_right(algorithm: str, m: int, scale: float, cache_directory: Path) -> None:
    """Scores neither overflow nor lose bits where x is at either end of its type: they are fp32, or scaled."""
    task = task_of({"algorithm": algorithm, "n": 64, "k": 512, "m": m})
    rng = np.random.default_rng(7)
    tensor = task.algorithm.random_tensor(rng, "w", *task.op.weight_shape)
    kernels = Kernels([(task, dealt(task, "score"))], tensor, cache_directory)
    inputs = kernels.draw(task, m, rng, bias=False, scale=scale)
    outcome = kernels.run(kernels.kernels[0], inputs)
    assert outcome.comparison.passed, outcome.comparison
    x = inputs.case.inputs["x"][:, :512].astype(np.float64)
    assert np.isfinite(x).all()
    assert (np.abs(x).max() > 8192) == (scale > 1)


@pytest.mark.parametrize(("algorithm", "m"), [("aqlm-2x8", 2), ("vq-4-8-1", 4), ("aqlm-3", 1)])
def test_float16_scores_are_as_good_as_float16_outputs(algorithm: str, m: int, cache_directory: Path) -> None:
    """Their bound is of the worst case; rounding errors of many scores mostly cancel."""
    task = task_of({"algorithm": algorithm, "n": 64, "k": 2048, "m": m})
    for outcome in launched(task, dealt(task, "score"), cache_directory):
        assert outcome.comparison.relative_error < FLOAT16_ERROR


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("what", [np.inf, np.nan, 60000.0])
def test_rows_of_x_do_not_touch_each_other(what: float, m: int, cache_directory: Path) -> None:
    """Whatever one request's x holds, another's y has the same bits as without it."""
    task = task_of({"algorithm": "aqlm-2x8", "n": 64, "k": 512, "m": m})
    rng = np.random.default_rng(7)
    tensor = task.algorithm.random_tensor(rng, "w", *task.op.weight_shape)
    kernels = Kernels([(task, dealt(task, "score"))], tensor, cache_directory)
    inputs = kernels.draw(task, m, rng, bias=False)
    before = kernels.run(kernels.kernels[0], inputs).result.copy()
    inputs.case.inputs["x"][1, 17] = what
    after = kernels.run(kernels.kernels[0], inputs).result
    others = np.arange(m) != 1
    assert before[others].tobytes() == after[others].tobytes()
    assert np.isfinite(what) or not np.isfinite(after[1].astype(np.float64)).any()


@pytest.mark.parametrize(
    ("algorithm", "m"), [("aqlm-2x8", 1), ("aqlm-2x8", 2), ("aqlm-2x8", 4), ("vq-16-8-1", 2)]
)
def test_look_ups_and_tables_meet_no_bank_twice(algorithm: str, m: int, cache_directory: Path) -> None:
    """Loads of shared memory take the wavefronts of their width, whatever the codes are; so do stores."""
    task = task_of({"algorithm": algorithm, "n": 64, "k": 1024, "m": m, "sm_count": 2})
    plan = dealt(task, "score")
    outcome, *_ = launched(task, plan, cache_directory, count=True)
    counters = outcome.counters
    assert counters is not None
    assert isinstance(plan.layout, RotatedLayout)
    assert isinstance(plan.tile, ScoreTile)
    assert counters.shared_load_wavefronts == counters.shared_load_ideal
    assert counters.shared_store_wavefronts == counters.shared_store_ideal
    # Every code is looked up once: that is what 32 lanes of each group do in each step.
    codes = 2 * plan.layout.panels * plan.layout.panel_codes
    look_ups = codes * plan.tile.region.wavefronts
    assert counters.shared_load_wavefronts >= look_ups + codes // 16 * 4


def test_look_ups_of_twelve_bits_meet_two_to_a_bank(cache_directory: Path) -> None:
    """Two lanes look a table up at a time, in its two banks; stores of tables meet no bank twice."""
    task = task_of({"algorithm": "aqlm-3", "n": 1024, "k": 1024, "sm_count": 4})
    plan = dealt(task, "score")
    outcome, *_ = launched(task, plan, cache_directory, count=True)
    assert outcome.counters is not None
    assert isinstance(plan.layout, RotatedLayout)
    assert isinstance(plan.tile, ScoreTile)
    look_ups = 32 * plan.layout.panels * plan.layout.panel_codes
    found = outcome.counters.shared_load_wavefronts
    assert 1.0 < found / (look_ups * plan.tile.region.wavefronts) < 1.06  # the sums of rows too
    assert outcome.counters.shared_store_wavefronts == outcome.counters.shared_store_ideal


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (problem("aqlm-2x8", m=5), "4 rows of inputs, not 5"),
        (problem("aqlm-3", m=2), "12 bits serve 1 row of inputs, not 2"),
        (problem("aqlm-2x8", boundaries=Boundaries(shared=64)), "the spec's cache"),
        (problem(kmeans(vector_size=2, entries=256, residuals=4), n=2**20, k=2**10), "2 GiB"),
        (problem("aqlm-1x16"), "8 and 12 bits, not 16"),
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
        and "m16_float16 of this library: it serves 4 rows of inputs, not 16" in other.reason
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
